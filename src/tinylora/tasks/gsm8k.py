"""GSM8K (openai/gsm8k): grade-school word problems; the gold answer follows `####`."""

from tinylora.settings import TaskConfig
from tinylora.tasks.data import Row, Source
from tinylora.tasks.mathematics import Benchmark, Question, load
from tinylora.tasks.task import Task

HUB = "openai/gsm8k"


def read(row: Row) -> Question:
    """The number after `####` without its commas; the worked solution keeps its own form."""
    solution = str(row["answer"])
    _, _, gold = solution.rpartition("####")
    return Question(str(row["question"]), gold.strip().replace(",", ""), solution)


BENCHMARK = Benchmark(
    "gsm8k",
    read,
    Source(HUB, "test", ("gsm8k_test*", "main/test*", "/test*"), config="main"),
    Source(HUB, "train", ("gsm8k_train*", "main/train*", "/train*"), config="main"),
    template="hash",
    max_new_tokens=1024,
)


def make(settings: TaskConfig) -> Task:
    """The task; its test split is GSM8K's own."""
    return load(BENCHMARK, settings)
