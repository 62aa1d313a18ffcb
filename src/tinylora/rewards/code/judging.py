"""C++ programs as answers: compiled, run against tests, and judged.

`judge` gives the words of programming contests: AC, WA, TLE, MLE, RE, OLE, CE, and IE where the
judge itself failed (score None: it must not count as wrong). Programs run behind the wall of
`sandbox.py`, whose docstring says what it covers and what not.

Not covered: problems with several right answers (there are no checkers), interaction, and the
difference between MLE and RE, which is a guess: a program that dies near its memory limit.

Source: the paper's code rewards: 0 does not compile, 0.5 compiles, 0.5 + 0.5 k/n with k of n tests
passed, 1 all. Departures: 1. programs are compiled once and not for each test; 2. the time limit
is CPU time, so that a busy machine does not change verdicts; 3. outputs are compared by tokens.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

from tinylora.errors import RequestError
from tinylora.rewards.code.compile import Compiled, compile_source
from tinylora.rewards.code.outputs import Compare
from tinylora.rewards.code.runs import Limits, Test, TestResult, Trial, as_bytes, run_tests
from tinylora.rewards.code.sandbox import NUM_CORES, BoxFailure, Mechanism, SandboxUnavailable
from tinylora.rewards.code.selftest import mechanism_for
from tinylora.rewards.verdict import Verdict

__all__ = [
    "Job", "Limits", "SandboxUnavailable", "Scheme", "Test", "judge", "judge_many", "weighted",
]  # fmt: skip

Scheme = Literal["binary", "graded"]
_CHOICES = {"compare": ("tokens", "exact", "float"), "scheme": ("binary", "graded")}


@dataclass(frozen=True)
class Job:
    """One program to judge; the arguments are those of `judge`."""

    source: str | bytes
    tests: tuple[Test, ...]
    limits: Limits = field(default_factory=Limits)
    compare: Compare = "tokens"
    tolerance: float = 1e-6
    scheme: Scheme = "binary"
    standard: str = "gnu++17"

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise RequestError(
                    f'{name} = "{getattr(self, name)}", but it is one of {", ".join(known)}.'
                )


def judge(
    source: str | bytes,
    tests: Sequence[Test],
    limits: Limits | None = None,
    compare: Compare = "tokens",
    *,
    tolerance: float = 1e-6,
    scheme: Scheme = "binary",
    standard: str = "gnu++17",
    unsafe_no_sandbox: bool = False,
) -> Verdict:
    """Compile a C++ program and run it on every test; safe to call from threads.

    Args:
        source: one whole C++ file.
        tests: inputs and wanted outputs.
        limits: for each test; None: 2 s of CPU time, 256 MB.
        compare: how outputs are compared (`outputs.py`); `tolerance` belongs to "float".
        scheme: "binary": 1 if all tests pass, else 0, and the first failure ends it. "graded": 0
            does not compile, 0.5 compiles, 0.5 + 0.5 k/n with k of n tests passed; all tests run.
        standard: g++'s `-std`.
        unsafe_no_sandbox: run without a wall; warns, and the verdict says so.

    Returns:
        Verdict with the reason of the first failing test, and in `details`: compiled, num_passed,
        num_tests, failed_test (index or None), message, cpu_s and memory_mb (largest of the
        tests), run_cpu_s (all tests together), compile_cpu_s, and sandbox ("bwrap" or "none").

    Raises:
        SandboxUnavailable: g++ or bubblewrap is missing, or the wall does not hold here.
        RequestError: an unknown comparison, scheme or standard.
    """
    given = Limits() if limits is None else limits
    job = Job(source, tuple(tests), given, compare, tolerance, scheme, standard)
    return _judge(job, mechanism_for(unsafe_no_sandbox))


def judge_many(jobs: Sequence[Job], *, unsafe_no_sandbox: bool = False) -> list[Verdict]:
    """`judge` for each job, on all cores; equal jobs are judged once.

    Raises:
        as `judge`.
    """
    mechanism = mechanism_for(unsafe_no_sandbox)
    distinct = list(dict.fromkeys(jobs))
    pool = ThreadPoolExecutor(max_workers=NUM_CORES, thread_name_prefix="judge")
    try:
        verdicts = dict(
            zip(distinct, pool.map(lambda job: _judge(job, mechanism), distinct), strict=True)
        )
    finally:
        pool.shutdown(cancel_futures=True)
    return [verdicts[job] for job in jobs]


def weighted(verdict: Verdict, factor: float) -> Verdict:
    """The same verdict with its score times a factor, such as one for a source or a difficulty.

    Raises:
        RequestError: the factor is not above 0 or above 1.
    """
    if not 0 < factor <= 1:
        raise RequestError(
            f"factor = {factor}, but it must be above 0, or right and wrong were one, and at most "
            "1: a score lies between 0 and 1."
        )
    score = None if verdict.score is None else verdict.score * factor
    return replace(verdict, score=score, details={**verdict.details, "factor": factor})


def _judge(job: Job, mechanism: Mechanism) -> Verdict:
    if not job.tests:
        return _could_not("the problem has no tests", mechanism)
    try:
        compiled = compile_source(
            as_bytes(job.source), job.standard, job.limits.compile_cpu_s, mechanism
        )
        if not compiled.program:
            return _verdict(job, compiled, [], mechanism)
        stops_early = job.scheme == "binary"
        trial = Trial(job.tests, job.limits, job.compare, job.tolerance, stops_early)
        return _verdict(job, compiled, run_tests(compiled.program, trial, mechanism), mechanism)
    except BoxFailure as failure:
        return _could_not(str(failure), mechanism)


def _could_not(message: str, mechanism: Mechanism) -> Verdict:
    return Verdict(None, "IE", {"message": message, "sandbox": mechanism})


def _verdict(
    job: Job, compiled: Compiled, results: Sequence[TestResult], mechanism: Mechanism
) -> Verdict:
    is_compiled = bool(compiled.program)
    failed = next((i for i, result in enumerate(results) if result.reason != "AC"), None)
    num_passed = sum(result.reason == "AC" for result in results)
    worst = None if failed is None else results[failed]
    details: Mapping[str, object] = {
        "compiled": is_compiled,
        "num_passed": num_passed,
        "num_tests": len(job.tests),
        "failed_test": failed,
        "message": worst.message if worst else compiled.message,
        "cpu_s": max((result.cpu_s for result in results), default=0.0),
        "memory_mb": max((result.memory_mb for result in results), default=0.0),
        "run_cpu_s": sum(result.cpu_s for result in results),
        "compile_cpu_s": compiled.cpu_s,
        "sandbox": mechanism,
    }
    reason = "CE" if not is_compiled else worst.reason if worst else "AC"
    return Verdict(_score(job.scheme, is_compiled, num_passed, len(job.tests)), reason, details)


def _score(scheme: Scheme, is_compiled: bool, num_passed: int, num_tests: int) -> float:
    if not is_compiled:
        return 0.0
    if scheme == "graded":
        return 0.5 + 0.5 * num_passed / num_tests
    return float(num_passed == num_tests)
