"""Whether a client is still there, so that work which nobody waits for any more is not begun."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from modeguard.service.inference import IsWanted


@asynccontextmanager
async def client_presence(request: Request) -> AsyncIterator[IsWanted]:
    """Watch a client while the context lasts.

    Args:
        request: whose body has been read.

    Yields:
        A function for any thread: whether the client has not hung up yet.
    """
    has_left = threading.Event()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        has_left.set()

    watching = asyncio.create_task(watch())
    try:
        yield lambda: not has_left.is_set()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
