"""CodeContests (deepmind/code_contests): competition problems with their tests.

Rows come as on the hub (sources, difficulties and programs as numbers and lists), as rLLM packs the
test split (a statement and two lists), as SandboxFusion does (labels and tests as JSON), or in any
other format of `program_rows`.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tinylora.errors import RequestError
from tinylora.settings import TaskConfig
from tinylora.tasks.data import DataRow, Source
from tinylora.tasks.program_rows import LeftOut, Statement, read_row
from tinylora.tasks.programs import load
from tinylora.tasks.task import Task

HUB = "deepmind/code_contests"
TRAIN = Source(HUB, "train", ("code_contests_train*", "/train*", "/data/train-*"), is_huge=True)
TEST = Source(HUB, "test", ("code_contests_test*", "/test*", "/data/test-*"), is_huge=True)
SOURCES = (
    "UNKNOWN_SOURCE", "CODECHEF", "CODEFORCES", "HACKEREARTH", "CODEJAM", "ATCODER", "AIZU",
)  # fmt: skip
DIFFICULTIES = (
    "UNKNOWN_DIFFICULTY", "EASY", "MEDIUM", "HARD", "HARDER", "HARDEST", "EXTERNAL",
    *"ABCDEFGHIJKLMNOPQRSTUV",
)  # fmt: skip
CPP = 2  # among the languages of solutions


def make(settings: TaskConfig) -> Task:
    """The task, with the problems of the sources and difficulties that the settings name."""
    wanted = {name.upper() for name in settings.sources}
    _check_names("sources", wanted, SOURCES)
    _check_names("difficulties", {name.upper() for name in settings.difficulties}, DIFFICULTIES)

    def chosen(row: DataRow) -> Statement:
        statement = read(row)
        if wanted and statement.source not in wanted:
            raise LeftOut("of another source")
        return statement

    return load("code_contests", chosen, [TRAIN], [TEST], settings)


def read(row: DataRow) -> Statement:
    """A row in any of the formats, with what CodeContests says beyond the tests."""
    labels = json.loads(row["labels"]) if isinstance(row.get("labels"), str) else row
    return replace(
        read_row(row),
        source=_name(labels.get("source"), SOURCES),
        difficulty=_name(labels.get("difficulty"), DIFFICULTIES),
        accepted=_first_cpp(row.get("solutions")),
        rejected=_first_cpp(row.get("incorrect_solutions")),
    )


def _name(value: Any, names: tuple[str, ...]) -> str:
    """Of a number, a name in any case, or the first name where it is neither."""
    if isinstance(value, str) and value.upper() in names:
        return value.upper()
    is_known = isinstance(value, int | float) and value == value and 0 <= value < len(names)
    return names[int(value)] if is_known else names[0]


def _first_cpp(programs: Mapping[str, Any] | None) -> str | None:
    if not isinstance(programs, Mapping):  # open-r1 and others keep none, or in another way
        return None
    pairs = zip(programs.get("language", ()), programs.get("solution", ()), strict=False)
    return next((source for language, source in pairs if language in (CPP, "CPP")), None)


def _check_names(setting: str, given: set[str], known: tuple[str, ...]) -> None:
    unknown = sorted(given - set(known))
    if unknown:
        raise RequestError(
            f"{setting} = {unknown[0]}, but CodeContests has {', '.join(known)}. Use some of them."
        )
