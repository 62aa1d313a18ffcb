"""The mathematical benchmarks: rows of each format, templates, graders, and the real files."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from helpers.real_data import DATA, needs_data
from tinylora.errors import RequestError
from tinylora.settings import TaskConfig
from tinylora.tasks import Task, load_task

BOX = r"Please reason step by step, and put your final answer within \boxed{}."


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def grade_school(count: int) -> list[dict[str, Any]]:
    return [
        {
            "question": f"What is 1000 + {i}?",
            "answer": f"<<1000+{i}={1000 + i}>>.\n#### 1,{i:03}",
        }
        for i in range(count)
    ]


@pytest.fixture
def gsm8k(tmp_path: Path) -> Task:
    write_rows(tmp_path / "gsm8k_train.jsonl", grade_school(8))
    write_rows(tmp_path / "gsm8k_test.jsonl", grade_school(20)[8:])
    return load_task("gsm8k", TaskConfig(data=str(tmp_path)))


def test_gsm8k_has_its_own_splits_and_golds_without_commas(gsm8k: Task) -> None:
    assert (len(gsm8k.train), len(gsm8k.test), gsm8k.notes) == (8, 12, ())
    problem = gsm8k.train[3]
    assert (problem.gold, problem.system) == ("1003", None)
    assert problem.prompt == (
        'What is 1000 + 3? Let\'s think step by step and output the final answer after "####".'
    )


def test_gsm8k_is_graded_strictly_in_its_own_format(gsm8k: Task) -> None:
    answers = ["#### 1,003", "#### 1003.0", "The answer is 1003", r"\boxed{1003}", "1003", ""]
    scores = [gsm8k.grade("1003", answer).score for answer in answers]
    assert scores == [1, 1, 0, 0, 0, 0]


def test_many_are_graded_as_one_by_one(gsm8k: Task) -> None:
    answers = ["#### 1000", "#### 7", "nothing"]
    problems = [gsm8k.train[0]] * 3
    assert gsm8k.grade_many is not None
    many = gsm8k.grade_many(problems, answers)
    assert [v.score for v in many] == [1, 0, 0]
    assert [v.score for v in many] == [gsm8k.grade("1000", a).score for a in answers]


def test_lenient_answers_count_where_they_are_asked_for(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", grade_school(20))
    task = load_task("gsm8k", TaskConfig(data=str(path), reward_format="lenient"))
    verdict = task.grade("1003", r"So it is \boxed{1003}.")
    assert verdict.score == 1
    strict = load_task("gsm8k", TaskConfig(data=str(path))).grade("1003", r"It is \boxed{1003}.")
    assert (strict.score, strict.details["strict"], strict.details["lenient"]) == (0, 0, 1)


def test_of_one_file_a_tenth_is_held_out(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", grade_school(20))
    task = load_task("gsm8k", TaskConfig(data=str(path)))
    assert (len(task.train), len(task.test)) == (18, 2)
    assert task.notes == (f"2 problems of {path} are held out as the test split.",)


def test_a_training_problem_of_the_test_split_is_left_out(tmp_path: Path) -> None:
    rows = grade_school(6)
    write_rows(tmp_path / "gsm8k_train.jsonl", rows)
    write_rows(tmp_path / "gsm8k_test.jsonl", [{**rows[2], "question": "What is 1000  + 2?\n"}])
    task = load_task("gsm8k", TaskConfig(data=str(tmp_path)))
    assert len(task.train) == 5
    assert task.notes == ("1 training problems are in the test split and were left out.",)


@pytest.mark.parametrize(
    ("template", "system", "prompt", "answer"),
    [
        ("boxed", BOX, "1+1?", r"\boxed{2}"),
        ("simplerl", "You are a helpful assistant.", f"1+1?\n{BOX}", r"\boxed{2}"),
        (
            "hash",
            None,
            '1+1? Let\'s think step by step and output the final answer after "####".',
            "#### 2",
        ),
    ],
)
def test_a_template_asks_for_the_format_that_is_graded(
    tmp_path: Path, template: Any, system: str | None, prompt: str, answer: str
) -> None:
    path = write_rows(tmp_path / "amc23.jsonl", [{"question": "1+1?", "answer": 2.0}])
    task = load_task("amc23", TaskConfig(data=str(path), prompt_template=template))
    (problem,) = task.test
    assert (problem.system, problem.prompt, problem.gold) == (system, prompt, "2")
    instruction = BOX if "box" in answer else prompt.removeprefix("1+1? ")
    assert problem.plain == f"Question: 1+1?\n{instruction}\nAnswer:"
    answers = [r"\boxed{2}", "#### 2"]
    assert [task.grade("2", text).score for text in answers] == [text == answer for text in answers]


LEVELLED = [
    {"problem": f"p{i}", "level": f"Level {i}", "type": "Algebra", "solution": rf"\boxed{{{i}}}"}
    for i in (1, 2, 3, 4, 5, 5)
] + [{"problem": "p?", "level": "Level ?", "type": "Algebra", "solution": r"$\boxed{\frac12}$"}]


@pytest.mark.parametrize(
    ("level", "golds"),
    [
        (None, ["1", "2", "3", "4", "5", "5", r"\frac12"]),
        ("3-5", ["3", "4", "5", "5"]),
        ("2", ["2"]),
        ("hardest", ["5", "5"]),
    ],
)
def test_levels_choose_what_is_trained_on(
    tmp_path: Path, level: str | None, golds: list[str]
) -> None:
    write_rows(tmp_path / "math_train.jsonl", LEVELLED)
    write_rows(tmp_path / "math500.jsonl", [{"problem": "q", "answer": "7", "level": 1}])
    task = load_task("math", TaskConfig(data=str(tmp_path), level=level))
    assert [problem.gold for problem in task.train] == golds
    assert [problem.gold for problem in task.test] == ["7"]


def test_a_level_needs_rows_that_name_theirs(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "rows.jsonl", [{"problem": "p" * n, "answer": "1"} for n in (1, 2)]
    )
    with pytest.raises(
        RequestError, match=r'level = 5, but the rows do not state levels: "pp?\.\.\."'
    ):
        load_task("math", TaskConfig(data=str(path), level="5"))


def simplerl_row(question: str, gold: str, as_turns: bool = False) -> dict[str, Any]:
    asked = f"{question}\n{BOX}"
    if as_turns:
        asked = f"<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n{asked}<|im_end|>\n"
    return {
        "data_source": "simplelr",
        "prompt": [{"content": asked, "role": "user"}],
        "reward_model": {"ground_truth": gold, "style": "rule"},
    }


def test_simplerl_rows_lose_their_template_and_warn(tmp_path: Path) -> None:
    rows = [simplerl_row("1+1?", "2"), simplerl_row("2+2?", "4", True), simplerl_row("?", "")]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "simplerl_math.parquet")
    write_rows(tmp_path / "math500.jsonl", [{"problem": "q", "answer": "7"}])
    settings = TaskConfig(data=str(tmp_path), level="simplerl", prompt_template="simplerl")
    task = load_task("math", settings)
    assert [(p.prompt, p.gold) for p in task.train] == [
        (f"1+1?\n{BOX}", "2"),
        (f"2+2?\n{BOX}", "4"),
    ]
    assert task.notes[0] == "1 of 3 rows of math have no gold answer and were left out."
    assert "evaluate only on math500" in task.notes[1]


def test_a_row_of_another_benchmark_is_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"prompt": "1+1?", "answer": "2"}])
    with pytest.raises(
        RequestError,
        match=r"rows.jsonl, line 1 is not a row of task gsm8k: it lacks the field question; its "
        r"fields are prompt, answer\. .*whose rows have question, answer, or .*--task FILE.jsonl",
    ):
        load_task("gsm8k", TaskConfig(data=str(path)))


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        (
            "gsm8k",
            {"level": "5"},
            "level = 5, but task gsm8k does not read it: it is for chains, math",
        ),
        ("pocket", {"data": "x"}, "data = x, but task pocket does not read it: it is for gsm8k, g"),
        ("math500", {"answer_format": "any"}, "answer_format = any, but task math500 does not r"),
    ],
)
def test_a_setting_that_the_task_does_not_read_is_refused(
    name: str, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RequestError, match=sentence):
        load_task(name, TaskConfig(**settings))


@pytest.mark.parametrize("level", ["0", "5-3", "6", "easy", "1-2-3"])
def test_a_level_that_is_none_is_refused(level: str) -> None:
    with pytest.raises(RequestError, match=rf'level = "{level}" names no problems. Use 1 to 5'):
        TaskConfig(level=level)


REAL = {  # task -> training problems, test problems, rows without a gold answer
    "gsm8k": (7473, 1319, 0),
    "math": (7470, 500, 4),
    "math500": (0, 500, 0),
    "minerva": (0, 272, 0),
    "olympiadbench": (0, 675, 0),
    "aime24": (0, 30, 0),
    "amc23": (0, 40, 0),
    "gaokao": (0, 383, 2),
    "collegemath": (0, 2818, 0),
}


TWINS = {
    "math": [
        "2 of 7470 training problems repeat another one; the answers to 1 of the questions differ."
    ],
    "collegemath": [
        "37 of 2818 test problems repeat another one; the answers to 24 of the questions differ."
    ],
}


@needs_data
@pytest.mark.parametrize("name", REAL)
def test_the_real_files_are_read_as_they_are(name: str) -> None:
    num_train, num_test, num_empty = REAL[name]
    task = load_task(name, TaskConfig(data=str(DATA)))
    assert (len(task.train), len(task.test)) == (num_train, num_test)
    problems = [*task.train, *task.test]
    assert [p for p in problems if not p.gold or not p.prompt.strip()] == []
    assert [note.split()[0] for note in task.notes if "no gold answer" in note] == (
        [str(num_empty)] if num_empty else []
    )
    assert [note for note in task.notes if "no gold answer" not in note] == TWINS.get(name, [])


@needs_data
def test_simplerl_has_its_8521_gradable_problems_and_none_of_math500() -> None:
    task = load_task("math", TaskConfig(data=str(DATA), level="simplerl"))
    assert (len(task.train), len(task.test)) == (8521, 500)
    assert [note for note in task.notes if "in the test split" in note] == []
