"""C++ programs as answers: compiled, run against tests, and judged.

`judge` gives the words of programming contests: AC, WA, TLE, MLE, RE, OLE, CE, and IE where the
machine or the judge failed (score None: it must not count as wrong). Programs run in the sandbox of
`sandbox.py`, whose docstring says what it covers and what not.

Not covered: problems with several right answers (there are no checkers), interaction, and the
difference between MLE and RE, which is a guess: a program that dies near its memory limit.

Source: the paper's code rewards: 0 does not compile, 0.5 compiles, 0.5 + 0.5 k/n with k of n tests
passed, 1 all. Departures: 1. programs are compiled once and not for each test; 2. the time limit
is CPU time, so that a busy machine does not change verdicts; 3. outputs are compared by tokens,
decimal numbers within a tolerance; 4. after two tests that time out the others count as failed.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

from tinylora.errors import RequestError
from tinylora.rewards.code import sandbox
from tinylora.rewards.code.compile import Compiled, compile_source
from tinylora.rewards.code.outputs import Compare, Comparison
from tinylora.rewards.code.runs import Limits, Test, TestPlan, TestResult, as_bytes, run_tests
from tinylora.rewards.code.sandbox import BoxFailure, Mechanism, SandboxUnavailable
from tinylora.rewards.code.selftest import mechanism_for
from tinylora.rewards.code.slots import NUM_CORES
from tinylora.rewards.code.toolbox import STANDARDS
from tinylora.rewards.verdict import Verdict

__all__ = [
    "Comparison", "Limits", "SandboxUnavailable", "Scheme", "Submission", "Test", "judge",
    "judge_many", "weighted",
]  # fmt: skip

Scheme = Literal["binary", "graded"]
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "comparison": ("auto", "tokens", "exact", "float"),
    "scheme": ("binary", "graded"),
    "standard": STANDARDS,
}


@dataclass(frozen=True)
class Submission:
    """One program to judge; the fields are the arguments of `judge`.

    Raises:
        RequestError: an unknown comparison, scheme or standard.
    """

    source: str | bytes
    tests: tuple[Test, ...]
    limits: Limits = field(default_factory=Limits)
    comparison: Comparison = field(default_factory=Comparison)
    scheme: Scheme = "binary"
    standard: str = "gnu++17"

    def __post_init__(self) -> None:
        given = {**vars(self), "comparison": self.comparison.kind}
        for name, known in _CHOICES.items():
            if given[name] not in known:
                raise RequestError(
                    f'{name} = "{given[name]}", but the judge knows {", ".join(known)}. '
                    "Use one of them."
                )


def judge(
    source: str | bytes,
    tests: Sequence[Test],
    limits: Limits | None = None,
    compare: Compare = "auto",
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
        compare: how outputs are compared (`outputs.py`): auto, tokens, exact or float.
        tolerance: by which decimal numbers may differ, under auto and float.
        scheme: "binary": 1 if all tests pass, else 0, and the first failure ends it. "graded": 0
            does not compile, 0.5 compiles, 0.5 + 0.5 k/n with k of n tests passed; all tests run,
            but for those after the second time-out.
        standard: g++'s `-std`.
        unsafe_no_sandbox: run without the sandbox; warns, and the verdict says so.

    Returns:
        Verdict with the reason of the first failing test, and in `details`: compiled, num_passed,
        num_tests, failed_test (index or None), message, cpu_s and memory_mb (largest of the
        tests), run_cpu_s (all tests together), compile_cpu_s, and sandbox ("bwrap" or "none").

    Raises:
        SandboxUnavailable: g++ or bubblewrap is missing, or the sandbox does not hold here.
        RequestError: an unknown comparison, scheme or standard.
    """
    given = Limits() if limits is None else limits
    comparison = Comparison(compare, tolerance)
    submission = Submission(source, tuple(tests), given, comparison, scheme, standard)
    return _judge(submission, mechanism_for(unsafe_no_sandbox))


