"""Estimators against hand-computed numbers and against slow formulas that enumerate."""

import itertools
import math

import numpy as np
import pytest

from tinylora.evaluate.estimators import (
    binomial_p,
    bootstrap,
    majority,
    normal_form,
    paired,
    pass_at_k,
    powers_of_two,
    share,
    wilson,
)


def test_wilson_by_hand() -> None:
    """8 of 10: (0.8 + z2/20 -+ z sqrt(0.016 + z2/400)) / (1 + z2/10), z = 1.96."""
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0.0, 512) == pytest.approx((0.0, 0.00745), abs=1e-5)
    assert wilson(1.0, 512)[1] == pytest.approx(1.0)


def test_answers_that_go_together_make_a_wider_interval() -> None:
    alike = share([[1.0] * 8] * 16 + [[0.0] * 8] * 16)  # worth 32 answers, not 256
    assert (alike.low, alike.high) == pytest.approx(wilson(0.5, 32), abs=0.01)
    apart = share([[1.0, 0.0] * 4] * 32)
    assert (apart.low, apart.high) == wilson(0.5, 256)


def test_one_answer_a_problem_is_plain_wilson() -> None:
    found = share([[1.0]] * 3 + [[0.0]] + [[]])
    assert (found.value, found.low, found.high) == (0.75, *wilson(0.75, 4))


def test_problems_of_the_same_share_are_worth_all_their_answers() -> None:
    half = share([[0.5]] * 10, num_answers=40)  # pass@k of ten problems, four samples each
    assert (half.low, half.high) == wilson(0.5, 40)


def test_the_bootstrap_covers_the_mean_of_its_own_distribution() -> None:
    """The interval of a mean is mean -+ 1.96 s / sqrt(n), where n is large."""
    values = np.random.default_rng(3).exponential(10.0, size=2000)
    half = 1.96 * values.std() / math.sqrt(len(values))
    expected = (values.mean() - half, values.mean() + half)
    assert bootstrap(list(values)) == pytest.approx(expected, abs=0.1 * half)
    assert bootstrap(list(values)) == bootstrap(list(values))


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 2), (5, 2, 4), (6, 0, 3), (4, 4, 2)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(n: int, c: int, k: int) -> None:
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_needs_k_samples() -> None:
    with pytest.raises(ValueError, match=r"k = 5, but pass@k of 4 samples has k in 1..4"):
        pass_at_k(4, 1, 5)


def test_powers_of_two() -> None:
    assert (powers_of_two(1), powers_of_two(2), powers_of_two(17)) == ([], [2], [2, 4, 8, 16])


@pytest.mark.parametrize(
    ("answers", "rights", "credit"),
    [
        (["3", "3", "4"], [True, True, False], 1.0),
        (["3", "4", "4"], [True, False, False], 0.0),
        (["3", "4"], [True, False], 0.5),  # a tie is shared
        (["3", "4", "5", "5", "3"], [True, False, False, False, True], 0.5),
        (["1/2", "0.5", "7", "7", r"\frac{1}{2}"], [True, True, False, False, True], 1.0),
        ([None, None, "3"], [False, False, True], 1.0),  # what was not extracted does not vote
        ([None, None], [False, False], 0.0),
        (["3", "3"], [False, True], 1.0),  # the same answer, once in a format that was refused
    ],
)
def test_majority_by_hand(answers: list[str | None], rights: list[bool], credit: float) -> None:
    assert majority(answers, rights) == credit


@pytest.mark.parametrize(
    "writings",
    [
        ["1/2", "0.5", ".50", r"\frac{1}{2}", " 2 / 4"],
        ["1234", "1,234", "1,234.0", "01234"],
        ["-3", "-3.0", r"-\frac{6}{2}"],
        ["(1,2)", "(1, 2)"],
        ["x+1", " x + 1"],
    ],
)
def test_writings_of_one_answer(writings: list[str]) -> None:
    assert len({normal_form(text) for text in writings}) == 1


def test_different_answers_stay_different() -> None:
    answers = ["12", "1,2", "1/0", "0", "-1/2", "1/2", "x", "X", "1e9", "1000000000", ""]
    assert len({normal_form(text) for text in answers}) == len(answers)


def test_an_answer_of_a_million_digits_costs_nothing() -> None:
    hostile = ["9" * 1_000_000, "1e999999999", "9" * 60 + "/" + "7" * 60]
    assert [normal_form(text) for text in hostile] == hostile


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 3), (2, 7), (9, 1)])
def test_the_binomial_p_by_enumeration(first: int, second: int) -> None:
    """All splits of n problems that are at least as uneven, each with the chance C(n, i) / 2^n."""
    n, gap = first + second, abs(first - second)
    chance = sum(math.comb(n, i) for i in range(n + 1) if abs(n - 2 * i) >= gap) / 2**n
    assert binomial_p(first, second) == pytest.approx(chance)


def test_thousands_of_changes_do_not_overflow() -> None:
    assert binomial_p(4000, 1000) < 1e-300
    assert binomial_p(2500, 2500) == 1.0


def test_a_paired_test_by_hand() -> None:
    first = [1.0] * 6 + [0.0] + [1.0, 0.0, None]
    second = [0.0] * 6 + [1.0] + [1.0, None, 0.0]
    found = paired(first, second)
    assert (found.num_pairs, found.only_first, found.only_second) == (8, 6, 1)
    assert found.p_value == pytest.approx(2 * (1 + 7) / 2**7)
    assert found.difference.value == pytest.approx(5 / 8)
    assert found.difference.low < 5 / 8 < found.difference.high


def test_policies_without_a_common_problem_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="No problem was judged for both"):
        paired([None, 1.0], [1.0, None])
