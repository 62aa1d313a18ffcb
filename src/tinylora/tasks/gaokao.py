"""Gaokao 2023 in English (MARIO-Math-Reasoning/Gaokao2023-Math-En), for evaluation."""

from tinylora.settings import TaskConfig
from tinylora.tasks.data import Row, Source
from tinylora.tasks.mathematics import Benchmark, Question, load, text_field
from tinylora.tasks.task import Task

SOURCE = Source(
    "MARIO-Math-Reasoning/Gaokao2023-Math-En",
    "train",
    ("gaokao2023*", "gaokao*", "Gaokao2023-Math-En/*", "/train*", "/data/train*"),
)


def read(row: Row) -> Question:
    """`question` and `answer`; two rows have no answer."""
    return Question(text_field(row, "question"), text_field(row, "answer"))


def make(settings: TaskConfig) -> Task:
    """The task, for evaluation."""
    return load(Benchmark("gaokao", read, SOURCE), settings)
