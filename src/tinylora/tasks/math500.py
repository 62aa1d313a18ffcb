"""MATH-500 (HuggingFaceH4/MATH-500): the 500 problems of MATH that PRM800K holds out."""

from typing import Any

from tinylora.settings import TaskConfig
from tinylora.tasks.data import Row, Source
from tinylora.tasks.mathematics import Benchmark, Question, load, text_field
from tinylora.tasks.task import Task

SOURCE = Source(
    "HuggingFaceH4/MATH-500", "test", ("math500*", "MATH-500/test*", "MATH-500*", "/test*")
)


def read(row: Row) -> Question:
    """`problem` and `answer`, with subject and level."""
    columns: dict[str, Any] = {name: row[name] for name in ("subject", "level") if name in row}
    solution = text_field(row, "solution") if "solution" in row else None
    return Question(text_field(row, "problem"), text_field(row, "answer"), solution, columns)


def make(settings: TaskConfig) -> Task:
    """The task, for evaluation."""
    return load(Benchmark("math500", read, SOURCE), settings)
