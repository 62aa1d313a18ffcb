"""From a C++ source to a program, in a box, once for each distinct source.

Programs are kept in memory, by content (RL groups repeat sources); not on disk, where nothing
that a model wrote belongs. `-O2` and g++'s own front end, so that the time limit and the language
are the ones that contest solutions were written for, and ONLINE_JUDGE, which contest judges define.

A source that does not compile is the model's fault, a machine on which g++ cannot work is not. The
compiler's words do not tell them apart, as they quote the source. So a failure that may be the
machine's is tried again, and then believed only if a program that is known to be right compiles.
"""

import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock

from tinylora.rewards.code.sandbox import (
    ROOT,
    BoxFailure,
    BoxSetup,
    Mechanism,
    RunLimits,
    RunReport,
    open_box,
    printable,
)
from tinylora.rewards.code.toolbox import flags, headers, toolbox

NUM_TRIES = 3
_WALL_PER_CPU = 3.0
_ADDRESS_SPACE = 2 << 30
_FILE_BYTES = 64 << 20
_TMP_BYTES = 128 << 20
_MESSAGE_CHARS = 2000
_KEPT_BYTES = 256 << 20
_CONTROL = b"int main() {}\n"
_MAY_BE_THE_MACHINE = re.compile(
    "Killed|Cannot|cannot execute|No space left|unavailable|memory|internal compiler error|"
    "Input/output error|Read-only|Bus error|Too many open files"
)


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
    """Compile; or wait for the thread that compiles the same; or remember.

    Args:
        standard: g++'s `-std`.
        cpu_s: limit; a source that takes longer does not compile.

    Raises:
        BoxFailure: the machine or the sandbox failed three times.
        SandboxUnavailable: g++ or bubblewrap is missing.
    """
    key = hashlib.sha256(f"{standard} {cpu_s} {mechanism} ".encode() + source).digest()
    return _kept.get(key, lambda: _compile_patiently(source, standard, cpu_s, mechanism))


def _compile_patiently(
    source: bytes, standard: str, cpu_s: float, mechanism: Mechanism
) -> Compiled:
    cause = ""
    for attempt in range(NUM_TRIES):
        try:
            compiled, cause = _compile(source, standard, cpu_s, mechanism, alone=attempt > 0)
        except BoxFailure as failure:
            cause = str(failure)
            continue
        if not cause or (attempt > 0 and _can_compile(standard, cpu_s, mechanism)):
            return compiled
    raise BoxFailure(cause)


def _can_compile(standard: str, cpu_s: float, mechanism: Mechanism) -> bool:
    try:
        return bool(_compile(_CONTROL, standard, cpu_s, mechanism, alone=True)[0].program)
    except BoxFailure:
        return False


def _compile(
    source: bytes, standard: str, cpu_s: float, mechanism: Mechanism, alone: bool
) -> tuple[Compiled, str]:
    """What came of it, and why that may be the machine's fault; or nothing."""
    limits = RunLimits(cpu_s, cpu_s * _WALL_PER_CPU, _ADDRESS_SPACE, _FILE_BYTES, processes=32)
    with open_box(_setup(source, standard, mechanism), mechanism, alone) as box:
        report = box.run(b"", limits)
        trouble = "" if report.product else box.trouble()
    if report.why == "wall":
        raise BoxFailure(
            f"g++ waited for {report.wall_s:.0f} s and computed for {report.cpu_s:.1f}"
        )
    said = _words(report)
    compiled = Compiled(report.product, said[:_MESSAGE_CHARS], report.cpu_s)
    if report.product or report.why in ("cpu", "memory"):
        return compiled, ""
    is_doubtful = trouble or not report.errors.strip() or _MAY_BE_THE_MACHINE.search(said)
    return compiled, f"g++ could not work: {trouble or said[:300]}" if is_doubtful else ""


def _words(report: RunReport) -> str:
    """What g++ said, line by line, or what can be said in its place."""
    said = "\n".join(map(printable, report.errors.splitlines()))
    if report.why == "cpu":
        return f"g++ was stopped after {report.cpu_s:.1f} s of CPU time. {said}"
    if report.why == "memory":
        return f"g++ was stopped: it used more than {_ADDRESS_SPACE >> 30} GB of memory. {said}"
    if said.strip() or report.product:
        return said
    return f"g++ exited with status {report.status} but produced no executable"


def _setup(source: bytes, standard: str, mechanism: Mechanism) -> BoxSetup:
    tools = toolbox()
    precompiled = headers(standard)
    searched = "/pch" if mechanism == "bwrap" else precompiled
    return BoxSetup(
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
    """Programs by key, the least recently asked for forgotten first; each is made once, though
    several threads ask for it."""

    def __init__(self) -> None:
        self._done: OrderedDict[bytes, Compiled] = OrderedDict()
        self._underway: dict[bytes, Future[Compiled]] = {}
        self._num_bytes = 0
        self._lock = Lock()

    def get(self, key: bytes, make: Callable[[], Compiled]) -> Compiled:
        """The program; who comes while it is made waits, and fails as its maker does."""
        with self._lock:
            if key in self._done:
                self._done.move_to_end(key)
                return self._done[key]
            others = self._underway.get(key)
            mine = Future[Compiled]()
            if others is None:
                self._underway[key] = mine
        if others is not None:
            return others.result()
        try:
            compiled = make()
        except BaseException as error:
            with self._lock:
                del self._underway[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._underway[key]
            self._keep(key, compiled)
        mine.set_result(compiled)
        return compiled

    def _keep(self, key: bytes, compiled: Compiled) -> None:
        self._done[key] = compiled
        self._num_bytes += _size(compiled)
        while self._num_bytes > _KEPT_BYTES:
            self._num_bytes -= _size(self._done.popitem(last=False)[1])


def _size(compiled: Compiled) -> int:
    return len(compiled.program) + len(compiled.message)


def _forget() -> None:
    """A child of a fork would wait for threads that only its parent has."""
    global _kept
    _kept = _Kept()


_kept = _Kept()
os.register_at_fork(after_in_child=_forget)
