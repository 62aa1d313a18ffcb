"""From a name to a task: rows of a file, a user's own function, a user's reward."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tinylora.errors import RequestError, TinyLoraError
from tinylora.tasks import Problem, load_task
from tinylora.tasks.functions import as_grade
from tinylora.tasks.rows import split


def write_rows(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def sums(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{i}+1=", "answer": i + 1, "level": i % 3} for i in range(count)]


def test_rows_are_split_into_train_and_test(tmp_path: Path) -> None:
    task = load_task(write_rows(tmp_path / "sums.jsonl", sums(40)))
    assert (task.name, len(task.train), len(task.test)) == ("sums", 36, 4)
    assert not {p.prompt for p in task.train} & {p.prompt for p in task.test}


def test_numbers_are_answers_too_and_other_fields_are_kept(tmp_path: Path) -> None:
    task = load_task(write_rows(tmp_path / "sums.jsonl", sums(12)))
    problem = next(p for p in [*task.train, *task.test] if p.prompt == "4+1=")
    assert (problem.gold, dict(problem.columns)) == ("5", {"level": 1})


def test_exact_match_ignores_spaces_around(tmp_path: Path) -> None:
    grade = load_task(write_rows(tmp_path / "sums.jsonl", sums(2))).grade
    assert [grade("5", text).score for text in ("5", " 5\n", "5.", "it is 5")] == [1, 1, 0, 0]


def test_the_split_does_not_depend_on_the_order_of_rows() -> None:
    problems = [Problem(f"p{i}", "a") for i in range(50)]
    train, test = split(problems)
    assert split(problems[::-1]) == (train[::-1], test[::-1])


def test_equal_prompts_stay_on_one_side() -> None:
    problems = [Problem(f"p{i % 10}", str(i)) for i in range(40)]
    train, test = split(problems)
    assert not {p.prompt for p in train} & {p.prompt for p in test}
    assert (len(train), len(test)) == (36, 4)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 2 is not JSON"),
        ("3", "line 2 is no JSON object"),
        ('{"prompt": "a"}', "line 2: the field answer is missing or empty"),
        ('{"prompt": "", "answer": "b"}', "line 2: the field prompt is missing or empty"),
        ('{"prompt": "a", "answer": [1]}', r"line 2: the field answer is \[1\], not a text"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, line: str, sentence: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "x", "answer": "y"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(RequestError, match=sentence):
        load_task(str(path))


def test_one_row_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="has 1 different prompts, but training and test need"):
        load_task(write_rows(tmp_path / "rows.jsonl", sums(1)))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(RequestError, match=r"There is no task file nowhere.jsonl"):
        load_task("nowhere.jsonl")


def test_an_unknown_task_has_the_nearest_spelling() -> None:
    with pytest.raises(RequestError, match=r'task = "pockt" is no task.* Did you mean pocket\?'):
        load_task("pockt")


OWN = """
from tinylora import Problem, Task, Verdict

def make():
    problems = [Problem("p", "g")]
    return Task("mine", problems, problems, lambda gold, text: Verdict(float(gold == text)))

def wrong():
    return 3
"""


def test_a_function_of_ones_own_makes_a_task(tmp_path: Path) -> None:
    path = tmp_path / "my_task.py"
    path.write_text(OWN, encoding="utf-8")
    task = load_task(f"{path}:make")
    assert (task.name, task.grade("g", "g").score) == ("mine", 1.0)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("my_task.py:mak", "has no function mak. Did you mean make"),
        ("my_task.py:wrong", "returned a int, but a task is a tinylora.Task"),
        ("other.py:make", r"There is no file .*other.py, which task = .* names"),
    ],
)
def test_a_function_that_makes_no_task_is_refused(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "my_task.py").write_text(OWN, encoding="utf-8")
    with pytest.raises(RequestError, match=sentence):
        load_task(str(tmp_path / name))


PROBLEMS = [Problem("p1", "a", None, {"level": 1}), Problem("p2", "b", "s", {"level": 2})]


def test_a_reward_function_gets_trls_columns() -> None:
    seen: dict[str, Any] = {}

    def reward(completions: list[str], **columns: Any) -> list[float]:
        seen.update(columns, completions=completions)
        return [0.25, -2]

    verdicts = as_grade(reward)(PROBLEMS, ["x", "y"])
    assert [verdict.score for verdict in verdicts] == [0.25, -2.0]
    assert seen == {
        "completions": ["x", "y"],
        "prompts": ["p1", "p2"],
        "answer": ["a", "b"],
        "solution": [None, "s"],
        "level": [1, 2],
    }


def test_a_reward_function_gets_only_what_it_names() -> None:
    def reward(completions: list[str], level: list[int]) -> list[float]:
        return [float(n) for n in level]

    assert [v.score for v in as_grade(reward)(PROBLEMS, ["x", "y"])] == [1.0, 2.0]


def test_none_and_nan_mean_could_not_judge() -> None:
    def reward(completions: list[str]) -> list[float | None]:
        return [None, math.nan]

    assert [v.score for v in as_grade(reward)(PROBLEMS, ["x", "y"])] == [None, None]


def test_a_reward_that_is_no_number_is_named() -> None:
    def my_reward(completions: list[str]) -> list[Any]:
        return ["good", "bad"]

    with pytest.raises(TinyLoraError, match="function my_reward returned 'good' for a completion"):
        as_grade(my_reward)(PROBLEMS, ["x", "y"])
