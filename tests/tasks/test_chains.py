"""Chains of arithmetic: right by Python's own reckoning, disjoint splits, levels, one seed."""

import random

import pytest

from tinylora.errors import RequestError
from tinylora.settings import TaskConfig
from tinylora.tasks import load_task
from tinylora.tasks.chains import LARGEST, STEPS, draw, split_of
from tinylora.tasks.check import check


def expression_of(prompt: str) -> str:
    return prompt.removeprefix("What is ").split("?")[0]


def test_the_gold_answer_is_what_python_reckons() -> None:
    task = load_task("chains")
    for problem in [*task.train[:200], *task.test[:200]]:
        assert eval(expression_of(problem.prompt)) == int(problem.gold)
        assert problem.solution is not None
        for equation in problem.solution.splitlines()[:-1]:
            left, right = equation.split(" = ")
            assert eval(left) == int(right)
            assert abs(int(right)) <= LARGEST


def test_train_and_test_are_disjoint_by_construction() -> None:
    task = load_task("chains", TaskConfig(level="1"))
    train = {expression_of(problem.prompt) for problem in task.train[:2000]}
    test = {expression_of(problem.prompt) for problem in task.test[:1000]}
    assert not train & test
    assert {split_of(e) for e in train} == {"train"}
    assert {split_of(e) for e in test} == {"test"}


@pytest.mark.parametrize(
    ("level", "fewest", "most"), [("1", 1, 2), ("3-4", 5, 12), ("hardest", 13, 20), (None, 1, 20)]
)
def test_levels_are_numbers_of_steps(level: str | None, fewest: int, most: int) -> None:
    problems = load_task("chains", TaskConfig(level=level)).train[:300]
    lengths = {problem.columns["num_steps"] for problem in problems}
    assert lengths == set(range(fewest, most + 1))
    for problem in problems:
        fewest_of_level, most_of_level = STEPS[problem.columns["level"]]
        assert fewest_of_level <= problem.columns["num_steps"] <= most_of_level


def test_problems_are_the_same_wherever_they_are_made() -> None:
    first = load_task("chains").train[0]
    assert first == load_task("chains").train[0]
    expression, equations, value = draw(random.Random(3), 3)
    assert (expression, equations[-1].split(" = ")[1]) == (expression, str(value))
    assert eval(expression) == value


def test_the_grader_knows_the_right_answers() -> None:
    task = load_task("chains", TaskConfig(prompt_template="boxed"))
    assert check(task, task.test[:100]).kinds == {"valid": 100}


def test_a_set_of_math_is_not_a_level_of_chains() -> None:
    with pytest.raises(RequestError, match=r"level = simplerl names a set of task math\. Task ch"):
        load_task("chains", TaskConfig(level="simplerl"))
