"""One model, many requests: they take turns in one thread."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, TypeVar

from tinylora.errors import TinyLoraError
from tinylora.play.steering import Interrupted

Made = TypeVar("Made")


class Turns:
    """One thread, in which everything that touches the model runs, one request after the other."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    async def call(self, function: Callable[..., Made], *args: Any) -> Made:
        """What the function returns, when it is its turn."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    async def call_until(
        self, gone: Awaitable[Any], function: Callable[[threading.Event], Made]
    ) -> Made | None:
        """The same; None where `gone` comes first. The function sees it by its event."""
        has_gone = threading.Event()
        made = asyncio.ensure_future(self.call(function, has_gone))
        left = asyncio.ensure_future(gone)
        await asyncio.wait([made, left], return_when=asyncio.FIRST_COMPLETED)
        if not made.done():
            has_gone.set()
        left.cancel()
        try:
            return await made
        except Interrupted:
            return None

    async def stream(self, make: Callable[[], Generator[Any]]) -> AsyncGenerator[Any]:
        """What `make` yields, as it comes; it is stopped where the reader has gone."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Any] = asyncio.Queue()
        is_over, has_gone = object(), threading.Event()

        def work() -> None:
            try:
                with closing(make()) as items:
                    for item in items:
                        if has_gone.is_set():
                            return
                        loop.call_soon_threadsafe(queue.put_nowait, item)
            except TinyLoraError as error:
                loop.call_soon_threadsafe(queue.put_nowait, {"error": str(error)})
            finally:
                loop.call_soon_threadsafe(queue.put_nowait, is_over)

        worked = loop.run_in_executor(self._pool, work)
        try:
            while (item := await queue.get()) is not is_over:
                yield item
        finally:
            has_gone.set()
        await worked
