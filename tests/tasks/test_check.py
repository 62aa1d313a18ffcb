"""check-rewards: right answers that are not right, empty ones that are, and what has no verdict."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tinylora.cli import main
from tinylora.rewards import math
from tinylora.rewards.verdict import Verdict
from tinylora.tasks import Problem, Task, load_task
from tinylora.tasks.check import check
from tinylora.tasks.mathematics import spellings

PROBLEMS = [Problem(str(i), str(i)) for i in range(300)]


def exact(gold: str, completion: str) -> Verdict:
    return Verdict(float(gold == completion), "right" if gold == completion else "wrong")


def task(grade: Any, **settings: Any) -> Task:
    return Task("made", PROBLEMS, PROBLEMS, grade, wrong_answer=lambda p: "wrong", **settings)


def test_a_sound_task_is_gradable() -> None:
    found = check(task(exact), PROBLEMS)
    assert (found.num_problems, dict(found.kinds), found.findings) == (300, {"valid": 300}, [])
    assert found.is_gradable


def test_a_right_answer_that_is_wrong_is_found_with_its_place() -> None:
    def strange(gold: str, completion: str) -> Verdict:
        return exact(gold, completion if gold != "270" else completion + "!")

    found = check(task(strange), PROBLEMS)
    (finding,) = found.findings
    assert dict(found.kinds) == {"valid": 299, "invalid": 1}
    assert (finding.index, finding.answer, finding.score) == (270, "right", 0.0)
    assert found.is_gradable  # one of 300


@pytest.mark.parametrize("fooled_by", ["", "wrong"])
def test_a_grader_that_takes_anything_is_no_grader(fooled_by: str) -> None:
    found = check(task(lambda gold, text: Verdict(float(text in (gold, fooled_by)))), PROBLEMS)
    assert dict(found.kinds) == {"invalid": 300}
    assert {finding.answer for finding in found.findings} == {fooled_by or "empty"}
    assert not found.is_gradable


def test_a_wrong_answer_may_be_partly_right_but_nothing_may_not() -> None:
    partly = {"wrong": 0.5, "": 0.0}
    made = task(lambda gold, text: Verdict(partly.get(text, 1.0)))
    assert check(made, PROBLEMS).kinds["valid"] == 300
    partly[""] = 0.1
    assert check(made, PROBLEMS).kinds["invalid"] == 300


@pytest.mark.parametrize(("num_unjudged", "is_gradable"), [(15, True), (16, False)])
def test_what_cannot_be_judged_is_counted_apart(num_unjudged: int, is_gradable: bool) -> None:
    def blind(gold: str, text: str) -> Verdict:
        return Verdict(None, "prose") if int(gold) < num_unjudged else exact(gold, text)

    found = check(task(blind), PROBLEMS)
    assert (found.kinds["not judged"], found.kinds["invalid"]) == (num_unjudged, 0)
    assert found.is_gradable is is_gradable


def test_without_any_right_answer_nothing_is_known() -> None:
    found = check(replace(task(exact), right_answer=lambda problem: None), PROBLEMS)
    assert (found.num_without_answer, found.is_gradable) == (300, False)


def test_the_pocket_task_is_gradable() -> None:
    pocket = load_task("pocket")
    assert check(pocket, pocket.test[:500]).kinds == {"valid": 500}


def rows(path: Path, answers: list[str]) -> str:
    lines = [json.dumps({"prompt": f"p{i}", "answer": a}) for i, a in enumerate(answers)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_the_verb_counts_and_exits_with_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = rows(tmp_path / "rows.jsonl", [rf"\frac{{{i}}}{{7}}" for i in range(1, 21)])
    assert main(["check-rewards", name, "--answer-format=boxed"]) == 0
    printed = capsys.readouterr().out
    assert "train" in printed
    assert [cell.strip() for cell in printed.split("│")[2:7]] == ["18", "18", "0", "0", "0"]


def test_the_verb_names_what_cannot_be_graded_and_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unreadable = ["np.arcsin(10/13)"] * 4
    name = rows(tmp_path / "rows.jsonl", [*unreadable, *map(str, range(4))])
    assert main(["check-rewards", name, "--answer-format=boxed"]) == 1
    said = capsys.readouterr()
    assert 'train 0: the answer that is wrong "\\boxed{-987654321.5}": not judged, ' in said.out
    assert "The train problems of task rows cannot be graded as they are" in said.err


def test_the_verb_says_that_there_was_no_right_answer_to_try(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from tinylora import Problem, Task, Verdict\n"
        "def make():\n"
        "    problems = [Problem('1', ''), Problem('2', '')]\n"
        "    return Task('blank', problems, problems, lambda gold, text: Verdict(0.0))\n"
    )
    assert main(["check-rewards", f"{path}:make"]) == 1
    said = capsys.readouterr().err
    assert "Task blank lacks reference answers for its train and test problems" in said


def test_the_verb_refuses_what_is_no_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-rewards", "gsm9k"]) == 2
    assert "Did you mean gsm8k?" in capsys.readouterr().err
    assert main(["check-rewards", "pocket", "--problems=0"]) == 2
    assert "problems = 0, but it must be at least 1" in capsys.readouterr().err


def test_a_grader_that_knows_one_spelling_alone_is_found() -> None:
    made = task(exact, spellings=lambda problem: [f"{problem.gold}.0"])
    found = check(made, PROBLEMS[:70])
    assert dict(found.kinds) == {"invalid": 70}
    first = found.findings[0]
    assert (first.answer, first.tried, first.score) == ("right, spelled otherwise", "0.0", 0.0)


def test_progress_is_told_after_every_batch() -> None:
    told: list[int] = []
    check(task(exact), PROBLEMS, told.append)
    assert told == [64, 128, 192, 256, 300]


@pytest.mark.parametrize(
    ("gold", "others"),
    [
        ("7", ["7.0"]),
        ("-1234", ["-1,234", "-1234.0"]),
        ("0.5", ["0.50"]),
        (r"-\frac{1}{2}", [r"-\dfrac{1}{2}", "-1/2"]),
        (r"x^2 + 1", [r"x^2 + 1"]),
    ],
)
def test_other_spellings_of_a_gold(gold: str, others: list[str]) -> None:
    assert spellings(gold) == others
    assert [math.grade(gold, rf"\boxed{{{other}}}").score for other in others] == [1.0] * len(
        others
    )
