"""The arithmetic of means and differences over seeds."""

import math

import pytest

from tinylora.sweep.panels import mean_interval, seen_from


def test_the_interval_of_three_is_students() -> None:
    mean, half = mean_interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.302653 / math.sqrt(3), rel=1e-6))
    assert math.isnan(mean_interval([1.0])[1])


@pytest.mark.parametrize(("count", "size"), [(3, 3.264), (5, 1.682), (1000, 0.0887)])
def test_the_difference_that_would_be_seen_is_that_of_power_tables(count: int, size: float) -> None:
    """In standard deviations, for a paired t-test at 5 % with a power of 80 %."""
    values = [float(i % 2) for i in range(count)]
    mean = sum(values) / count
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (count - 1))
    assert seen_from(values) / deviation == pytest.approx(size, rel=1e-3)
    assert seen_from([10 * v + 5 for v in values]) == pytest.approx(10 * seen_from(values))


def test_a_single_pair_shows_nothing() -> None:
    assert math.isnan(seen_from([1.0]))
    assert seen_from([0.5, 0.5, 0.5]) == 0
