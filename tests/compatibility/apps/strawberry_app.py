"""A subscription of Strawberry GraphQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import strawberry
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError

from ..scenarios import HOOK, TOLD
from ..stage import PAUSE_S, case, say


@strawberry.type  # type: ignore[untyped-decorator, unused-ignore]
class Query:
    """There must be one."""

    hello: str = "hello"


@strawberry.type  # type: ignore[untyped-decorator, unused-ignore]
class Subscription:
    """The subscriptions."""

    @strawberry.subscription  # type: ignore[untyped-decorator, unused-ignore]
    async def ticks(self) -> AsyncGenerator[int, None]:
        """Tick for ever."""
        try:
            while True:
                yield 1
                await asyncio.sleep(PAUSE_S)
        finally:
            say(TOLD)
            say(HOOK)


class Application(GraphQL[None, None]):  # type: ignore[misc, unused-ignore]
    """Refuses a connection that is to be refused."""

    async def on_ws_connect(self, context: Any) -> Any:
        """Look at the scenario."""
        if case.get()[0] == "denial":
            raise ConnectionRejectionError
        return await super().on_ws_connect(context)


app = Application(strawberry.Schema(Query, subscription=Subscription))
