"""What the tasks of C++ competition problems share: prompts, the choice of tests, grading.

A problem is left out, and counted in the task's notes, where its tests cannot judge a program: its
statement accepts any of several answers (there are no checkers), it is interactive, it reads and
writes files, it wants a function instead of a program, its tests want no output, fewer than
`min_tests` are within the caps, or its row cannot be read.

Which tests stay: those of the statement first, then the others in the order of a hash of
`tests_seed`, the statement and the test, each kept while the caps on their number and bytes allow.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import replace

from tinylora.errors import RequestError
from tinylora.rewards.code.judging import (
    Comparison,
    Limits,
    Submission,
    Test,
    judge_many,
    weighted,
)
from tinylora.rewards.code.selftest import mechanism_for
from tinylora.rewards.verdict import Verdict
from tinylora.settings import TaskConfig
from tinylora.tasks.data import DataRow, Placed, Source, read_splits
from tinylora.tasks.program_answers import program_in
from tinylora.tasks.program_rows import LeftOut, Statement
from tinylora.tasks.statements import accepts_any, how_judged, is_interactive, names_files
from tinylora.tasks.task import Grade, Problem, Task

INSTRUCTION = (
    "Write a C++17 program that solves this problem. It reads from the standard input and writes "
    "to the standard output. Reason as you need, and give the whole program in one block at the "
    "end:\n```cpp\n// your program\n```"
)
SILENT = "int main() {}"  # right where nothing is to be printed
FEW_TESTS = 2  # examples that a program can hold in itself
ReadRow = Callable[[DataRow], Statement]


def load(
    name: str, read: ReadRow, train: Sequence[Source], test: Sequence[Source], settings: TaskConfig
) -> Task:
    """The task whose rows are in these sources.

    Raises:
        RequestError: there are no rows of either split, or none can be read; or programs cannot be
            run here (SandboxUnavailable).
    """
    mechanism_for(settings.unsafe_no_sandbox)  # what would else fail at the first step
    notes: list[str] = []

    def problems(placed: Iterator[Placed]) -> list[Problem]:
        return _problems(name, read, placed, settings, notes)

    kept = read_splits(train, test, settings.data, name, problems, lambda problem: problem.prompt)
    return Task(
        name,
        [with_tests(problem, settings.max_tests) for problem in kept[0]],
        [with_tests(problem, settings.max_eval_tests or settings.max_tests) for problem in kept[1]],
        None,
        1024,
        grade_many=grader(settings),
        right_answer=lambda problem: problem.solution,
        wrong_answer=lambda problem: problem.columns["rejected"] or fenced(SILENT),
        notes=(*notes, *kept[2]),
    )


def _problems(
    name: str, read: ReadRow, placed: Iterator[Placed], settings: TaskConfig, notes: list[str]
) -> list[Problem]:
    """The problems that can be judged; the notes get what was left out, and why."""
    kept: list[Problem] = []
    left_out: Counter[str] = Counter()
    odd: list[str] = []
    for place, row in placed:
        try:
            statement = read(row)
            _check_chosen(statement, settings)
            kept.append(problem_of(statement, settings))
        except LeftOut as reason:
            left_out[str(reason)] += 1
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            fields = ", ".join(row)
            odd.append(
                f"{place} is not a row of task {name} ({type(error).__name__}: {error}); its "
                f"fields are {fields}."
            )
    if odd and not (kept or left_out):
        raise RequestError(f"{odd[0]} Use files in the format of the hub's data set.")
    if odd:
        left_out[f"whose rows cannot be read (the first: {odd[0].rstrip('.')})"] = len(odd)
    notes.extend(_notes(name, kept, left_out))
    return kept


def _notes(name: str, kept: Sequence[Problem], left_out: Counter[str]) -> Iterator[str]:
    if left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
        total = len(kept) + left_out.total()
        yield f"{left_out.total()} of {total} problems of {name} left out: {reasons}."
    num_weak = sum(len(problem.columns["tests"]) <= FEW_TESTS for problem in kept)
    if num_weak:
        yield (
            f"{num_weak} of the {len(kept)} problems of {name} that remain have at most "
            f"{FEW_TESTS} tests, which a program with hard-coded outputs can pass. Leave them out "
            f"with --min-tests {FEW_TESTS + 1}."
        )


def _check_chosen(statement: Statement, settings: TaskConfig) -> None:
    wanted = {name.upper() for name in settings.difficulties}
    if wanted and statement.difficulty.upper() not in wanted:
        raise LeftOut("of another difficulty")


def problem_of(statement: Statement, settings: TaskConfig) -> Problem:
    """The problem that a model is asked, with the tests that judge it.

    Raises:
        LeftOut: its tests cannot judge a program.
    """
    text = statement.text.strip()
    if not text:
        raise LeftOut("without a statement")
    if is_interactive(text):
        raise LeftOut("interactive")
    if accepts_any(text):
        raise LeftOut("with several right answers and no checker")
    if names_files(text):
        raise LeftOut("that read or write files")
    tests = choose_tests(statement, settings)
    judged = how_judged(text)
    return Problem(
        f"{text}\n\n{INSTRUCTION}",
        _gold(tests),
        None if statement.accepted is None else fenced(statement.accepted),
        {
            "tests": [[test.input, test.output] for test in tests],
            "cpu_s": statement.limits.cpu_s,
            "memory_mb": statement.limits.memory_mb,
            "tolerance": judged.tolerance,
            "any_case": judged.any_case,
            "source": statement.source,
            "difficulty": statement.difficulty,
            "rejected": None if statement.rejected is None else fenced(statement.rejected),
        },
        plain=f"Problem:\n{text}\n\nSolution in C++17:\n```cpp\n",
    )


def with_tests(problem: Problem, most: int) -> Problem:
    """The problem with at most so many of its tests."""
    tests = problem.columns["tests"][:most]
    if len(tests) == len(problem.columns["tests"]):
        return problem
    return replace(problem, gold=_gold(tests), columns={**problem.columns, "tests": tests})


def _gold(tests: Sized) -> str:
    return f"passes {len(tests)} tests"


def choose_tests(statement: Statement, settings: TaskConfig) -> tuple[Test, ...]:
    """The tests that stay under the larger cap of training and evaluation; the module says which.

    Raises:
        LeftOut: too few do, or those that do want nothing to be printed.
    """
    most = max(settings.max_tests, settings.max_eval_tests or 0)
    chosen: dict[Test, None] = {}
    num_bytes = 0
    for test in _in_order(statement, settings):
        size = len(_bytes(test.input)) + len(_bytes(test.output))
        if test in chosen or num_bytes + size > settings.max_test_bytes:
            continue
        chosen[test] = None
        num_bytes += size
        if len(chosen) == most:
            break
    if not chosen:
        raise LeftOut("without a test within the caps")
    if not any(test.output.strip() for test in chosen):
        raise LeftOut("whose tests want no output")
    if len(chosen) < settings.min_tests:
        raise LeftOut(f"with fewer than {settings.min_tests} tests within the caps")
    return tuple(chosen)


def _in_order(statement: Statement, settings: TaskConfig) -> Iterable[Test]:
    tests = {name: statement.tests.get(name, ()) for name in settings.test_sources}
    yield from tests.pop("public", ())
    text = _bytes(f"{settings.tests_seed}\n{statement.text}")
    others = [test for group in tests.values() for test in group]
    yield from sorted(others, key=lambda test: _hash(text, test))


def _hash(text: bytes, test: Test) -> bytes:
    return hashlib.sha256(b"\0".join((text, _bytes(test.input), _bytes(test.output)))).digest()


def _bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text


def fenced(source: str) -> str:
    """A program as an answer gives it."""
    return f"```cpp\n{source.strip()}\n```"


def grader(settings: TaskConfig) -> Grade:
    """All answers of a step at once: each program compiled once, judged on all cores."""
    factors = {name: float(value) for name, value in (f.split("=") for f in settings.factors)}

    def factor_of(problem: Problem) -> float:
        source, difficulty = problem.columns["source"], problem.columns["difficulty"]
        names = (source, difficulty, f"{source}:{difficulty}")
        return math.prod(factors.get(name, 1.0) for name in names)

    def grade(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        programs = [program_in(text) for text in completions]
        submissions = [
            _submission(problem, program, settings)
            for problem, program in zip(problems, programs, strict=True)
            if program is not None
        ]
        judged = iter(judge_many(submissions, unsafe_no_sandbox=settings.unsafe_no_sandbox))
        verdicts = [
            no_program(problem, settings) if program is None else next(judged)
            for problem, program in zip(problems, programs, strict=True)
        ]
        return [
            verdict if factor == 1 else weighted(verdict, factor)
            for verdict, factor in zip(verdicts, map(factor_of, problems), strict=True)
        ]

    return grade


def no_program(problem: Problem, settings: TaskConfig) -> Verdict:
    """Of an answer without a program, with the details that one with a program has."""
    details = {
        "compiled": False,
        "num_passed": 0,
        "num_tests": len(problem.columns["tests"]),
        "message": "no block of C++",
        "sandbox": mechanism_for(settings.unsafe_no_sandbox),
    }
    return Verdict(0.0, "no program", details)


def _submission(problem: Problem, program: str, settings: TaskConfig) -> Submission:
    held = problem.columns
    return Submission(
        program,
        tuple(Test(*test) for test in held["tests"]),
        Limits(cpu_s=held["cpu_s"], memory_mb=held["memory_mb"]),
        _comparison(problem, settings),
        scheme=settings.scheme,
    )


def _comparison(problem: Problem, settings: TaskConfig) -> Comparison:
    """The setting's; `auto` takes the tolerance and the case from the statement."""
    tolerance, any_case = problem.columns["tolerance"], problem.columns["any_case"]
    usual = Comparison().tolerance
    kind = settings.output_compare
    if kind == "auto":
        return Comparison("float" if tolerance else "auto", tolerance or usual, any_case)
    return Comparison(kind, (tolerance or usual) if kind == "float" else usual)
