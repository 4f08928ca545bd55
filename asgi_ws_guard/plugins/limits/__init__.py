"""
How much a client may do: live connections, attempts, messages and bytes per time; and who a client is by its address.

It counts what this process sees; attempts are counted for all processes where a storage is given. Users import from
here.
"""

from __future__ import annotations

from ._address import ClientAddress
from ._limits import Limits
from ._rate import Answer, Rate

__all__ = ["Answer", "ClientAddress", "Limits", "Rate"]
