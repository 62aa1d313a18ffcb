r"""Worker processes for the comparisons that may not end, killed from outside when they do not.

One question goes to one worker. A worker that exceeds its processor time or its memory, or dies, is
replaced, and the other questions of the batch go on. Whose fault it was follows from what the
worker was reading: a gold answer that cannot be read is nobody's (None), an answer that a
gold-reading worker could not get through is the model's (not equal).

What this does not do: keep out code. Texts are parsed by a grammar, never evaluated as Python.
"""

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("symbolic.py")
CPU_S = 4.0
WALL_S = 60.0
MEMORY_MB = 1024
MAX_WORKERS = 8
ATTEMPTS = 2
ENDING_S = 5.0


@dataclass(frozen=True)
class Judged:
    """Whether an answer equals its gold; None where that could not be judged, with the reason."""

    equal: bool | None
    reason: str


@dataclass
class _Job:
    index: int
    gold: str
    answer: str
    attempts: int = 0


class _Worker:
    """One process, and the question it works on."""

    def __init__(self, cpu_s: float, memory_mb: int) -> None:
        command = [sys.executable, "-P", str(PROGRAM), str(cpu_s), str(memory_mb), str(os.getpid())]
        path = os.pathsep.join(folder for folder in sys.path if folder)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.job: _Job | None = None
        self.reading = ""
        self.deadline = 0.0
        self.unread = b""

    def ask(self, job: _Job, wall_s: float) -> None:
        self.job, self.reading = job, ""
        self.deadline = time.monotonic() + wall_s
        line = json.dumps({"gold": job.gold, "answer": job.answer}) + "\n"
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # a dead worker: the end of its output tells
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()

    def events(self) -> list[dict[str, Any]] | None:
        """What it has said since the last call; None at its end."""
        assert self.process.stdout is not None
        said = self.process.stdout.read()
        if said == b"":
            return None
        *lines, self.unread = (self.unread + (said or b"")).split(b"\n")
        return [json.loads(line) for line in lines]

    def end(self, at_end_of_output: bool = False) -> int:
        """Kill it, unless it is ending by itself; its exit status."""
        if at_end_of_output:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(ENDING_S)
        self.process.kill()
        status = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        return status


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
    _workers: list[_Worker] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _owner: int = field(default_factory=os.getpid)

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Judged]:
        """Judge (gold, answer) pairs, each within its own limits."""
        with self._lock:
            if self._owner != os.getpid():  # a fork must not read its parent's pipes
                self._workers, self._owner = [], os.getpid()
            return _Round(self, pairs).run()

    def close(self) -> None:
        """End the workers; the next question starts new ones."""
        if self._owner == os.getpid():
            while self._workers:
                self._workers.pop().end()


class _Round:
    """One call of `Pool.judge`: jobs that wait, workers that work, and what came of it."""

    def __init__(self, pool: Pool, pairs: Sequence[tuple[str, str]]) -> None:
        self.pool = pool
        self.waiting = deque(_Job(i, gold, answer) for i, (gold, answer) in enumerate(pairs))
        self.judged: list[Judged | None] = [None] * len(pairs)
        self.selector = selectors.DefaultSelector()

    def run(self) -> list[Judged]:
        try:
            for worker in list(self.pool._workers):
                self._watch(worker)
                self._next(worker)
            while None in self.judged:
                self._hire()
                self._wait()
        except BaseException:
            self.pool.close()  # a worker may be in the middle of a question
            raise
        finally:
            self.selector.close()
        return [judged for judged in self.judged if judged is not None]

    def _hire(self) -> None:
        while self.waiting and len(self.pool._workers) < self.pool.size:
            worker = _Worker(self.pool.cpu_s, self.pool.memory_mb)
            self.pool._workers.append(worker)
            self._watch(worker)
            self._next(worker)

    def _watch(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        self.selector.register(worker.process.stdout, selectors.EVENT_READ, worker)

    def _next(self, worker: _Worker) -> None:
        worker.job = None
        if self.waiting:
            worker.ask(self.waiting.popleft(), self.pool.wall_s)

    def _wait(self) -> None:
        busy = [worker.deadline for worker in self.pool._workers if worker.job]
        timeout = max(0.0, min(busy) - time.monotonic()) if busy else None
        for ready, _ in self.selector.select(timeout):
            self._hear(ready.data)
        for worker in list(self.pool._workers):
            if worker.job and time.monotonic() > worker.deadline:
                self._bury(worker, f"no answer within {self.pool.wall_s:g} s on the clock")

    def _hear(self, worker: _Worker) -> None:
        events = worker.events()
        if events is None:
            self._bury(worker)
            return
        for event in events:
            if "broken" in event:
                self._bury(worker, event["broken"])
                return
            worker.reading = event.get("reading", worker.reading)
            judged = _judged(event, worker.reading)
            if judged and worker.job:
                self.judged[worker.job.index] = judged
                self._next(worker)

    def _bury(self, worker: _Worker, cause: str = "") -> None:
        """A worker has ended, or has to: settle its question or ask it again elsewhere."""
        assert worker.process.stdout is not None
        self.selector.unregister(worker.process.stdout)
        self.pool._workers.remove(worker)
        status, job = worker.end(at_end_of_output=not cause), worker.job
        if job is None:
            return
        if not cause and -status in _CONTENT_SIGNALS and worker.reading:
            self.judged[job.index] = _over_limit(worker.reading)
            return
        job.attempts += 1
        if job.attempts < ATTEMPTS:
            self.waiting.append(job)
            return
        cause = cause or f"its process ended with status {status}"
        self.judged[job.index] = Judged(None, f"the comparison could not be run: {cause}")


_CONTENT_SIGNALS = (signal.SIGPROF, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE)


_JUDGED = {
    True: Judged(True, "equal"),
    False: Judged(False, "not equal"),
    None: Judged(None, "the gold answer cannot be read"),
}


def _judged(event: dict[str, Any], reading: str) -> Judged | None:
    if "equal" in event:
        return _JUDGED[event["equal"]]
    if "failed" in event:
        return Judged(None, f"the comparison failed: {event['failed']} in the algebra")
    return _over_limit(reading) if "limit" in event else None


def _over_limit(reading: str) -> Judged:
    if reading == "gold":
        return Judged(None, "the gold answer cannot be read within the limits")
    return Judged(False, "limit: the answer cannot be compared within the limits")


_pool = Pool()
atexit.register(_pool.close)


def judge(pairs: Sequence[tuple[str, str]]) -> list[Judged]:
    """Judge pairs with the program's one pool."""
    return _pool.judge(pairs)
