"""What mathematical tasks share: rows to questions, questions to a graded task.

A row without a gold answer is left out, and so is a training problem whose statement is in the test
split; the task's notes say how many.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypedDict

from tinylora.errors import RequestError
from tinylora.rewards import math
from tinylora.rewards.math import extract
from tinylora.rewards.math.extract import AnswerFormat
from tinylora.rewards.verdict import Verdict
from tinylora.settings.tasks import QuestionSettings, RewardSettings
from tinylora.tasks.data import DataRow, Placed, Source, read_splits
from tinylora.tasks.task import Grade, Problem, Task
from tinylora.tasks.templates import TEMPLATES, Template, written

WRONG = "-987654321.5"  # an answer that no problem has


@dataclass(frozen=True)
class Question:
    """What a row says: the question, its gold answer ("" where it has none), and what else."""

    text: str
    gold: str
    solution: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)


Read = Callable[[DataRow], Question]


@dataclass(frozen=True)
class Benchmark:
    """One data set of questions.

    Args:
        read: a row to its question; KeyError where a field is missing.
        sample: a row as the data set has them, shown where other rows are refused.
        test, train: where the rows are; a benchmark without `train` is for evaluation alone.
        template: how it is asked, unless the settings say otherwise.
        keep: which training questions stay; None: all.
    """

    read: Read
    sample: DataRow
    test: Source
    train: Source | None = None
    template: str = "boxed"
    max_new_tokens: int = 3072
    keep: Callable[[Question], bool] | None = None


def load(name: str, benchmark: Benchmark, settings: QuestionSettings) -> Task:
    """The benchmark as a task.

    Raises:
        RequestError: its rows are not there, or are not rows of this benchmark.
    """
    template = TEMPLATES[settings.prompt_template or benchmark.template]
    train, test, notes = _splits(name, benchmark, settings.data)
    return Task(
        name,
        [ask(template, question) for question in train],
        [ask(template, question) for question in test],
        max_new_tokens=benchmark.max_new_tokens,
        notes=notes,
        **graders(template.answer_format, settings),
    )


def ask(template: Template, question: Question) -> Problem:
    """The question in the template's words, with all that its row says."""
    asked = template.ask(question.text)
    return replace(asked, gold=question.gold, solution=question.solution, columns=question.columns)


def text_field(row: DataRow, *names: str) -> str:
    """The first of these fields that the row has, as text.

    Raises:
        KeyError: it has none of them.
    """
    for name in names:
        if name in row:
            value = row[name]
            return "" if value is None else str(value).strip()
    raise KeyError(" or ".join(names))


def whole_number(gold: str) -> str:
    """`27.0` as `27`: some files hold numbers where the answer is a whole one."""
    return re.sub(r"^(-?\d+)\.0$", r"\1", gold)


def _splits(
    name: str, benchmark: Benchmark, data: str | None
) -> tuple[list[Question], list[Question], tuple[str, ...]]:
    """Train and test questions, and what was left out."""
    notes: list[str] = []
    train, test, missing = read_splits(
        () if benchmark.train is None else (benchmark.train,),
        (benchmark.test,),
        data,
        name,
        lambda placed: _questions(name, benchmark, placed, notes),
        lambda question: question.text,
    )
    if benchmark.keep is not None:
        train = [question for question in train if benchmark.keep(question)]
    return _unseen(train, test, notes), test, (*notes, *missing)


def _questions(
    name: str, benchmark: Benchmark, placed: Iterable[Placed], notes: list[str]
) -> list[Question]:
    found = [_read(name, benchmark, place, row) for place, row in placed]
    kept = [question for question in found if question.gold]
    if len(kept) < len(found):
        notes.append(
            f"{len(found) - len(kept)} of {len(found)} rows of {name} have no gold answer and were "
            "left out."
        )
    return kept


def _read(name: str, benchmark: Benchmark, place: str, row: DataRow) -> Question:
    try:
        return benchmark.read(row)
    except (KeyError, TypeError) as error:
        raise RequestError(
            f"{place} is not a row of task {name}: {_missing(error)}; its fields are "
            f"{', '.join(row)}. Use the benchmark's own files, whose rows have "
            f"{', '.join(benchmark.sample)}, or rows of your own: --task FILE.jsonl, with prompt "
            "and answer."
        ) from None


def _missing(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks the field {error.args[0]}"
    return f"a field has the wrong type ({error})"


def _unseen(train: list[Question], test: list[Question], notes: list[str]) -> list[Question]:
    """The training questions that are not in the test split, spaces apart."""
    asked = {"".join(question.text.split()) for question in test}
    unseen = [question for question in train if "".join(question.text.split()) not in asked]
    if len(unseen) < len(train):
        notes.append(
            f"{len(train) - len(unseen)} training problems are in the test split and were left out."
        )
    return unseen


class Graders(TypedDict):
    """What a mathematical task is graded by, as `Task` takes it."""

    grade: Callable[[str, str], Verdict]
    grade_many: Grade
    right_answer: Callable[[Problem], str | None]
    wrong_answer: Callable[[Problem], str | None]
    spellings: Callable[[Problem], Sequence[str]]
    answer_of: Callable[[str], str | None]


def graders(asked: AnswerFormat, settings: RewardSettings) -> Graders:
    """For answers in the format that the prompt asked for, or (`lenient`) in any."""
    answer_format = asked if settings.reward_format == "strict" else "any"
    written_as = "hash" if asked == "hash" else "boxed"

    def grade_many(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        golds = [problem.gold for problem in problems]
        return math.grade_many(list(zip(golds, completions, strict=True)), answer_format)

    def answer_of(completion: str) -> str | None:
        is_any = answer_format == "any"
        return extract.lenient(completion) if is_any else extract.strict(completion, answer_format)

    return {
        "grade": partial(math.grade, answer_format=answer_format),
        "grade_many": grade_many,
        "right_answer": lambda problem: written(problem.gold, written_as),
        "wrong_answer": lambda problem: written(WRONG, written_as),
        "spellings": lambda problem: [
            f"{_REASONING}{written(spelling, written_as)}" for spelling in spellings(problem.gold)
        ],
        "answer_of": answer_of,
    }


_REASONING = "We try 12345 first, and then correct it.\n"
_WHOLE, _DECIMAL = re.compile(r"-?\d+"), re.compile(r"-?\d+\.\d+")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\{(\d+)\}\{(\d+)\}")


def spellings(gold: str) -> list[str]:
    r"""Other ways to write the gold answer: `1,234` and `1234.0`, `\dfrac{1}{2}` and `1/2`."""
    if _WHOLE.fullmatch(gold):
        with_commas = [f"{int(gold):,}"] if len(gold.lstrip("-0")) > 3 else []
        return [*with_commas, f"{gold}.0"]
    if _DECIMAL.fullmatch(gold):
        return [f"{gold}0"]
    fraction = _FRACTION.fullmatch(gold)
    if fraction:
        sign, above, below = fraction.groups()
        return [rf"{sign}\dfrac{{{above}}}{{{below}}}", f"{sign}{above}/{below}"]
    return [gold]
