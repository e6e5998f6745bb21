"""Threads for what would hold up the event loop, and work that is not begun once nobody waits for it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")
IsWanted = Callable[[], bool]
"""Asked on any thread: whether somebody still waits for the answer."""


class NoLongerWantedError(Exception):
    """Work that was not begun, because nobody waits for its result any more."""


class Threads:
    """Some threads that take work in the order in which it comes."""

    def __init__(self, n_threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix=name)

    async def run(self, work: Callable[[], Result], is_wanted: IsWanted = lambda: True) -> Result:
        """The result of work done on one of the threads.

        Args:
            work: takes its time.
            is_wanted: asked once a thread is free, and nothing is done if not.

        Raises:
            NoLongerWantedError: if the work is not wanted any more.
        """

        def begin() -> Result:
            if not is_wanted():
                raise NoLongerWantedError
            return work()

        return await asyncio.get_running_loop().run_in_executor(self._pool, begin)

    def close(self) -> None:
        """Let the threads finish what they are doing, drop what they have not begun, and end them."""
        self._pool.shutdown(cancel_futures=True)
