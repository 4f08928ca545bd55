"""
What is connected now, and what has become of those that were: an observer that keeps numbers in bounded memory.

It shows nothing to anybody; that is another plugin's work. Users import from here.
"""

from __future__ import annotations

from ._records import ConnectionRecord, Recent, Summary
from ._registry import Registry

__all__ = ["ConnectionRecord", "Recent", "Registry", "Summary"]
