"""CodeContests (deepmind/code_contests): competition problems with their tests.

Rows come as on the hub (sources, difficulties and programs as numbers and lists), as rLLM packs the
test split (a statement and two lists), or as SandboxFusion does (labels and tests as JSON).
"""

import json
from collections.abc import Mapping
from typing import Any

from tinylora.errors import RequestError
from tinylora.settings import TaskConfig
from tinylora.tasks.data import Row, Source
from tinylora.tasks.programs import LeftOut, Statement, limits, limits_in, load, parse_tests
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

    def chosen(row: Row) -> Statement:
        statement = read(row)
        if wanted and statement.source not in wanted:
            raise LeftOut("of another source")
        return statement

    return load("code_contests", chosen, [TRAIN], [TEST], settings)


def read(row: Row) -> Statement:
    """A row in any of the three forms."""
    if "description" in row:
        return _from_hub(row)
    if "content" in row:
        labels = json.loads(row["labels"])
        tests = {"private": parse_tests(row["test"])}
        return Statement(row["content"], tests, labels["source"], labels["difficulty"])
    tests = {"private": parse_tests(row["tests"])}
    return Statement(row["problem"], tests, limits=limits_in(row["problem"]))


def _from_hub(row: Row) -> Statement:
    if row.get("input_file") or row.get("output_file"):
        raise LeftOut("that read or write files")
    kinds = ("public", "private", "generated")
    time, memory = row.get("time_limit"), row.get("memory_limit_bytes")
    seconds = time["seconds"] + time["nanos"] / 1e9 if time else None
    return Statement(
        row["description"],
        {kind: parse_tests(row[f"{kind}_tests"]) for kind in kinds},
        _name(row["source"], SOURCES),
        _name(row["difficulty"], DIFFICULTIES),
        limits(seconds, memory // 1_000_000 if memory else None),
        _first_cpp(row.get("solutions")),
        _first_cpp(row.get("incorrect_solutions")),
    )


def _name(value: int | str, names: tuple[str, ...]) -> str:
    return value if isinstance(value, str) else names[value]


def _first_cpp(programs: Mapping[str, Any] | None) -> str | None:
    held = programs or {"language": [], "solution": []}
    pairs = zip(held["language"], held["solution"], strict=True)
    return next((source for language, source in pairs if language in (CPP, "CPP")), None)


def _check_names(setting: str, given: set[str], known: tuple[str, ...]) -> None:
    unknown = sorted(given - set(known))
    if unknown:
        raise RequestError(
            f"{setting} = {unknown[0]}, but CodeContests has {', '.join(known)}. Use some of them."
        )
