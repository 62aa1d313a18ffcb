"""A program of this package in a process of its own, asked one question at a time.

The math grader's workers, the verifier of reasoning-gym and the workers of a sweep share this one
protocol: JSON over a socket. A program says "ready", may say where it is (a string), and gives one
object as its answer. `Child` is the caller's end and `Parent` the program's.

Why not a pool of `multiprocessing` or of another library: spawn and forkserver run the caller's
main script again in every worker, which trains a second model where the script has no
`if __name__ == "__main__"`; a fork after torch has started threads can hang; and none of them
fixes the hash seed or tells what the process was doing when it died.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from queue import LifoQueue
from typing import IO, Any

ENDING_S = 5.0  # for a process that has hung up to end by itself
PARENT_CHECK_S = 5.0
STARTING = "starting"  # the progress of a program that has not said a word
# How a process dies of its input: of processor time, of a deep stack, of memory.
CONTENT_SIGNALS = (signal.SIGPROF, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE)


class Ended(Exception):
    """A process ended, or had to be ended, before it had answered.

    Attributes:
        by_content: the signal that ended it is one by which a process dies of its input.
        progress: the last word that the program said about where it was.
    """

    def __init__(self, cause: str, by_content: bool, progress: str) -> None:
        super().__init__(cause)
        self.by_content, self.progress = by_content, progress


class Child:
    """A program that starts with its first question, and again after its end.

    Args:
        program: the file; its arguments follow.
        environment: variables beside those of this process.
        log: where its output and its errors go.
    """

    def __init__(
        self,
        program: Path,
        *arguments: object,
        environment: dict[str, str] | None = None,
        log: IO[str] | int = subprocess.DEVNULL,
    ) -> None:
        self.program, self.arguments, self.log = program, arguments, log
        self.environment = environment or {}
        self.progress = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Connection | None = None
        self._owner = 0

    @property
    def pid(self) -> int | None:
        """The process, if there is one."""
        return self._process.pid if self._process else None

    def ask(self, question: Any, timeout_s: float | None = None) -> dict[str, Any]:
        """The program's answer.

        Raises:
            Ended: there is none; the next question starts the program again.
        """
        if self._process is None or self._owner != os.getpid():  # a fork leaves it to its parent
            self._start()
        else:
            self.progress = ""
        assert self._channel is not None
        with suppress(OSError):  # a dead process: the end of what it says tells
            self._channel.send_bytes(json.dumps(question).encode())
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._channel.poll(left_s):
                self.close()
                cause = f"it gave no answer within {timeout_s:g} s on the clock"
                raise Ended(cause, False, self.progress)
            try:
                said = json.loads(self._channel.recv_bytes())
            except (EOFError, OSError):
                status = self.close(ENDING_S)
                cause = f"its process ended with status {status}"
                raise Ended(cause, -status in CONTENT_SIGNALS, self.progress) from None
            if not isinstance(said, str):
                return dict(said)
            self.progress = said

    def _start(self) -> None:
        ours, theirs = Pipe()
        path = os.pathsep.join(folder for folder in sys.path if folder)
        # -P: the program's neighbours are no modules of their own
        command = [sys.executable, "-P", self.program, theirs.fileno(), os.getpid()]
        self._process = subprocess.Popen(
            [str(part) for part in (*command, *self.arguments)],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, "PYTHONPATH": path, **self.environment},
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._channel, self._owner, self.progress = ours, os.getpid(), STARTING
        self._finalizer = weakref.finalize(self, _end, self._process, self._owner)

    def kill(self) -> None:
        """End the process; a thread that waits for its answer sees that."""
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()

    def close(self, patience_s: float | None = 0) -> int:
        """End the process, after `patience_s` (None: when it ends by itself); its exit status."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return 0
        assert self._channel is not None
        self._finalizer.detach()
        self._channel.close()
        with suppress(subprocess.TimeoutExpired):
            return process.wait(patience_s)
        process.kill()
        return process.wait()


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """What happens to the process of a `Child` that nobody has any more."""
    if owner == os.getpid() and process.poll() is None:
        process.kill()
        process.wait()


class Children:
    """Several of them that share questions: ask from as many threads."""

    def __init__(self, children: Iterable[Child]) -> None:
        self.all = list(children)
        self._idle: LifoQueue[Child] = LifoQueue()  # the last used first: few start for few
        for child in self.all:
            self._idle.put(child)

    def ask(self, question: Any, timeout_s: float | None = None) -> dict[str, Any]:
        """The answer of the next child that is idle; see `Child.ask`."""
        child = self._idle.get()
        try:
            return child.ask(question, timeout_s)
        finally:
            self._idle.put(child)


class Parent:
    """The other end, in the program; its arguments are `sys.argv[3:]`."""

    def __init__(self) -> None:
        self._channel = Connection(int(sys.argv[1]))
        self._pid = int(sys.argv[2])

    def questions(self) -> Iterator[Any]:
        """Until the parent hangs up, or is gone while a fork of it holds the line."""
        self.say("ready")
        while True:
            while not self._channel.poll(PARENT_CHECK_S):
                if os.getppid() != self._pid:
                    return
            try:
                question = self._channel.recv_bytes()
            except (EOFError, OSError):
                return
            yield json.loads(question)

    def say(self, what: str | dict[str, Any]) -> None:
        """Where the program is, or its answer."""
        self._channel.send_bytes(json.dumps(what).encode())


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """The kernel ends this process with SIGPROF when it takes more processor time than that."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)


def limit_memory(memory_mb: int) -> None:
    """Address space for this process; it leaves no core file."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
