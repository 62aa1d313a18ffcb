"""A program against its tests: one box, one test after another, and how each ended.

For each test the worst that can be said: TLE before OLE, MLE, RE, WA, AC. A program that is killed
by the wall clock although it wanted to compute (a busy machine) is run again with all cores free.
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from tinylora.errors import RequestError
from tinylora.rewards.code.compile import NUM_TRIES
from tinylora.rewards.code.outputs import Compare, is_same
from tinylora.rewards.code.sandbox import (
    ROOT,
    Box,
    BoxFailure,
    Ended,
    Mechanism,
    RunLimits,
    Stage,
    open_box,
)
from tinylora.rewards.code.toolbox import toolbox

_SLACK_BYTES = 64 << 20  # address space beyond the memory limit: code, libraries, arenas
_NEARLY_ALL = 0.8  # of the memory was in use when it died: then that is why
_IDLE = 0.1  # of the CPU limit: who used less until the wall clock struck was waiting, not working


@dataclass(frozen=True)
class Test:
    """An input and the output that is wanted for it."""

    input: str | bytes
    output: str | bytes
    __test__ = False  # not one of pytest's


@dataclass(frozen=True)
class Limits:
    """What a program may use in one test, and the compiler for the whole program.

    Args:
        cpu_s: CPU time of all processes and threads together.
        wall_s: real time; None: 3 cpu_s + 2 (a backstop against sleeping, not the time limit).
        memory_mb: resident memory; 64 MB more may be reserved, and held by all processes together.
        output_mb: bytes of output; at least twice the wanted output is allowed.
        processes: processes and threads at once.
        compile_cpu_s: CPU time of g++.

    Raises:
        RequestError: a limit is not positive.
    """

    cpu_s: float = 2.0
    wall_s: float | None = None
    memory_mb: int = 256
    output_mb: float = 16.0
    processes: int = 16
    compile_cpu_s: float = 20.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise RequestError(f"Limits.{name} = {value}, but a limit is above 0.")

    def of_run(self, wanted: bytes) -> RunLimits:
        wall_s = 3 * self.cpu_s + 2 if self.wall_s is None else self.wall_s
        output = max(int(self.output_mb * (1 << 20)), 2 * len(wanted))
        memory = (self.memory_mb << 20) + _SLACK_BYTES
        return RunLimits(self.cpu_s, wall_s, memory, output, self.processes)


@dataclass(frozen=True)
class TestResult:
    """How one test ended: AC, WA, TLE, MLE, RE or OLE, a word about it, and what it took."""

    reason: str
    message: str
    cpu_s: float
    memory_mb: float
    __test__ = False


@dataclass(frozen=True)
class Trial:
    """Tests and the rules by which they are judged."""

    tests: Sequence[Test]
    limits: Limits
    compare: Compare
    tolerance: float
    stops_early: bool


def run_tests(program: bytes, trial: Trial, mechanism: Mechanism) -> list[TestResult]:
    """One result for each test, in order; with `stops_early`, up to the first failure.

    Raises:
        BoxFailure: the box failed three times.
        SandboxUnavailable: bubblewrap is missing.
    """
    stage = _stage(program)
    results: list[TestResult] = []
    num_failures, alone = 0, False
    while not _is_over(results, trial):
        try:
            with open_box(stage, mechanism, alone) as box:
                alone = _run_some(box, trial, results, alone)
        except BoxFailure:
            num_failures += 1
            if num_failures == NUM_TRIES:
                raise
    return results


def _run_some(box: Box, trial: Trial, results: list[TestResult], alone: bool) -> bool:
    """Append results until all are there; whether the next test is better run alone."""
    while not _is_over(results, trial):
        test = trial.tests[len(results)]
        wanted = as_bytes(test.output)
        limits = trial.limits.of_run(wanted)
        ended = box.run(as_bytes(test.input), limits)
        if not alone and _is_starved(ended, limits):
            return True
        results.append(_result(ended, wanted, limits, trial))
        if alone:
            break
    return False


def _is_over(results: list[TestResult], trial: Trial) -> bool:
    has_failed = bool(results) and results[-1].reason != "AC"
    return len(results) == len(trial.tests) or (trial.stops_early and has_failed)


def _is_starved(ended: Ended, limits: RunLimits) -> bool:
    return ended.why == "wall" and _IDLE * limits.cpu_s < ended.cpu_s < limits.cpu_s


def _result(ended: Ended, wanted: bytes, limits: RunLimits, trial: Trial) -> TestResult:
    reason, message = _fault(ended, limits, trial.limits.memory_mb << 20)
    if not reason:
        is_right = is_same(ended.output, wanted, trial.compare, trial.tolerance)
        reason = "AC" if is_right else "WA"
        message = "" if is_right or ended.output.strip() else "no output"
    return TestResult(reason, message, ended.cpu_s, ended.resident_bytes / (1 << 20))


def _fault(ended: Ended, limits: RunLimits, memory_bytes: int) -> tuple[str, str]:
    """Why the output does not matter, or twice nothing."""
    if ended.why == "wall":
        return "TLE", f"stopped after {ended.wall_s:.1f} s of wall time"
    if ended.why == "cpu" or ended.cpu_s > limits.cpu_s:
        return "TLE", f"{ended.cpu_s:.2f} s of CPU time"
    if ended.status == -signal.SIGXFSZ or len(ended.output) >= limits.output_bytes:
        return "OLE", f"{len(ended.output)} bytes of output"
    if ended.why == "memory":
        return "MLE", "all processes together"
    share = ended.resident_bytes / memory_bytes
    if share > 1 or (ended.status != 0 and share > _NEARLY_ALL):
        return "MLE", f"{ended.resident_bytes >> 20} MB"
    if ended.status < 0:
        return "RE", f"killed by signal {-ended.status} ({_name(-ended.status)})"
    return ("RE", f"exit code {ended.status}") if ended.status else ("", "")


def _name(number: int) -> str:
    return signal.strsignal(number) or "unknown"


def _stage(program: bytes) -> Stage:
    return Stage(
        command=(f"{ROOT}/a.out",),
        files={"/a.out": program},
        binds={path: path for path in toolbox().libraries},
        devices=("null", "zero", "urandom", "random"),
    )


def as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
