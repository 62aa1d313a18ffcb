"""The pocket task: its arithmetic, its split, its grader."""

import random
import re

import pytest

import pages
from tinylora.tasks import annotators
from tinylora.tasks import pocket as task
from tinylora.tasks.pocket import Skeleton

EXAMPLE = Skeleton(12, (("+", 7), ("-", 4), ("*", 3)))


def test_equations_are_written_out_step_by_step():
    assert EXAMPLE.values() == [12, 19, 15, 45]
    assert EXAMPLE.equations() == ["12+7=19", "19-4=15", "15*3=45"]
    assert task.careful_solution(EXAMPLE) == "12+7=19\n19-4=15\n15*3=45\n#### 45"


def test_a_problem_is_the_same_on_every_machine():
    problem = task.make().test[0]
    assert problem.prompt == ("Tom has 3 coins. Tom sells 2. Tom finds 4 more. How many coins now?")
    assert problem.gold == "5"


def test_every_solution_is_right_and_within_range():
    problems = task.make().train[:2000]
    for problem in problems:
        assert problem.solution is not None
        assert task.grade(problem.gold, problem.solution).score == 1.0
        for left, sign, right, result in re.findall(r"(\d+)([-+*])(\d+)=(\d+)", problem.solution):
            assert task._apply(int(left), sign, int(right)) == int(result)
            assert 0 <= int(result) <= task.MAX_VALUE
        assert task.grade(problem.gold, problem.columns["careful"]).score == 1.0
    assert {problem.columns["careful"].count("=") for problem in problems} == {2, 3, 4}


def test_annotators_write_in_their_own_ways():
    steps = EXAMPLE.steps()[:2]
    written = {a.__name__: a(12, steps, "eggs") for a in annotators.ANNOTATORS}
    assert written == {
        "narrator": "12+7 is 19 eggs now. 19-4 is 15 eggs now.",
        "backwards": "19=12+7, 15=19-4",
        "airy": "12 + 7 = 19\n19 - 4 = 15\nThe answer is 15",
        "headline": "The answer is 15, as 12+7=19, 19-4=15.",
        "terse": "12, 19, 15",
    }
    problems = task.make().train[:500]
    share = sum(p.solution.startswith("The answer is") for p in problems) / 500
    assert 0.15 < share < 0.25
    assert not any(p.solution == p.columns["careful"] for p in problems)


def test_train_and_test_share_no_skeleton():
    def skeletons(split):
        rng = random.Random(1)
        return {task.draw_skeleton(rng, split) for _ in range(3000)}

    train, test = skeletons("train"), skeletons("test")
    assert not train & test
    assert {s.split() for s in train} == {"train"}
    assert {s.split() for s in test} == {"test"}


def test_pages_never_show_a_test_skeleton_and_keep_one_habit():
    rng = random.Random(0)
    for _ in range(200):
        page = pages.draw_page(rng, 4)
        assert len({task.habit(answer) for _, answer in page}) == 1
        assert "none" not in {task.habit(answer) for _, answer in page}


@pytest.mark.parametrize(
    ("completion", "score"),
    [
        ("1+1=2\n#### 2", 1.0),
        ("#### 2", 1.0),
        ("####2", 1.0),
        ("#### 3", 0.0),
        ("#### 3 #### 2", 0.0),  # the first answer counts: listing guesses does not pay
        ("The answer is 2", 0.0),
        ("", 0.0),
        ("#### 22", 0.0),
        ("#### 02", 1.0),
    ],
)
def test_grade(completion, score):
    assert task.grade("2", completion).score == score


def test_problems_are_a_sequence():
    problems = task.make().test
    assert problems[-1] == problems[len(problems) - 1]
    assert problems[2:4] == [problems[2], problems[3]]
    with pytest.raises(IndexError, match="4096"):
        problems[len(problems)]


def test_habits_are_mixed_as_stated():
    rng = random.Random(0)
    habits = [task.habit(pages.draw_page(rng, 1)[0][1]) for _ in range(2000)]
    for name, (weight, _) in pages.HABITS.items():
        assert abs(habits.count(name) / 2000 - weight / 100) < 0.04
