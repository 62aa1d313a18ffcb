"""AIME 2024 (HuggingFaceH4/aime_2024): 30 problems whose answers are whole numbers below 1000."""

from tinylora.settings import TaskConfig
from tinylora.tasks.data import Row, Source
from tinylora.tasks.mathematics import Benchmark, Question, load, text_field
from tinylora.tasks.task import Task

SOURCE = Source("HuggingFaceH4/aime_2024", "train", ("aime24*", "aime_2024/*", "/data/train*"))


def read(row: Row) -> Question:
    """`problem` and `answer`, without leading zeros."""
    gold = text_field(row, "answer").lstrip("0") or "0"
    return Question(text_field(row, "problem", "question"), gold, row.get("solution"))


def make(settings: TaskConfig) -> Task:
    """The task, for evaluation."""
    return load(Benchmark("aime24", read, SOURCE), settings)
