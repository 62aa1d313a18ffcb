"""A program against its tests: one box, one test after another, and how each report.

For each test the worst that can be said: TLE before OLE, MLE, RE, WA, AC. Time-outs count CPU time
that was used, and real time in which the program waited for nothing that the machine owed it: a
busy machine makes no TLE, and one on which a program cannot be run is a BoxFailure.
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from tinylora.errors import RequestError
from tinylora.rewards.code.compile import NUM_TRIES
from tinylora.rewards.code.outputs import Comparison
from tinylora.rewards.code.sandbox import (
    ROOT,
    Box,
    BoxFailure,
    BoxSetup,
    Mechanism,
    RunLimits,
    RunReport,
    open_box,
)
from tinylora.rewards.code.toolbox import toolbox

_SLACK_BYTES = 64 << 20  # address space beyond the memory limit: code, libraries, arenas
_NEARLY_ALL = 0.8  # of the memory was in use when it died: then that is why
_MAX_TIMEOUTS = 2  # a program that hangs would else take the time of all tests


@dataclass(frozen=True)
class Test:
    """An input and the output that is wanted for it.

    Args:
        input: what the program reads from its standard input.
        output: what it is to write to its standard output.
    """

    input: str | bytes
    output: str | bytes
    __test__ = False  # not one of pytest's


@dataclass(frozen=True)
class Limits:
    """What a program may use in one test, and the compiler for the whole program.

    Args:
        cpu_s: CPU time of all processes and threads together.
        wall_s: real time in which the program neither computes nor waits for a processor; None:
            3 cpu_s + 2.
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
                raise RequestError(f"Limits.{name} = {value}, but a limit must be greater than 0.")

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
class TestPlan:
    """Tests and the rules by which they are judged."""

    tests: Sequence[Test]
    limits: Limits
    comparison: Comparison
    stops_early: bool
    __test__ = False

    def is_over(self, results: Sequence[TestResult]) -> bool:
        """Whether no further test is run: all are, the first failure ends it, or it hangs."""
        if len(results) == len(self.tests):
            return True
        if self.stops_early:
            return any(result.reason != "AC" for result in results)
        return sum(result.reason == "TLE" for result in results) >= _MAX_TIMEOUTS


def run_tests(program: bytes, plan: TestPlan, mechanism: Mechanism) -> list[TestResult]:
    """One result for each test, in order, until the plan is over.

    Raises:
        BoxFailure: the machine or the sandbox failed three times.
        SandboxUnavailable: bubblewrap is missing.
    """
    setup = _setup(program)
    results: list[TestResult] = []
    num_failures = 0
    while not plan.is_over(results):
        try:
            with open_box(setup, mechanism, alone=num_failures > 0) as box:
                _run_some(box, plan, results)
        except BoxFailure:
            num_failures += 1
            if num_failures == NUM_TRIES:
                raise
    return results


def _run_some(box: Box, plan: TestPlan, results: list[TestResult]) -> None:
    """Append results until the plan is over, or the box has been used: a program that started
    processes could tell the next test by their numbers which test it is."""
    num_others = 0
    while not (plan.is_over(results) or num_others):
        test = plan.tests[len(results)]
        wanted = as_bytes(test.output)
        limits = plan.limits.of_run(wanted)
        report = box.run(as_bytes(test.input), limits)
        result = _result(report, wanted, limits, plan)
        trouble = "" if result.reason in ("AC", "TLE") else box.trouble()
        if trouble:
            raise BoxFailure(trouble)
        results.append(result)
        num_others = report.num_others


def _result(report: RunReport, wanted: bytes, limits: RunLimits, plan: TestPlan) -> TestResult:
    reason, message = _fault(report, limits, plan.limits.memory_mb << 20)
    if not reason:
        is_right = plan.comparison.is_same(report.output, wanted)
        reason = "AC" if is_right else "WA"
        message = "" if is_right or report.output.strip() else "no output"
    return TestResult(reason, message, report.cpu_s, report.resident_bytes / (1 << 20))


def _fault(report: RunReport, limits: RunLimits, memory_bytes: int) -> tuple[str, str]:
    """Why the output does not matter, or twice nothing."""
    if report.why == "wall":
        return "TLE", f"it waited: stopped after {report.wall_s:.1f} s of real time"
    if report.why == "cpu" or report.cpu_s > limits.cpu_s:
        return "TLE", f"{report.cpu_s:.2f} s of CPU time"
    if report.status == -signal.SIGXFSZ or len(report.output) >= limits.output_bytes:
        return "OLE", f"{len(report.output)} bytes of output"
    if report.why == "memory":
        return "MLE", "all processes together"
    share = report.resident_bytes / memory_bytes
    if share > 1 or (report.status != 0 and share > _NEARLY_ALL):
        return "MLE", f"{report.resident_bytes >> 20} MB"
    if report.status < 0:
        return "RE", f"killed by signal {-report.status} ({_name(-report.status)})"
    return ("RE", f"exit code {report.status}") if report.status else ("", "")


def _name(number: int) -> str:
    return signal.strsignal(number) or "unknown"


def _setup(program: bytes) -> BoxSetup:
    return BoxSetup(
        command=(f"{ROOT}/a.out",),
        files={"/a.out": program},
        binds={path: path for path in toolbox().libraries},
        devices=("null", "zero", "urandom", "random"),
    )


def as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
