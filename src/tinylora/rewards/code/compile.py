"""From a C++ source to a program, in a box, once for each distinct source.

Programs are kept in memory, by content (RL groups repeat sources); not on disk, where nothing
that a model wrote belongs. `-O2` and g++'s own front end, so that the time limit and the language
are the ones that contest solutions were written for.
"""

import hashlib
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock

from tinylora.rewards.code.sandbox import (
    ROOT,
    BoxFailure,
    Ended,
    Mechanism,
    RunLimits,
    Stage,
    open_box,
)
from tinylora.rewards.code.toolbox import flags, headers, toolbox

NUM_TRIES = 3
_WALL_PER_CPU = 3.0
_ADDRESS_SPACE = 2 << 30
_FILE_BYTES = 64 << 20
_TMP_BYTES = 128 << 20
_MESSAGE_CHARS = 2000
_KEPT_BYTES = 256 << 20
_NO_ROOM = "Cannot create temporary file"
_KILLED = "Killed signal terminated program"


@dataclass(frozen=True)
class Compiled:
    """What came of a source.

    Args:
        program: the executable; empty where the source does not compile.
        message: the compiler's first words about it, cut.
        cpu_s: what the compiler took.
    """

    program: bytes
    message: str
    cpu_s: float


def compile_source(source: bytes, standard: str, cpu_s: float, mechanism: Mechanism) -> Compiled:
    """Compile, or wait for whoever compiles the same, or remember.

    Args:
        standard: g++'s `-std`.
        cpu_s: limit; a source that takes longer does not compile.

    Raises:
        BoxFailure: the box failed three times.
        SandboxUnavailable: g++ or bubblewrap is missing.
    """
    key = hashlib.sha256(f"{standard} {cpu_s} {mechanism} ".encode() + source).digest()
    promise, is_mine = _kept.promise(key)
    if is_mine:
        try:
            _kept.keep(promise, _compile_patiently(source, standard, cpu_s, mechanism))
        except BaseException as error:
            _kept.fail(key, error)
            raise
    return promise.result()


def _compile_patiently(
    source: bytes, standard: str, cpu_s: float, mechanism: Mechanism
) -> Compiled:
    for attempt in range(NUM_TRIES):
        try:
            return _compile(source, standard, cpu_s, mechanism, alone=attempt > 0)
        except BoxFailure:
            if attempt == NUM_TRIES - 1:
                raise
    raise AssertionError("a last attempt returns or raises")


def _compile(
    source: bytes, standard: str, cpu_s: float, mechanism: Mechanism, alone: bool
) -> Compiled:
    limits = RunLimits(cpu_s, cpu_s * _WALL_PER_CPU, _ADDRESS_SPACE, _FILE_BYTES, processes=32)
    with open_box(_stage(source, standard, mechanism), mechanism, alone) as box:
        ended = box.run(b"", limits)
    said = ended.errors.decode(errors="replace")
    _check_host(ended, said, cpu_s)
    if ended.why != "exit" or _was_killed(ended, said):
        said = f"g++ was stopped after {ended.cpu_s:.1f} s of CPU time. {said}"
    elif ended.status != 0 and not said:
        said = f"g++ ended with status {ended.status}"
    return Compiled(ended.product, said[:_MESSAGE_CHARS], ended.cpu_s)


def _check_host(ended: Ended, said: str, cpu_s: float) -> None:
    """A source that does not compile is the model's fault; what follows is not."""
    if ended.why == "wall" and ended.cpu_s < cpu_s / 2:
        raise BoxFailure(f"g++ got {ended.cpu_s:.1f} s of CPU time in {ended.wall_s:.0f} s")
    is_killed_by_host = _was_killed(ended, said) and ended.cpu_s < cpu_s
    if is_killed_by_host or (ended.status != 0 and _NO_ROOM in said):
        raise BoxFailure(f"g++ could not work: {' '.join(said.split())[:300]}")
    if ended.why == "exit" and ended.status == 0 and not ended.product:
        raise BoxFailure("g++ said that all was well, but there is no program")


def _was_killed(ended: Ended, said: str) -> bool:
    """g++ outlived the compiler proper, which met its CPU limit, or a host without memory."""
    return ended.status != 0 and _KILLED in said


def _stage(source: bytes, standard: str, mechanism: Mechanism) -> Stage:
    tools = toolbox()
    precompiled = headers(standard)
    searched = "/pch" if mechanism == "bwrap" else precompiled
    return Stage(
        command=(
            tools.gxx, *flags(standard), "-fmax-errors=5", "-fdiagnostics-color=never",
            "-I", searched, "-o", f"{ROOT}/tmp/a.out", f"{ROOT}/main.cpp",
        ),
        files={"/main.cpp": source},
        binds={path: path for path in tools.toolchain} | {precompiled: "/pch"},
        tmp_bytes=_TMP_BYTES,
        product="/tmp/a.out",
        keeps_errors=True,
    )  # fmt: skip


class _Kept:
    """Promises of programs by key; the least recently asked for is forgotten first."""

    def __init__(self) -> None:
        self._promises: OrderedDict[bytes, Future[Compiled]] = OrderedDict()
        self._num_bytes = 0
        self._lock = Lock()

    def promise(self, key: bytes) -> tuple[Future[Compiled], bool]:
        """The promise, and whether it is the caller's to keep."""
        with self._lock:
            is_mine = key not in self._promises
            promise = self._promises.setdefault(key, Future())
            self._promises.move_to_end(key)
            return promise, is_mine

    def keep(self, promise: "Future[Compiled]", compiled: Compiled) -> None:
        promise.set_result(compiled)
        with self._lock:
            self._num_bytes += _size(compiled)
            while self._num_bytes > _KEPT_BYTES:
                _, oldest = self._promises.popitem(last=False)
                self._num_bytes -= _size(oldest.result()) if oldest.done() else 0

    def fail(self, key: bytes, error: BaseException) -> None:
        """Whoever waits fails as well; whoever comes later tries again."""
        with self._lock:
            promise = self._promises.pop(key, None)
        if promise:
            promise.set_exception(error)


def _size(compiled: Compiled) -> int:
    return len(compiled.program) + len(compiled.message)


_kept = _Kept()
