"""The tables of small numbers: right by Python's own reckoning, and whole pairs held out."""

import re

from tinylora.settings import TaskConfig
from tinylora.tasks import load_task
from tinylora.tasks.check import check
from tinylora.tasks.task import Problem

TASK = load_task("tables")


def expression_of(problem: Problem) -> str:
    return problem.prompt.removeprefix("What is ").split("?")[0]


def pair_of(problem: Problem) -> tuple[int, ...]:
    left, _, right = expression_of(problem).split()
    return tuple(sorted((int(left), int(right))))


def test_every_fact_of_the_tables_occurs_once_and_is_right() -> None:
    problems = [*TASK.train, *TASK.test]
    assert len({expression_of(problem) for problem in problems}) == len(problems) == 2 * 11 * 11
    for problem in problems:
        assert eval(expression_of(problem)) == int(problem.gold)
        assert problem.solution == (
            f"{expression_of(problem)} = {problem.gold}\n#### {problem.gold}"
        )
    assert {n for problem in problems for n in pair_of(problem)} == set(range(2, 13))


def test_whole_pairs_are_held_out() -> None:
    pairs = {name: {pair_of(p) for p in getattr(TASK, name)} for name in ("train", "test")}
    assert not pairs["train"] & pairs["test"]
    assert len(pairs["test"]) == 22
    for split in (TASK.train[:64], TASK.test[:64]):  # mixed, whichever problems come first
        symbols = [re.sub(r"[\d ]", "", expression_of(problem)) for problem in split]
        assert all(symbols.count(symbol) >= 24 for symbol in "+*")


def test_it_asks_for_the_calculation_and_grades_what_follows_the_hashes() -> None:
    problem = next(p for p in TASK.train if expression_of(p) == "6 * 6")
    asked = 'What is 6 * 6? Show the calculation. End with "#### " and the number.'
    assert problem.prompt == asked
    said = ["6 * 6 = 36\n#### 36", "6 * 6 = 36", "#### 35", "6 * 6 = 36\n#### 6"]
    assert TASK.grade_many is not None
    verdicts = TASK.grade_many([problem] * len(said), said)
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0, 0.0, 0.0]
    boxed = load_task("tables", TaskConfig(prompt_template="boxed"))
    assert check(boxed, boxed.test[:40]).kinds == {"valid": 40}
    assert check(TASK, TASK.test[:40]).kinds == {"valid": 40}
