"""DeepCoder (agentica-org/DeepCoder-Preview-Dataset): competition problems of four collections.

Trained on primeintellect, taco and lcbv5, tested on codeforces and lcbv5, as DeepCoder was. Many of
their problems want a Python function, and are left out. `sources` picks collections.
"""

from collections.abc import Sequence

from tinylora.errors import RequestError
from tinylora.settings import TaskConfig
from tinylora.tasks.data import Source
from tinylora.tasks.program_rows import read_row
from tinylora.tasks.programs import load
from tinylora.tasks.task import Task

HUB = "agentica-org/DeepCoder-Preview-Dataset"
TRAIN = ("primeintellect", "taco", "lcbv5")
TEST = ("codeforces", "lcbv5")
COLLECTIONS = tuple(dict.fromkeys((*TRAIN, *TEST)))


def make(settings: TaskConfig) -> Task:
    """The task, with the collections that the settings name."""
    unknown = sorted(set(settings.sources) - set(COLLECTIONS))
    if unknown:
        raise RequestError(
            f"sources = {unknown[0]}, but DeepCoder has {', '.join(COLLECTIONS)}. Use some of them."
        )
    return load(
        "deepcoder", read_row, _sources(TRAIN, "train", settings), _sources(TEST, "test", settings),
        settings,
    )  # fmt: skip


def _sources(names: Sequence[str], split: str, settings: TaskConfig) -> list[Source]:
    chosen = [name for name in names if not settings.sources or name in settings.sources]
    return [_source(name, split) for name in chosen]


def _source(name: str, split: str) -> Source:
    files = (f"{name}/{split}*", f"{name}_{split}*", f"{split}_{name}*", f"*_{name}_{split}*")
    only = (f"{name}*",) if (name in TRAIN) != (name in TEST) else ()
    return Source(HUB, split, (*files, *only), config=name, is_huge=True)
