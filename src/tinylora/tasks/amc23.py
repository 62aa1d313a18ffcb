"""AMC 12 of 2023 (math-ai/amc23): 40 problems; the files hold whole numbers as `27.0`."""

from tinylora.settings import TaskConfig
from tinylora.tasks.data import Row, Source
from tinylora.tasks.mathematics import Benchmark, Question, load, text_field, whole_number
from tinylora.tasks.task import Task

SOURCE = Source("math-ai/amc23", "test", ("amc23*", "amc23/test*", "/test*", "/data/test*"))


def read(row: Row) -> Question:
    """`question` and `answer`."""
    return Question(text_field(row, "question", "problem"), whole_number(text_field(row, "answer")))


def make(settings: TaskConfig) -> Task:
    """The task, for evaluation."""
    return load(Benchmark("amc23", read, SOURCE), settings)
