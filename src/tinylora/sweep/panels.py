"""One panel: seeds as points, their mean as a line, its 95 % interval as a bar.

Every series has a marker of its own beside its colour.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tinylora.plotting import COLORS, tidy

Item = TypeVar("Item")
Key = TypeVar("Key")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Dot:
    """One run in a panel."""

    series: str
    x: float
    y: float
    seed: int


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """The items of each key, both in the order in which they come."""
    groups: dict[Key, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and the half width of its 95 % interval by Student's t; nan for a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan
    from scipy import stats  # type: ignore[import-untyped]

    t = float(stats.t.ppf(0.975, len(values) - 1))
    return mean, t * statistics.stdev(values) / math.sqrt(len(values))


def seen_from(differences: Sequence[float], power: float = 0.8) -> float:
    """The true difference that a test of these pairs finds in the share `power` of repetitions.

    The test is Student's paired t, two-sided, at 5 %, with as many pairs of this spread, and it is
    found with its own sign; nan for a single pair. The spread is itself an estimate: of three
    pairs, a rough one.
    """
    count = len(differences)
    if count < 2:
        return math.nan
    from scipy import optimize, stats

    df = count - 1
    critical = float(stats.t.ppf(0.975, df))

    def lacking(shift: float) -> float:
        """Power at a difference of so many standard errors, minus what is wanted."""
        return float(stats.nct.sf(critical, df, shift)) - power

    shift = float(optimize.brentq(lacking, 0, 32))  # 16 for two pairs
    return shift * statistics.stdev(differences) / math.sqrt(count)


def draw_dots(axes: Any, dots: Sequence[Dot], *, log_x: bool, percent: bool = True) -> None:
    """The panel's series; the legend is the caller's."""
    scale = 100 if percent else 1
    for index, (name, members) in enumerate(grouped(dots, lambda dot: dot.series).items()):
        look = {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}
        by_x = grouped(sorted(members, key=lambda dot: dot.x), lambda dot: dot.x)
        intervals = [mean_interval([scale * dot.y for dot in at_x]) for at_x in by_x.values()]
        for dots_at_x in by_x.values():
            points = [[dot.x for dot in dots_at_x], [scale * dot.y for dot in dots_at_x]]
            axes.plot(*points, **look, linestyle="none", alpha=0.35, markersize=4)
        axes.errorbar(
            list(by_x),
            [mean for mean, _ in intervals],
            yerr=[0 if math.isnan(half) else half for _, half in intervals],
            **look,
            linewidth=1.5,
            capsize=3,
            label=name,
        )
    if log_x:
        axes.set_xscale("log")
        label_values(axes.xaxis, sorted({dot.x for dot in dots}))
    if percent:
        axes.set_ylim(-3, 103)
    tidy(axes)


def draw_level(axes: Any, value: float, label: str, color: str, style: str = "--") -> None:
    """A dashed line across the panel."""
    axes.axhline(100 * value, color=color, linestyle=style, linewidth=1.2, label=label)


def label_values(axis: Any, values: Sequence[float]) -> None:
    """The values themselves where they are few, and not too near one another; else powers of 10."""
    kept: list[float] = []
    least = max(1.6, (values[-1] / values[0]) ** (1 / 10)) if values else 1.6
    for value in values:
        if not kept or value / kept[-1] > least:
            kept.append(value)
    if kept and len(kept) <= 10:
        axis.set_major_locator(FixedLocator(kept))
        axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axis.set_minor_locator(NullLocator())


def short(value: float) -> str:
    """13, 1.5k, 850k, 1.8M, 7.6B"""
    for factor, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.{3 if value >= 100 * factor else 2}g}{unit}"
    return f"{value:g}"
