"""From a name to a task: rows of a file, a user's own function, a user's reward."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from tinylora.errors import RequestError, TinyLoraError
from tinylora.tasks import Problem, load_task
from tinylora.tasks.data import split
from tinylora.tasks.functions import as_grade


def write_rows(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def prompt_of(problem: Problem) -> str:
    return problem.prompt


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
    train, test = split(problems, prompt_of)
    assert split(problems[::-1], prompt_of) == (train[::-1], test[::-1])


def test_equal_prompts_stay_on_one_side() -> None:
    problems = [Problem(f"p{i % 10}", str(i)) for i in range(40)]
    train, test = split(problems, prompt_of)
    assert not {p.prompt for p in train} & {p.prompt for p in test}
    assert (len(train), len(test)) == (36, 4)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 2 is not JSON"),
        ("3", "line 2 is not a JSON object"),
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
    with pytest.raises(RequestError, match=r"The task file nowhere.jsonl"):
        load_task("nowhere.jsonl")


def test_an_unknown_task_has_the_nearest_spelling() -> None:
    with pytest.raises(RequestError, match=r'task = "pockt" is not a task.* Did you mean pocket\?'):
        load_task("pockt")


def test_a_task_that_was_an_object_in_python_is_explained() -> None:
    with pytest.raises(
        RequestError, match=r"was given its task colours as an object in Python.*--"
    ):
        load_task("python:colours")


def test_a_line_ends_where_json_lines_end(tmp_path: Path) -> None:
    """U+2028 is a line's end for Python, and a character like others for JSON."""
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"a\u2028{i}", "answer": "b"} for i in range(2)]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    task = load_task(str(path))
    assert {p.prompt for p in [*task.train, *task.test]} == {"a\u20280", "a\u20281"}


def test_rows_in_another_encoding_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"prompt": "é", "answer": "b"}\n'.encode("latin-1"))
    with pytest.raises(
        RequestError,
        match=r"rows.jsonl is not UTF-8 \(invalid continuation byte\). Save it as UTF-8",
    ):
        load_task(str(path))


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
        ("my_task.py:mak", "does not define mak. Did you mean make"),
        ("my_task.py:wrong", "returned a int, but a task is a tinylora.Task"),
        ("other.py:make", r"task = .*, but the file .*other.py does not exist"),
    ],
)
def test_a_function_that_makes_no_task_is_refused(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "my_task.py").write_text(OWN, encoding="utf-8")
    with pytest.raises(RequestError, match=sentence):
        load_task(str(tmp_path / name))


def test_a_task_file_imports_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_task.py").write_text("NAME = 'mine'", encoding="utf-8")
    (tmp_path / "other_neighbour_of_task.py").write_text("", encoding="utf-8")
    path = tmp_path / "my_task.py"
    own = OWN.replace("def make():", "def make():\n    import other_neighbour_of_task")
    own = own.replace('"mine"', "NAME")
    path.write_text("from neighbour_of_task import NAME\n" + own, encoding="utf-8")
    before = list(sys.path)
    assert load_task(f"{path}:make").name == "mine"
    assert sys.path == [*before, str(tmp_path)]  # last: it may hide no library from us
    assert load_task(f"{path}:make").name == "mine"
    assert sys.path == [*before, str(tmp_path)]
    sys.path.remove(str(tmp_path))


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


PROBLEMS = [Problem("p1", "a", None, {"level": 1}), Problem("p2", "b", "s", {"level": 2})]


def test_a_reward_function_gets_trls_columns() -> None:
    seen: dict[str, Any] = {}

    def reward(completions: list[str], **columns: Any) -> list[float]:
        seen.update(columns, completions=completions)
        return [0.25, -2]

    verdicts = as_grade(reward, letters)(PROBLEMS, ["x", "yz"])
    assert [verdict.score for verdict in verdicts] == [0.25, -2.0]
    assert seen == {
        "completions": ["x", "yz"],
        "completion_ids": [[120], [121, 122]],
        "prompts": ["p1", "p2"],
        "answer": ["a", "b"],
        "solution": [None, "s"],
        "level": [1, 2],
    }


def test_a_reward_function_gets_only_what_it_names() -> None:
    def reward(completions: list[str], level: list[int]) -> list[float]:
        return [float(n) for n in level]

    assert [v.score for v in as_grade(reward, letters)(PROBLEMS, ["x", "y"])] == [1.0, 2.0]


def test_a_column_called_completions_hides_nothing() -> None:
    def reward(completions: list[str]) -> list[float]:
        return [float(text) for text in completions]

    problems = [Problem("p", "a", None, {"completions": "9", "completion_ids": "9"})]
    assert [v.score for v in as_grade(reward, letters)(problems, ["1"])] == [1.0]


@pytest.mark.parametrize(
    ("returned", "what"), [(None, "None"), ([1.0], "1 scores"), (0.5, "a float")]
)
def test_a_reward_that_is_no_list_of_scores_is_named(returned: Any, what: str) -> None:
    def my_reward(completions: list[str]) -> Any:
        return returned

    with pytest.raises(
        TinyLoraError, match=f"my_reward returned {what} for 2 completions. It must"
    ):
        as_grade(my_reward, letters)(PROBLEMS, ["x", "y"])


def test_none_and_nan_mean_could_not_judge() -> None:
    def reward(completions: list[str]) -> list[float | None]:
        return [None, math.nan]

    assert [v.score for v in as_grade(reward, letters)(PROBLEMS, ["x", "y"])] == [None, None]


def test_a_reward_that_is_no_number_is_named() -> None:
    def my_reward(completions: list[str]) -> list[Any]:
        return ["good", "bad"]

    with pytest.raises(TinyLoraError, match="function my_reward returned 'good' for a completion"):
        as_grade(my_reward, letters)(PROBLEMS, ["x", "y"])
