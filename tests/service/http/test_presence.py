"""Whether a client is still there, as a plain function for any thread."""

import asyncio

import pytest
from starlette.requests import Request
from starlette.types import Message

from modeguard.service.http import client_presence

pytestmark = pytest.mark.anyio


async def test_a_client_is_there_until_it_hangs_up() -> None:
    hung_up = asyncio.Event()

    async def receive() -> Message:
        await hung_up.wait()
        return {"type": "http.disconnect"}

    tasks_before = asyncio.all_tasks()
    async with client_presence(Request({"type": "http"}, receive)) as is_wanted:
        await asyncio.sleep(0.01)
        assert is_wanted()
        hung_up.set()
        await asyncio.sleep(0.01)
        assert not is_wanted()
    assert asyncio.all_tasks() == tasks_before, "nobody watches any more"
