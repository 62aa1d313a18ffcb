"""What answers add up to: shares with intervals, pass@k, majority votes, paired tests.

Pure functions of numbers. `_P` runs over problems, `_G` over the answers to one. Answers to one
problem go together, so every interval is over problems: Wilson's for shares, for as many
independent answers as these are worth; the bootstrap for means that may leave 0..1.

Not covered: tests of more than two policies at once.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

Z_95 = 1.959964
NUM_RESAMPLES = 1000
NUMBER = re.compile(r"(-?)(\d{0,50}\.\d{1,50}|\d{1,50})")
RATIO = re.compile(r"(-?)(?:\\frac\{(\d{1,50})\}\{(\d{1,50})\}|(\d{1,50})/(\d{1,50}))")


@dataclass(frozen=True)
class Figure:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """Two policies on the same problems; `difference` is first minus second."""

    num_pairs: int
    only_first: int
    only_second: int
    p_value: float
    difference: Figure


def share(values_P_G: Sequence[Sequence[float]], num_answers: int | None = None) -> Figure:
    """The mean of numbers in 0..1 with Wilson's interval.

    The number of independent answers is n = p (1 - p) / var(mean over problems), at least one a
    problem and at most all of them. Problems without numbers are left out.

    Args:
        num_answers: how many answers the numbers rest on; None: as many as there are numbers.
    """
    rows_P = [row for row in values_P_G if row]
    count = sum(map(len, rows_P))
    p = sum(map(sum, rows_P)) / count
    means_P = np.array([sum(row) / len(row) for row in rows_P])
    num_effective: float = len(means_P)
    if len(means_P) > 1 and 0 < p < 1:
        variance = float(means_P.var(ddof=1)) / len(means_P)
        most = num_answers or count
        num_effective = max(len(means_P), min(p * (1 - p) / variance, most) if variance else most)
    return Figure(p, *wilson(p, num_effective))


def mean(values_P: Sequence[float]) -> Figure:
    """The mean over problems with its bootstrap interval."""
    return Figure(sum(values_P) / len(values_P), *bootstrap(values_P))


def wilson(p: float, count: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share p among `count` independent answers.

    By hand, because `count` need not be whole, which SciPy's `proportion_ci` asks for.
    """
    z2 = Z_95**2
    middle = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = Z_95 / (1 + z2 / count) * math.sqrt(p * (1 - p) / count + z2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(values_P: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a mean, by drawing as many problems again and again (percentiles)."""
    if len(values_P) == 1:  # which SciPy refuses: every draw is the same
        return float(values_P[0]), float(values_P[0])
    from scipy import stats  # type: ignore[import-untyped]

    low, high = stats.bootstrap(
        (values_P,),
        np.mean,
        n_resamples=NUM_RESAMPLES,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(low), float(high)


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """The chance that one of k samples is right: 1 - C(n - c, k) / C(n, k), without bias.

    Source: Chen et al., Evaluating Large Language Models Trained on Code, equation 1.

    Raises:
        ValueError: k is not in 1..n.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"k = {k}, but pass@k of {num_samples} samples has k in 1..{num_samples}.")
    return 1 - math.comb(num_samples - num_right, k) / math.comb(num_samples, k)


def powers_of_two(most: int) -> list[int]:
    """2, 4, 8, ... up to `most`."""
    return [2**i for i in range(1, most.bit_length())]


def majority(answers_G: Sequence[str | None], is_right_G: Sequence[bool]) -> float:
    """Whether the most frequent answer is right, 0..1.

    Equal are answers of the same `normal_form`; they are right if the grader took one of them. An
    answer that could not be extracted (None) does not vote; if none votes, the problem is lost.
    Ties are shared: of t answers with the most votes, each counts 1 / t.
    """
    rights: dict[str, list[bool]] = defaultdict(list)
    for answer, is_right in zip(answers_G, is_right_G, strict=True):
        if answer is not None:
            rights[normal_form(answer)].append(is_right)
    most = max(map(len, rights.values()), default=0)
    winners = [any(found) for found in rights.values() if len(found) == most]
    return sum(winners) / len(winners) if winners else 0.0


def normal_form(answer: str) -> str:
    """The answer by value where it is a number or a ratio, else as text without spaces.

    `1/2`, `\\frac{1}{2}` and `0.50` are one. The grader has taken layout off before. Nothing is
    evaluated, so no answer can be expensive.
    """
    text = re.sub(r"\s", "", answer)
    number = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    if found := NUMBER.fullmatch(number):
        return str(Fraction(found[1] + found[2]))
    found = RATIO.fullmatch(number)
    if found and int(found[3] or found[5]):
        return str(Fraction(f"{found[1]}{found[2] or found[4]}/{found[3] or found[5]}"))
    return text


def paired(first_P: Sequence[float | None], second_P: Sequence[float | None]) -> Paired:
    """McNemar's test of two policies, and the mean difference with its bootstrap interval.

    Args:
        first_P, second_P: for each problem the share of right answers, None where none could be
            judged; such problems are left out. Where both shares are 0 or 1 the test counts who
            alone is right, else who is right more often (then it is the sign test).

    Raises:
        ValueError: no problem was judged for both.
    """
    pairs = [
        (a, b) for a, b in zip(first_P, second_P, strict=True) if a is not None and b is not None
    ]
    if not pairs:
        raise ValueError("No problem was judged for both policies, so they cannot be compared.")
    only = Counter("first" if a > b else "second" for a, b in pairs if a != b)
    p_value = binomial_p(only["first"], only["second"])
    difference = mean([a - b for a, b in pairs])
    return Paired(len(pairs), only["first"], only["second"], p_value, difference)


def binomial_p(first: int, second: int) -> float:
    """Two-sided exact p of so uneven a split, or a worse one, where both sides are as likely."""
    from scipy import stats

    return float(stats.binomtest(first, first + second).pvalue) if first + second else 1.0
