"""
Who is behind a WebSocket: policies that ask an authenticator, ready-made authenticators, places to look for tokens.

They find an identity and deny without one; closing when it expires is the session's work. Users import from here.
"""

from __future__ import annotations

from ._asking import Authenticator
from ._denials import REASONS
from ._first_message import FirstMessageAuth, json_field
from ._jwt import jwt
from ._nonces import MemoryNonces, Nonces, RedisNonces
from ._policy import Auth
from ._sources import Found, Source, bearer_header, cookie, query, subprotocol
from ._tickets import Tickets
from ._tokens import tokens

__all__ = [
    "REASONS",
    "Auth",
    "Authenticator",
    "FirstMessageAuth",
    "Found",
    "MemoryNonces",
    "Nonces",
    "RedisNonces",
    "Source",
    "Tickets",
    "bearer_header",
    "cookie",
    "json_field",
    "jwt",
    "query",
    "subprotocol",
    "tokens",
]
