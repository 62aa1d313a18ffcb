"""One panel: seeds as points, their mean as a line, its 95 % interval as a bar.

Colours are Okabe and Ito's, told apart with any kind of colour vision, and every series has a
marker of its own beside its colour.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # by degrees of freedom


@dataclass(frozen=True)
class Dot:
    """One run in a panel."""

    series: str
    x: float
    y: float
    seed: int


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and the half width of its 95 % interval by Student's t; nan for a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan
    t = T_95[min(len(values) - 2, len(T_95) - 1)]
    return mean, t * statistics.stdev(values) / math.sqrt(len(values))


def groups(dots: Sequence[Dot]) -> dict[str, dict[float, list[float]]]:
    """series -> x -> the values of its seeds, both in order."""
    held: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for dot in sorted(dots, key=lambda dot: dot.x):
        held[dot.series][dot.x].append(dot.y)
    names = list(dict.fromkeys(dot.series for dot in dots))
    return {name: dict(held[name]) for name in names}


def draw_dots(axes: Any, dots: Sequence[Dot], *, log_x: bool, percent: bool = True) -> None:
    """The panel's series; the legend is the caller's."""
    scale = 100 if percent else 1
    for index, (name, by_x) in enumerate(groups(dots).items()):
        color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
        for x, values in by_x.items():
            ys = [scale * value for value in values]
            axes.plot([x] * len(ys), ys, marker, color=color, alpha=0.35, markersize=4)
        means = {x: mean_interval(values) for x, values in by_x.items()}
        axes.errorbar(
            list(means),
            [scale * mean for mean, _ in means.values()],
            yerr=[0 if math.isnan(half) else scale * half for _, half in means.values()],
            color=color,
            marker=marker,
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


def tidy(axes: Any) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def label_values(axis: Any, values: Sequence[float]) -> None:
    """The values themselves where they are few, and not too near one another; else powers of 10."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

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
    """13, 1.5k, 850k, 1.8M"""
    for factor, unit in ((1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.{3 if value >= 100 * factor else 2}g}{unit}"
    return f"{value:g}"
