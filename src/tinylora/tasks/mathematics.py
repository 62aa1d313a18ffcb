"""What the mathematical benchmarks share: rows to questions, questions to a graded task.

A row without a gold answer is left out, and so is a training problem whose statement is in the test
split; the task's notes say how many.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from tinylora.errors import RequestError
from tinylora.settings import TaskConfig
from tinylora.tasks.data import Placed, Row, Source, read_splits
from tinylora.tasks.grading import graders
from tinylora.tasks.prompts import TEMPLATES, Template
from tinylora.tasks.task import Problem, Task


@dataclass(frozen=True)
class Question:
    """What a row says: the question, its gold answer ("" where it has none), and what else."""

    text: str
    gold: str
    solution: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)


Read = Callable[[Row], Question]


@dataclass(frozen=True)
class Benchmark:
    """One data set of questions.

    Args:
        read: a row to its question; KeyError where a field is missing.
        test, train: where the rows are; a benchmark without `train` is for evaluation alone.
        template: how it is asked, unless the settings say otherwise.
        keep: which training questions stay; None: all.
    """

    name: str
    read: Read
    test: Source
    train: Source | None = None
    template: str = "boxed"
    max_new_tokens: int = 3072
    keep: Callable[[Question], bool] | None = None


def load(benchmark: Benchmark, settings: TaskConfig) -> Task:
    """The benchmark as a task.

    Raises:
        RequestError: its rows are not there, or are no rows of this benchmark.
    """
    template = TEMPLATES[settings.prompt_template or benchmark.template]
    train, test, notes = _splits(benchmark, settings)
    return Task(
        benchmark.name,
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


def text_field(row: Row, *names: str) -> str:
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
    benchmark: Benchmark, settings: TaskConfig
) -> tuple[list[Question], list[Question], tuple[str, ...]]:
    """Train and test questions, and what was left out."""
    notes: list[str] = []
    train, test, missing = read_splits(
        () if benchmark.train is None else (benchmark.train,),
        (benchmark.test,),
        settings.data,
        benchmark.name,
        lambda placed: _questions(benchmark, placed, notes),
        lambda question: question.text,
    )
    if benchmark.keep is not None:
        train = [question for question in train if benchmark.keep(question)]
    return _unseen(train, test, notes), test, (*notes, *missing)


def _questions(benchmark: Benchmark, placed: Iterable[Placed], notes: list[str]) -> list[Question]:
    found = [_read(benchmark, place, row) for place, row in placed]
    kept = [question for question in found if question.gold]
    if len(kept) < len(found):
        notes.append(
            f"{len(found) - len(kept)} of {len(found)} rows of {benchmark.name} have no gold "
            "answer and were left out."
        )
    return kept


def _read(benchmark: Benchmark, place: str, row: Row) -> Question:
    try:
        return benchmark.read(row)
    except (KeyError, TypeError) as error:
        raise RequestError(
            f"{place} is no row of task {benchmark.name}: {_missing(error)}; its fields are "
            f"{', '.join(row)}. Give the benchmark's own files, or rows of your own: "
            "--task FILE.jsonl, with prompt and answer."
        ) from None


def _missing(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no field {error.args[0]}"
    return f"a field is of another kind ({error})"


def _unseen(train: list[Question], test: list[Question], notes: list[str]) -> list[Question]:
    """The training questions that are not in the test split, spaces apart."""
    asked = {"".join(question.text.split()) for question in test}
    unseen = [question for question in train if "".join(question.text.split()) not in asked]
    if len(unseen) < len(train):
        notes.append(
            f"{len(train) - len(unseen)} training problems are in the test split and were left out."
        )
    return unseen
