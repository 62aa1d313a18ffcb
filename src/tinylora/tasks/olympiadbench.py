"""OlympiadBench (Hothan/OlympiadBench): its English mathematics in words with a final answer."""

from tinylora.settings import TaskConfig
from tinylora.tasks.data import Row, Source
from tinylora.tasks.mathematics import Benchmark, Question, load
from tinylora.tasks.task import Task

CONFIG = "OE_TO_maths_en_COMP"
SOURCE = Source(
    "Hothan/OlympiadBench", "train", ("olympiadbench*", f"{CONFIG}/*", f"{CONFIG}*"), CONFIG
)


def read(row: Row) -> Question:
    """Several answers are one gold answer with commas: all of them are asked for."""
    gold = ", ".join(str(answer) for answer in row["final_answer"])
    columns = {name: row.get(name) for name in ("subfield", "answer_type", "unit")}
    return Question(str(row["question"]), gold.strip(), columns=columns)


def make(settings: TaskConfig) -> Task:
    """The task, for evaluation."""
    return load(Benchmark("olympiadbench", read, SOURCE), settings)
