"""A subscription of Ariadne, over graphql-transport-ws."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from ariadne import SubscriptionType, make_executable_schema
from ariadne.asgi import GraphQL
from ariadne.asgi.handlers import GraphQLTransportWSHandler

from ..scenarios import HOOK, TOLD
from ..stage import PAUSE_S, boom, case, say

subscription = SubscriptionType()


@subscription.source("ticks")
async def ticks(parent: Any, info: Any) -> AsyncGenerator[int, None]:
    """Tick for ever."""
    try:
        while True:
            yield 1
            await asyncio.sleep(PAUSE_S)
    finally:
        say(TOLD)
        say(HOOK)


@subscription.field("ticks")
def tick(number: int, info: Any) -> int:
    """Give one tick."""
    return number


def admit(websocket: Any, payload: Any) -> None:
    """Refuse a connection that is to be refused, by an exception, as Ariadne wants it."""
    if case.get()[0] == "denial":
        boom()


schema = make_executable_schema("type Query { hello: String } type Subscription { ticks: Int! }", subscription)
app = GraphQL(schema, websocket_handler=GraphQLTransportWSHandler(on_connect=admit))
