"""Right, wrong, could not judge."""

import math

import pytest

from tinylora.rewards.verdict import Verdict


def test_right_is_wholly_right() -> None:
    scores = {1.0: True, 0.5: False, 0.0: False, None: False}
    assert {score: Verdict(score).is_right for score in scores} == scores


def test_the_cause_is_more_than_a_word() -> None:
    assert Verdict(None, "IE", {"message": "no box"}).cause == "IE: no box"
    assert Verdict(None, "the gold answer is empty").cause == "the gold answer is empty"
    assert Verdict(None).cause == "no reason given"


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_is_a_finite_number(score: float) -> None:
    with pytest.raises(ValueError, match="but a score is a finite number, or None where"):
        Verdict(score)
