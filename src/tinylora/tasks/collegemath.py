"""CollegeMath (di-zhang-fdu/College_Math_Test): exercises of textbooks, for evaluation."""

from tinylora.settings import TaskConfig
from tinylora.tasks.data import Row, Source
from tinylora.tasks.mathematics import Benchmark, Question, load, text_field
from tinylora.tasks.task import Task

SOURCE = Source(
    "di-zhang-fdu/College_Math_Test",
    "test",
    ("college_math*", "collegemath*", "College_Math_Test/*", "/test*", "/data/test*"),
)


def read(row: Row) -> Question:
    """`question` and `answer`, which is prose in about one row of twenty."""
    columns = {"topic": row.get("data_topic")}
    return Question(text_field(row, "question"), text_field(row, "answer"), columns=columns)


def make(settings: TaskConfig) -> Task:
    """The task, for evaluation."""
    return load(Benchmark("collegemath", read, SOURCE), settings)
