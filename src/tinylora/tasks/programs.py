"""What the tasks of C++ competition problems share: tests, prompts, programs in answers, grading.

A problem is left out, and counted in the task's notes, where its tests cannot judge a program: its
statement accepts any of several answers (there are no checkers), it is interactive, it reads and
writes files, it wants a function in place of a program, or no test is within the caps.

Which tests stay: those of the statement first, then the others in the order of a hash of
`tests_seed`, the statement and the test, each kept while the caps on their number and bytes allow.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinylora.errors import RequestError
from tinylora.rewards.code.judging import Job, Limits, Test, judge_many, weighted
from tinylora.rewards.code.selftest import mechanism_for
from tinylora.rewards.verdict import Verdict
from tinylora.settings import TaskConfig
from tinylora.tasks.data import Placed, Row, Source, read_splits
from tinylora.tasks.task import Grade, Problem, Task

INSTRUCTION = (
    "Write a C++17 program that solves this problem. It reads from the standard input and writes "
    "to the standard output. Reason as you need, and give the whole program in one block at the "
    "end:\n```cpp\n// your program\n```"
)
SILENT = "int main() {}"  # right where nothing is to be printed
_ANY = re.compile(
    r"\b(?:print|output|find|report|display|construct) any\b(?! other)|\bpick any of them\b"
    r"|\b(?:print|output) (?:the |these |them|those )?[\w ]{0,30}in any order"
    r"|\bany (?:valid|correct|suitable|possible) (?:answer|solution|output)",
    re.IGNORECASE,
)
_INTERACTIVE = re.compile(r"\binteractive (?:problem|task)\b|\bflush\b|\bfflush\b", re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*```[ \t]*([^\s`]*)[^\n`]*$", re.MULTILINE)
_LANGUAGES = ("cpp", "c++", "cc", "cxx", "c++17", "cpp17")
_PROGRAM = re.compile(r"#\s*include\b|\bint\s+main\s*\(")


class LeftOut(Exception):
    """Why a row is no problem that can be judged; in the words of the notes."""


@dataclass(frozen=True)
class Statement:
    """What a row says.

    Args:
        tests: by their source: public (in the statement), private, generated.
        accepted, rejected: a C++ program that the original judge took, and one that it did not.
    """

    text: str
    tests: Mapping[str, Sequence[Test]]
    source: str = "UNKNOWN_SOURCE"
    difficulty: str = "UNKNOWN_DIFFICULTY"
    limits: Limits = field(default_factory=Limits)
    accepted: str | None = None
    rejected: str | None = None


Read = Callable[[Row], Statement]


def load(
    name: str, read: Read, train: Sequence[Source], test: Sequence[Source], settings: TaskConfig
) -> Task:
    """The task whose rows stand in these sources.

    Raises:
        RequestError: there are no rows of either split, or they are no rows of this task; or
            programs cannot be run here (SandboxUnavailable).
    """
    mechanism_for(settings.unsafe_no_sandbox)  # what would else fail at the first step
    notes: list[str] = []

    def problems(placed: Iterator[Placed]) -> list[Problem]:
        return _problems(name, read, placed, settings, notes)

    kept = read_splits(train, test, settings.data, name, problems, lambda problem: problem.prompt)
    return Task(
        name,
        kept[0],
        kept[1],
        None,
        1024,
        grade_many=grader(settings),
        right_answer=lambda problem: problem.solution,
        wrong_answer=lambda problem: problem.columns["rejected"] or fenced(SILENT),
        notes=(*notes, *kept[2]),
    )


def _problems(
    name: str, read: Read, placed: Iterator[Placed], settings: TaskConfig, notes: list[str]
) -> list[Problem]:
    """The problems that can be judged; the notes get what was left out, and why."""
    kept: list[Problem] = []
    left_out: Counter[str] = Counter()
    for place, row in placed:
        try:
            statement = read(row)
            _check_chosen(statement, settings)
            kept.append(problem_of(statement, settings))
        except LeftOut as reason:
            left_out[str(reason)] += 1
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise RequestError(
                f"{place} is no row of task {name} ({type(error).__name__}: {error}); its fields "
                f"are {', '.join(row)}. Give files in the format of the hub's data set."
            ) from None
    if left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
        total = len(kept) + left_out.total()
        notes.append(f"{left_out.total()} of {total} problems of {name} left out: {reasons}.")
    return kept


def _check_chosen(statement: Statement, settings: TaskConfig) -> None:
    wanted = {name.upper() for name in settings.difficulties}
    if wanted and statement.difficulty.upper() not in wanted:
        raise LeftOut("of another difficulty")


def problem_of(statement: Statement, settings: TaskConfig) -> Problem:
    """The problem that a model is asked, with the tests that judge it.

    Raises:
        LeftOut: its tests cannot judge a program.
    """
    if _INTERACTIVE.search(statement.text):
        raise LeftOut("interactive")
    if accepts_any(statement.text):
        raise LeftOut("with several right answers and no checker")
    tests = choose_tests(statement, settings)
    text = statement.text.strip()
    return Problem(
        f"{text}\n\n{INSTRUCTION}",
        f"passes {len(tests)} tests",
        None if statement.accepted is None else fenced(statement.accepted),
        {
            "tests": [[test.input, test.output] for test in tests],
            "cpu_s": statement.limits.cpu_s,
            "memory_mb": statement.limits.memory_mb,
            "source": statement.source,
            "difficulty": statement.difficulty,
            "rejected": None if statement.rejected is None else fenced(statement.rejected),
        },
        plain=f"Problem:\n{text}\n\nSolution in C++17:\n```cpp\n",
    )


def accepts_any(statement: str) -> bool:
    """Whether the statement takes any of several answers: then a comparison is no judge."""
    return bool(_ANY.search(" ".join(statement.split())))


def choose_tests(statement: Statement, settings: TaskConfig) -> tuple[Test, ...]:
    """The tests that stay under the caps; the module says which.

    Raises:
        LeftOut: none does.
    """
    chosen: dict[Test, None] = {}
    num_bytes = 0
    for test in _in_order(statement, settings):
        size = len(_bytes(test.input)) + len(_bytes(test.output))
        if test in chosen or num_bytes + size > settings.max_test_bytes:
            continue
        chosen[test] = None
        num_bytes += size
        if len(chosen) == settings.max_tests:
            break
    if not chosen:
        raise LeftOut("without a test within the caps")
    return tuple(chosen)


def _in_order(statement: Statement, settings: TaskConfig) -> Iterable[Test]:
    tests = {name: statement.tests.get(name, ()) for name in settings.test_sources}
    yield from tests.pop("public", ())
    text = f"{settings.tests_seed}\n{statement.text}".encode()
    others = [test for group in tests.values() for test in group]
    yield from sorted(others, key=lambda test: _hash(text, test))


def _hash(text: bytes, test: Test) -> bytes:
    return hashlib.sha256(b"\0".join((text, _bytes(test.input), _bytes(test.output)))).digest()


def _bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text


def fenced(source: str) -> str:
    """A program as an answer gives it."""
    return f"```cpp\n{source.strip()}\n```"


def program_in(answer: str) -> str | None:
    """The program that an answer gives: the last fenced block of C++ that is closed, one without a
    language if none names C++, or the block that the budget cut off.

    A base model goes on from an open fence: then the program is what stands before the next fence.
    An answer without any fence is a program if it reads like one.
    """
    answer = answer.rpartition("</think>")[2]
    fences = list(_FENCE.finditer(answer))
    before = answer[: fences[0].start()] if fences else answer
    if _PROGRAM.search(before) and not (fences and fences[0][1]):
        return before
    blocks = [
        (opening[1].lower(), answer[opening.end() : closing.start()])
        for opening, closing in zip(fences[::2], fences[1::2], strict=False)
    ]
    if len(fences) % 2:
        blocks.insert(0, (fences[-1][1].lower(), answer[fences[-1].end() :]))
    return next((text for name, text in reversed(blocks) if name in _LANGUAGES), None) or next(
        (text for name, text in reversed(blocks) if not name), None
    )


def grader(settings: TaskConfig) -> Grade:
    """All answers of a step at once: each program compiled once, judged on all cores."""
    factors = {name: float(value) for name, value in (f.split("=") for f in settings.factors)}

    def factor_of(problem: Problem) -> float:
        names = (problem.columns["source"], problem.columns["difficulty"])
        return math.prod(factors.get(name, 1.0) for name in names)

    def grade(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        programs = [program_in(text) for text in completions]
        jobs = [
            _job(problem, program, settings)
            for problem, program in zip(problems, programs, strict=True)
            if program is not None
        ]
        judged = iter(judge_many(jobs, unsafe_no_sandbox=settings.unsafe_no_sandbox))
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


def _job(problem: Problem, program: str, settings: TaskConfig) -> Job:
    held = problem.columns
    return Job(
        program,
        tuple(Test(*test) for test in held["tests"]),
        Limits(cpu_s=held["cpu_s"], memory_mb=held["memory_mb"]),
        settings.output_compare,
        scheme=settings.scheme,
    )


def parse_tests(value: Any) -> list[Test]:
    """Tests in any of the forms that the data sets have: a JSON text or its content, as a list of
    inputs with their outputs, or as two lists.

    Raises:
        LeftOut: they call a function, in place of running a program.
    """
    held = json.loads(value) if isinstance(value, str) else value
    if held is None:
        return []
    if isinstance(held, Mapping):
        if held.get("fn_name"):
            raise LeftOut("that want a function, not a program")
        inputs = held.get("inputs", held.get("input", []))
        outputs = held.get("outputs", held.get("output", []))
        return [Test(_text(i), _text(o)) for i, o in zip(inputs, outputs, strict=True)]
    return [_test(item) for item in held]


def _test(item: Mapping[str, Any]) -> Test:
    kind = item.get("type", item.get("testtype", "stdin"))
    if item.get("fn_name") or kind not in ("stdin", "stdin_stdout"):
        raise LeftOut("that want a function, not a program")
    return Test(_text(item["input"]), _text(item["output"]))


def _text(value: Any) -> str:
    """A text, lines of one, or a mapping that names the stream."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(_text(line) for line in value)
    if isinstance(value, Mapping):
        return _text(value.get("stdin", value.get("stdout")))
    raise TypeError(f"a test holds {value!r}, not a text")


_TIME = re.compile(
    r"^Time Limit: (?:\{'seconds': (\d+), 'nanos': (\d+)\}|(\d+) ms)\s*$", re.MULTILINE
)
_MEMORY = re.compile(r"^Memory Limit: (?:(\d+) Bytes|(\d+) MB)\s*$", re.MULTILINE)
DEFAULT = Limits()


def limits_in(statement: str) -> Limits:
    """The limits that a statement ends with; 2 s and 256 MB where it names none."""
    time, memory = _TIME.search(statement), _MEMORY.search(statement)
    seconds = megabytes = None
    if time:
        seconds = int(time[3]) / 1e3 if time[3] else int(time[1]) + int(time[2]) / 1e9
    if memory:
        megabytes = int(memory[2]) if memory[2] else int(memory[1]) // 1_000_000
    return limits(seconds, megabytes)


def limits(seconds: float | None, megabytes: int | None) -> Limits:
    """The problem's own, where it has some."""
    return Limits(cpu_s=seconds or DEFAULT.cpu_s, memory_mb=megabytes or DEFAULT.memory_mb)
