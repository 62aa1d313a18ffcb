"""The figures of an evaluation, by hand."""

from collections.abc import Sequence
from typing import Any

import pytest

from tinylora.evaluate.estimators import wilson
from tinylora.evaluate.records import Evaluation, Record, num_different
from tinylora.rewards.math import grade_many
from tinylora.rewards.verdict import Verdict


def record(score: float | None, text: str = "", **details: Any) -> Record:
    return Record(text, Verdict(score, details=details), len(text), False, None)


def records(scores: Sequence[Sequence[float | None]]) -> Evaluation:
    return Evaluation([[record(score) for score in row] for row in scores])


def test_only_judged_answers_count() -> None:
    evaluation = records([[1.0], [0.0], [0.5], [None]])
    assert evaluation.accuracy == pytest.approx(1 / 3)
    assert evaluation.num_unjudged == 1
    assert evaluation.right_share_P == [1.0, 0.0, 0.0, None]
    assert evaluation.figures["mean_score"].value == pytest.approx(0.5)


def test_pass_at_k_by_hand() -> None:
    """Right: 1 of 4, 0 of 4, and 1 of the 2 that were judged."""
    figures = records([[1, 0, 0, 0], [0] * 4, [1, 0, None, None]]).figures
    assert list(figures) == ["accuracy", "pass@2", "pass@4", "mean_length", "truncated_share"]
    assert figures["accuracy"].value == pytest.approx(2 / 10)
    assert figures["pass@2"].value == pytest.approx((1 / 2 + 0 + 1) / 3)
    assert figures["pass@4"].value == pytest.approx((1 + 0) / 2)  # the third has too few
    assert (figures["pass@4"].low, figures["pass@4"].high) == pytest.approx(wilson(0.5, 2))


def test_a_greedy_answer_has_no_pass_at_k() -> None:
    assert list(records([[1.0], [0.0]]).figures) == ["accuracy", "mean_length", "truncated_share"]


def test_strict_and_lenient_shares_and_the_vote() -> None:
    """Scored strictly: what is right in another format has no answer that counts, and no vote."""
    boxed = record(1.0, answer="5", strict=1.0, lenient=1.0)
    bare = record(0.0, answer=None, strict=0.0, lenient=1.0)
    wrong = record(0.0, answer="6", strict=0.0, lenient=None)  # lenient: could not judge
    figures = Evaluation([[boxed, bare, bare], [boxed, wrong, wrong]]).figures
    assert figures["majority@3"].value == 0.5
    assert figures["strict"].value == figures["accuracy"].value == pytest.approx(2 / 6)
    assert figures["lenient"].value == pytest.approx(4 / 4)


def test_mathematical_verdicts_become_figures() -> None:
    """The real grader: writings of one half are one answer, which outvotes a third."""
    texts = [r"\boxed{0.5}", r"so \boxed{\frac{1}{2}}", r"\boxed{1/3}", "#### 0.5"]
    verdicts = grade_many([("1/2", text) for text in texts], "boxed")
    row = [Record(text, v, 1, False, None) for text, v in zip(texts, verdicts, strict=True)]
    figures = Evaluation([row]).figures
    assert figures["strict"].value == figures["accuracy"].value == 0.5
    assert figures["lenient"].value == 0.75
    assert figures["majority@4"].value == 1.0


def test_the_majority_leaves_out_what_was_not_judged() -> None:
    unjudged = record(None, answer="6")
    figures = Evaluation([[record(1.0, answer="5"), unjudged, unjudged], [unjudged] * 3]).figures
    assert figures["majority@3"].value == 1.0


def test_programs_have_a_compile_rate_and_a_mean_score() -> None:
    scores = [(1.0, True), (0.5, True), (0.0, True), (0.0, False)]
    figures = Evaluation([[record(score, compiled=c)] for score, c in scores]).figures
    assert figures["compiled"].value == 0.75
    assert figures["mean_score"].value == pytest.approx(0.375)
    assert figures["accuracy"].value == 0.25


def test_different_answers_are_counted() -> None:
    first = Evaluation([[record(1, "a"), record(1, "b")], [record(1, "c"), record(1, "d")]])
    second = Evaluation([[record(1, "a"), record(0, "x")], [record(0, "c"), record(1, "d")]])
    assert num_different(first, second) == 1
