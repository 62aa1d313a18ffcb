"""Reward controls: what each one pays for, the same in every process, on every task."""

from collections.abc import Sequence
from typing import Any

import pytest

from tinylora.errors import RequestError
from tinylora.rewards.verdict import Verdict
from tinylora.tasks import Problem, Task, load_task
from tinylora.tasks.controls import controlled, partner_of
from tinylora.tasks.task import grader_of

POCKET = load_task("pocket")
FIRST, SECOND = POCKET.train[0], POCKET.train[1]


def scores(task: Task, problem: Problem, texts: Sequence[str]) -> list[float | None]:
    verdicts = grader_of(task)([problem] * len(texts), texts)
    return [verdict.score for verdict in verdicts]


def wrong_for(problem: Problem) -> str:
    return f"#### {int(problem.gold) + 1}"


def test_format_pays_for_an_answer_whatever_it_says() -> None:
    task = controlled(POCKET, "format", 0)
    assert scores(task, FIRST, [f"#### {FIRST.gold}", wrong_for(FIRST), FIRST.gold, ""]) == [
        1, 1, 0, 0,
    ]  # fmt: skip


def test_incorrect_pays_for_a_wrong_answer_in_the_right_format() -> None:
    task = controlled(POCKET, "incorrect", 0)
    assert scores(task, FIRST, [f"#### {FIRST.gold}", wrong_for(FIRST), FIRST.gold, ""]) == [
        0, 1, 0, 0,
    ]  # fmt: skip


def test_random_is_a_fair_coin_that_falls_the_same_way_again() -> None:
    texts = [f"#### {n}" for n in range(2000)]
    once = scores(controlled(POCKET, "random", 5), FIRST, texts)
    again = scores(controlled(POCKET, "random", 5), FIRST, texts[::-1])[::-1]
    assert once == again
    assert set(once) == {0.0, 1.0}
    assert 900 < sum(map(float, filter(None, once))) < 1100  # 4.5 standard deviations
    assert once != scores(controlled(POCKET, "random", 6), FIRST, texts)
    assert once != scores(controlled(POCKET, "random", 5), SECOND, texts)


def test_shuffled_grades_by_the_answer_of_another_problem() -> None:
    task = controlled(POCKET, "shuffled", 0)
    for problem in POCKET.train[:20]:
        partner = partner_of(problem, POCKET.train, 0)
        assert partner.identity != problem.identity
        assert scores(task, problem, [f"#### {partner.gold}"]) == [1.0]
        expected = float(partner.gold == problem.gold)
        assert scores(task, problem, [f"#### {problem.gold}"]) == [expected]


def test_shuffled_answers_say_nothing_of_the_right_ones() -> None:
    problems = POCKET.train[:400]
    golds = [p.gold for p in problems]
    others = [partner_of(p, POCKET.train, 1).gold for p in problems]
    same = sum(a == b for a, b in zip(golds, others, strict=True))
    assert same < 40  # of 400; the answers are 1 to 49


def test_majority_pays_for_agreement_within_the_problem() -> None:
    task = controlled(POCKET, "majority", 0)
    problems = [FIRST, FIRST, FIRST, SECOND, FIRST, SECOND]
    texts = ["#### 7", "#### 07", "#### 8", "#### 8", "no answer", "#### 8"]
    verdicts = grader_of(task)(problems, texts)
    assert [verdict.score for verdict in verdicts] == [1, 1, 0, 1, 0, 1]


def test_a_tie_is_broken_the_same_way_in_any_order() -> None:
    task = controlled(POCKET, "majority", 0)
    texts = ["#### 7", "#### 8", "#### 9"]
    paid = dict(zip(texts, scores(task, FIRST, texts), strict=True))
    assert sum(map(float, filter(None, paid.values()))) == 1
    assert dict(zip(texts[::-1], scores(task, FIRST, texts[::-1]), strict=True)) == paid


@pytest.mark.parametrize("control", ["random", "format", "incorrect", "shuffled", "majority"])
def test_the_true_score_stays_beside_the_reward(control: str) -> None:
    task = controlled(POCKET, control, 0)
    right, wrong = grader_of(task)([FIRST, FIRST], [f"#### {FIRST.gold}", wrong_for(FIRST)])
    assert (right.details["true_score"], wrong.details["true_score"]) == (1.0, 0.0)
    assert {right.details["control"], wrong.details["control"]} == {control}
    assert (task.train, task.test) == (POCKET.train, POCKET.test)


def blind(**changes: Any) -> Task:
    problems = [Problem("a", "1"), Problem("b", "2")]
    return Task("blind", problems, problems, lambda gold, text: Verdict(None, "dark"), **changes)


def test_what_cannot_be_judged_is_paid_where_the_grader_is_not_asked() -> None:
    task = blind(answer_of=str.strip)
    found = {
        control: scores(controlled(task, control, 0), task.train[0], ["x"])
        for control in ("format", "majority", "incorrect", "shuffled")
    }
    assert found == {"format": [1], "majority": [1], "incorrect": [None], "shuffled": [None]}


def test_a_task_that_does_not_say_what_an_answer_is_has_two_controls() -> None:
    for control in ("format", "incorrect", "majority"):
        with pytest.raises(
            RequestError, match=rf"reward_control = {control} needs the answer in a"
        ):
            controlled(blind(), control, 0)
    controlled(blind(), "random", 0)
    controlled(blind(), "shuffled", 0)


def test_an_unknown_control_is_refused() -> None:
    with pytest.raises(RequestError, match="reward_control = rnd, but it must be random, format,"):
        controlled(POCKET, "rnd", 0)
