"""Minerva's undergraduate science questions (math-ai/minervamath), for evaluation."""

from tinylora.rewards.math.extract import strict
from tinylora.settings import TaskConfig
from tinylora.tasks.data import Row, Source
from tinylora.tasks.mathematics import Benchmark, Question, load, text_field
from tinylora.tasks.task import Task

SOURCE = Source("math-ai/minervamath", "test", ("minerva*", "minervamath/test*", "/test*"))


def read(row: Row) -> Question:
    """The gold answer is named, or stands in the solution's last box."""
    question = text_field(row, "problem", "question")
    if "answer" in row:
        return Question(question, text_field(row, "answer"))
    solution = text_field(row, "solution")
    return Question(question, strict(solution, "boxed") or "", solution)


def make(settings: TaskConfig) -> Task:
    """The task, for evaluation."""
    return load(Benchmark("minerva", read, SOURCE), settings)
