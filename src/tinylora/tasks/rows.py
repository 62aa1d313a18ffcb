"""A task from a JSONL file: one row a line, fields `prompt` and `answer`, graded by exact match.

A tenth of the rows is held out as the test split. Which ones follows from the prompts' hashes, so
it does not depend on the order of the rows, and equal prompts stay on one side.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from tinylora.errors import RequestError
from tinylora.rewards.verdict import Verdict
from tinylora.tasks.task import Problem, Task

TEST_SHARE = 0.1


def load_rows(path: Path) -> Task:
    """The task that a JSONL file holds.

    Raises:
        RequestError: the file is missing, a row is malformed, or there are fewer than two prompts.
    """
    if not path.is_file():
        raise RequestError(
            f"There is no task file {path}. Give the path of a JSONL file whose rows have the "
            "fields prompt and answer."
        )
    lines = _read(path).split("\n")  # not splitlines: a text may hold U+2028
    problems = [
        _problem(line, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    train, test = split(problems)
    if not train or not test:
        raise RequestError(
            f"{path} has {len(train) + len(test)} different prompts, but training and test need "
            "one each. Add rows."
        )
    return Task(path.stem, train, test, grade)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{path} is not UTF-8 (byte {error.start}: {error.reason}). Save it as UTF-8."
        ) from None


def grade(gold: str, completion: str) -> Verdict:
    """1 if the completion is the answer, apart from spaces around them; else 0."""
    return Verdict(float(completion.strip() == gold.strip()))


def split(problems: list[Problem]) -> tuple[list[Problem], list[Problem]]:
    """Train and test problems, by the hash of the prompt; equal prompts stay together."""
    prompts = sorted({problem.prompt for problem in problems}, key=_hash)
    held_out = set(prompts[: max(1, round(TEST_SHARE * len(prompts)))])
    train = [problem for problem in problems if problem.prompt not in held_out]
    return train, [problem for problem in problems if problem.prompt in held_out]


def _hash(prompt: str) -> bytes:
    return hashlib.sha256(prompt.encode()).digest()


def _problem(line: str, place: str) -> Problem:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise RequestError(f"{place} is not JSON: {error}.") from None
    if not isinstance(row, dict):
        raise RequestError(f"{place} is no JSON object, but a row has fields. Write {_EXAMPLE}.")
    columns = dict(row)
    prompt = _text(columns.pop("prompt", None), "prompt", place)
    answer = _text(columns.pop("answer", None), "answer", place)
    solution = columns.pop("solution", None)
    return Problem(
        prompt, answer, None if solution is None else _text(solution, "solution", place), columns
    )


def _text(value: Any, field: str, place: str) -> str:
    """Texts as they are, numbers as they are written; nothing else is a prompt or an answer."""
    if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
        return str(value)
    what = "is missing or empty" if value in (None, "") else f"is {value!r}, not a text"
    raise RequestError(f"{place}: the field {field} {what}. Write {_EXAMPLE}.")


_EXAMPLE = '{"prompt": "2+2=", "answer": "4"}'
