"""Training under control rewards: what each run followed, the true reward beside it, the end."""

import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tinylora.plotting import COLORS, GREY, panels, tidy
from tinylora.sweep.panels import grouped, mean_interval
from tinylora.sweep.results import Result

TRUE = "the task's own"
FOLLOWED, WATCHED = "the reward that training follows", "the true reward of the same answers"
ENDS = {"final_accuracy": "greedy accuracy, %", "final_accuracy_sampled": "sampled accuracy, %"}
Rows = list[dict[str, Any]]


def draw_controls(results: Sequence[Result]) -> tuple[Figure, Rows]:
    """Two curves over the steps, and two accuracies after them, by what rewarded the run.

    Curves are means over seeds; accuracies are the true ones, with each seed as a point, the mean
    and its 95 % interval.
    """
    by_control = grouped(results, lambda result: result.get("reward_control") or TRUE)
    figure, (row,) = panels("Training under control rewards", 1, 4, (16, 4.6))
    rows: Rows = []
    for axes, label in zip(row[:2], (FOLLOWED, WATCHED), strict=True):
        for color, (control, members) in zip(COLORS, by_control.items(), strict=False):
            means = _mean_curve([_curve(result, label) for result in members])
            axes.plot(range(1, len(means) + 1), means, color=color, marker=".", label=control)
            rows += [
                {"measure": label, "series": control, "x": step, "y": value, "seed": "mean"}
                for step, value in enumerate(means, start=1)
            ]
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.set_ylim(-0.03, 1.03)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy(axes)
    for axes, (measure, label) in zip(row[2:], ENDS.items(), strict=True):
        rows += _draw_ends(axes, by_control, measure)
        axes.set_xlabel(label)
        if axes is not row[2]:
            axes.set_yticklabels([])
    return figure, rows


def _curve(result: Result, label: str) -> list[float]:
    """A run under the true reward has one curve, which is both."""
    curves: dict[str, list[float]] = result["curves"]
    return curves["reward"] if label == FOLLOWED else curves.get("true_reward", curves["reward"])


def _mean_curve(curves: Sequence[Sequence[float]]) -> list[float]:
    """By step, over the runs that took it."""
    longest = max(map(len, curves))
    return [statistics.fmean(c[i] for c in curves if i < len(c)) for i in range(longest)]


def _draw_ends(axes: Any, by_control: dict[str, list[Result]], measure: str) -> Rows:
    rows: Rows = []
    for place, (control, members) in enumerate(by_control.items()):
        values, color = [100 * result[measure] for result in members], COLORS[place % len(COLORS)]
        mean, half = mean_interval(values)
        axes.plot(values, [place] * len(values), "o", color=color, alpha=0.35)
        axes.errorbar([mean], [place], xerr=[half], color=color, marker="s", capsize=3)
        rows += [
            {
                "measure": measure,
                "series": control,
                "x": "",
                "y": value / 100,
                "seed": result["settings"]["seed"],
            }
            for value, result in zip(values, members, strict=True)
        ]
    everyone = [result for members in by_control.values() for result in members]
    base = statistics.fmean(result[measure.replace("final", "base")] for result in everyone)
    axes.axvline(100 * base, color=GREY, linestyle="--", label="base model")
    axes.set_yticks(range(len(by_control)), list(by_control))
    axes.invert_yaxis()
    axes.set_xlim(-3, 103)
    tidy(axes)
    return rows
