"""Ctrl-C, SIGTERM and SIGHUP between two steps, so that what is saved is a whole step."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last two: schedulers, lost terminals
NOTICE = b"\nFinishing this step; its checkpoint will be written. Ctrl-C again stops at once.\n"


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Inside, the first signal is only noted; the function that is yielded tells whether one came.

    A second one acts at once, as it would outside. Nothing changes in a thread other than the main
    one, and a SIGHUP that is ignored (nohup) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    noted: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        os.write(2, NOTICE)  # print may be what the signal interrupted
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(noted)
    finally:
        restore()