def judge_many(
    submissions: Sequence[Submission], *, unsafe_no_sandbox: bool = False
) -> list[Verdict]:
    """`judge` for each, on all cores; equal ones are judged once.

    Args:
        submissions: programs, each with its tests and limits.
        unsafe_no_sandbox: run without the sandbox; warns, and the verdicts say so.

    Raises:
        SandboxUnavailable: programs cannot be run here; the message says what to do.
    """
    mechanism = mechanism_for(unsafe_no_sandbox)
    distinct = list(dict.fromkeys(submissions))
    pool = ThreadPoolExecutor(max_workers=NUM_CORES, thread_name_prefix="judge")
    try:
        promises = [pool.submit(_judge, one, mechanism) for one in distinct]
        verdicts = [promise.result() for promise in promises]
    except RuntimeError:  # this process may start no further thread
        verdicts = [_judge(one, mechanism) for one in distinct]
    except BaseException:  # Ctrl-C: nobody wants to wait for programs that never end
        sandbox.stop_all()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        sandbox.go_on()
    found = dict(zip(distinct, verdicts, strict=True))
    return [found[one] for one in submissions]


def weighted(verdict: Verdict, factor: float) -> Verdict:
    """The same verdict with its score times a factor, such as one for a source or a difficulty.

    Raises:
        RequestError: the factor is not above 0, or not finite.
    """
    if not 0 < factor < math.inf:
        raise RequestError(
            f"factor = {factor}, but it must be greater than 0 (otherwise right and wrong answers "
            "score the same), and finite."
        )
    score = None if verdict.score is None else verdict.score * factor
    return replace(verdict, score=score, details={**verdict.details, "factor": factor})


def _judge(submission: Submission, mechanism: Mechanism) -> Verdict:
    """The verdict; whatever goes wrong in the judge or the machine is one, too (IE)."""
    if not submission.tests:
        return _could_not("the problem has no tests", mechanism)
    try:
        return _judged(submission, mechanism)
    except (RequestError, sandbox.JudgingStopped):
        raise
    except BoxFailure as failure:
        return _could_not(str(failure), mechanism)
    except Exception as error:
        return _could_not(f"the judge failed with {type(error).__name__}: {error}", mechanism)


def _judged(submission: Submission, mechanism: Mechanism) -> Verdict:
    limits = submission.limits
    source = as_bytes(submission.source)
    compiled = compile_source(source, submission.standard, limits.compile_cpu_s, mechanism)
    results: list[TestResult] = []
    if compiled.program:
        stops_early = submission.scheme == "binary"
        plan = TestPlan(submission.tests, limits, submission.comparison, stops_early)
        results = run_tests(compiled.program, plan, mechanism)
    return _verdict(submission, compiled, results, mechanism)


def _could_not(message: str, mechanism: Mechanism) -> Verdict:
    return Verdict(None, "IE", {"message": message, "sandbox": mechanism})


def _verdict(
    submission: Submission,
    compiled: Compiled,
    results: Sequence[TestResult],
    mechanism: Mechanism,
) -> Verdict:
    is_compiled = bool(compiled.program)
    failed = next((i for i, result in enumerate(results) if result.reason != "AC"), None)
    num_passed = sum(result.reason == "AC" for result in results)
    worst = None if failed is None else results[failed]
    details: Mapping[str, object] = {
        "compiled": is_compiled,
        "num_passed": num_passed,
        "num_tests": len(submission.tests),
        "failed_test": failed,
        "message": worst.message if worst else compiled.message,
        "cpu_s": max((result.cpu_s for result in results), default=0.0),
        "memory_mb": max((result.memory_mb for result in results), default=0.0),
        "run_cpu_s": sum(result.cpu_s for result in results),
        "compile_cpu_s": compiled.cpu_s,
        "sandbox": mechanism,
    }
    reason = "CE" if not is_compiled else worst.reason if worst else "AC"
    return Verdict(
        _score(submission.scheme, is_compiled, num_passed, len(submission.tests)), reason, details
    )


def _score(scheme: Scheme, is_compiled: bool, num_passed: int, num_tests: int) -> float:
    if not is_compiled:
        return 0.0
    if scheme == "graded":
        return 0.5 + 0.5 * num_passed / num_tests
    return float(num_passed == num_tests)
