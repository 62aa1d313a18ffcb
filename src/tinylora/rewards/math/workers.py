r"""Worker processes for the comparisons that may not end, killed from outside when they do not.

One question goes to one worker. A worker that exceeds its processor time or its memory, or dies, is
replaced, and the other questions of the batch go on. Whose fault it was follows from what the
worker was reading: a gold answer that cannot be read is nobody's (None), an answer that a
gold-reading worker could not get through is the model's (not equal).

What this does not do: keep out code. Texts are parsed by a grammar, never evaluated as Python.
"""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinylora.processes import Child, Children, Ended

PROGRAM = Path(__file__).with_name("symbolic.py")
CPU_S = 4.0
WALL_S = 60.0
MEMORY_MB = 1024
MAX_WORKERS = 8
ATTEMPTS = 2


@dataclass(frozen=True)
class Judged:
    """Whether an answer equals its gold; None where that could not be judged, with the reason."""

    equal: bool | None
    reason: str


@dataclass
class Pool:
    """Workers that start when a question needs one and stay until the program ends.

    Args:
        size: processes at most.
        cpu_s: processor seconds for one question, enforced by the kernel.
        wall_s: seconds on the clock for one question; more means that the machine is stuck.
        memory_mb: address space of a worker.
    """

    size: int = field(default_factory=lambda: min(MAX_WORKERS, os.cpu_count() or 1))
    cpu_s: float = CPU_S
    wall_s: float = WALL_S
    memory_mb: int = MEMORY_MB
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        fixed = {"PYTHONHASHSEED": "0"}  # SymPy goes through sets: the same verdict every time
        self.workers = Children(
            Child(PROGRAM, self.cpu_s, self.memory_mb, environment=fixed) for _ in range(self.size)
        )

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Judged]:
        """Judge (gold, answer) pairs, each within its own limits."""
        said: dict[int, Judged | Ended] = {}
        with self._lock:
            for _ in range(ATTEMPTS):  # a process that died by itself may do better next time
                left = [i for i in range(len(pairs)) if not isinstance(said.get(i), Judged)]
                said |= zip(left, self._ask_all([pairs[i] for i in left]), strict=True)
        return [each if isinstance(each, Judged) else _not_run(each) for each in said.values()]

    def _ask_all(self, pairs: Sequence[tuple[str, str]]) -> list[Judged | Ended]:
        threads = ThreadPoolExecutor(self.size)
        try:
            return list(threads.map(self._ask, pairs))
        except BaseException:
            self._kill()  # a worker may be in the middle of a question
            raise
        finally:
            threads.shutdown(cancel_futures=True)

    def _ask(self, pair: tuple[str, str]) -> Judged | Ended:
        try:
            return _judged(self.workers.ask(pair, self.wall_s))
        except Ended as ended:
            if ended.by_content and ended.progress in _OVER_LIMIT:
                return _OVER_LIMIT[ended.progress]
            return ended

    def _kill(self) -> None:
        for worker in self.workers.all:
            worker.kill()

    def close(self) -> None:
        """End the workers; the next question starts new ones."""
        for worker in self.workers.all:
            worker.close()


_JUDGED = {
    True: Judged(True, "equal"),
    False: Judged(False, "not equal"),
    None: Judged(None, "the gold answer cannot be read"),
}
_OVER_LIMIT = {  # by what the worker was reading
    "gold": Judged(None, "the gold answer cannot be read within the limits"),
    "answer": Judged(False, "limit: the answer cannot be compared within the limits"),
}


def _judged(said: dict[str, Any]) -> Judged:
    if "equal" in said:
        return _JUDGED[said["equal"]]
    if "limit" in said:
        return _OVER_LIMIT[said["limit"]]
    return Judged(None, said["failed"])


def _not_run(cause: object) -> Judged:
    return Judged(None, f"the comparison could not be run: {cause}")


_pool = Pool()


def judge(pairs: Sequence[tuple[str, str]]) -> list[Judged]:
    """Judge pairs with the program's one pool."""
    return _pool.judge(pairs)
