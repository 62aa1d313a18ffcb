"""The paper's figures, and ours, from results of runs; each as a picture and as CSV.

A result says by its `figure` where it belongs; runs that belong to no figure are drawn as figure 1.
Each drawer returns the picture and the rows that it shows.
"""

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tinylora.atomic import write_atomically
from tinylora.errors import RequestError
from tinylora.plotting import (
    BLACK,
    BLUE,
    COLORS,
    GREY,
    ORANGE,
    legend_below,
    panels,
    save_png,
    tidy,
)
from tinylora.sweep.control_figure import draw_controls
from tinylora.sweep.panels import (
    Dot,
    draw_dots,
    draw_level,
    grouped,
    label_values,
    mean_interval,
    short,
)
from tinylora.sweep.results import Result

WITH_FULL = {"fig4", "fig7", "fig8", "fig9"}  # that show the full fine-tuning of figure 1
LEVELS = {"fig1", "fig2", *WITH_FULL}  # that show full fine-tuning as dashed lines
LEVEL_STYLES = ("--", "-.", ":")
SHARES = (0.9, 0.95, 0.975)  # of the best accuracy, figure 3
PANEL = 4.6, 4.4  # inches
MEASURES = {"final_accuracy": "greedy accuracy, %", "final_accuracy_sampled": "sampled, %"}
CURVES = {
    "reward": "mean reward",
    "completion_length": "tokens per completion",
    "kl_rollout": "KL, trainer to rollout",
}
Table = list[dict[str, Any]]


@dataclass(frozen=True)
class Plot:
    """A figure of one panel: accuracy against something, in series."""

    title: str
    x_label: str
    x: Callable[[Result], float]
    series: Callable[[Result], str]
    full: Callable[[Result], str] = lambda result: "full fine-tuning"  # names of dashed lines


def setting(result: Result, name: str, default: Any) -> Any:
    """A setting of the run, where it was given."""
    return result["settings"].get(name, default)


def _num_trainable(result: Result) -> float:
    return float(result["num_trainable"])


def _references(result: Result) -> str:
    """What SFT learned from, and how much of it."""
    source = {"task": "annotators", "own": "own samples"}[setting(result, "references", "task")]
    return f"{source}, {setting(result, 'prompts_per_step', 16)} a step"


PLOTS = {
    "fig1": Plot(
        "Accuracy against trained parameters, GRPO",
        "trained parameters",
        _num_trainable,
        lambda r: r["method"],
    ),
    "fig2": Plot(
        "Accuracy against trained parameters, SFT",
        "trained parameters",
        _num_trainable,
        lambda r: f"{r['method']}, {_references(r)}",
        full=lambda r: f"full, {_references(r)}",
    ),
    "fig4": Plot(
        "Accuracy against bytes, by precision and sharing",
        "bytes of the adapter's parameters",
        lambda r: float(r["adapter_bytes"]),
        lambda r: (
            f"{r['store']}, {setting(r, 'sharing', 'tiled')}"
            + (", trained in it" if "precision" in r["settings"] else "")
        ),
    ),
    "fig6": Plot(
        "Accuracy against trained parameters, by model",
        "trained parameters",
        _num_trainable,
        lambda r: f"{Path(r['model']).name} ({short(r['model_parameters'])})",
    ),
    "fig7": Plot(
        "Frozen rank r",
        "frozen rank r",
        lambda r: float(setting(r, "rank", 2)),
        lambda r: f"u = {r['u']}",
    ),
    "fig8": Plot(
        "u against sharing",
        "modules that share one v (n_tie)",
        lambda r: r["num_modules"] * r["u"] / r["num_trainable"],
        lambda r: f"u = {r['u']}",
    ),
    "fig9": Plot(
        "Trained rank",
        "rank",
        lambda r: float(setting(r, "rank", 2)),
        lambda r: r["method"],
    ),
}


def draw_figures(results: Sequence[Result], out: Path) -> list[Path]:
    """Every figure that the results have runs for; returns the pictures.

    Raises:
        RequestError: there is no run to draw.
    """
    shown = [result for result in results if result["is_best_rate"]]
    if not shown:
        raise RequestError(
            "The results do not include a finished run, so there is nothing to draw."
        )
    known = (*PLOTS, *SPECIAL)
    members = grouped(shown, lambda r: r["figure"] if r["figure"] in known else "fig1")
    full = [result for result in members.get("fig1", []) if result["method"] == "full"]
    for name in WITH_FULL & set(members):
        members[name] += full
    if "fig6" in members:
        members["fig3"] = members["fig6"]
    out.mkdir(parents=True, exist_ok=True)
    return [_draw_figure(name, members[name], out) for name in sorted(members)]


def _draw_figure(name: str, results: Sequence[Result], out: Path) -> Path:
    figure, rows = SPECIAL[name](results) if name in SPECIAL else draw_plot(name, results)
    legend_below(figure)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(out / f"{name}.csv", text.getvalue().encode())
    save_png(figure, out / f"{name}.png", dpi=140)
    return out / f"{name}.png"


def _row_of_panels(title: str, count: int) -> tuple[Figure, list[Any]]:
    figure, (axes,) = panels(title, 1, count, (PANEL[0] * count, PANEL[1]))
    return figure, axes


def _base(results: Sequence[Result], measure: str) -> float:
    return statistics.fmean(result[measure.replace("final", "base")] for result in results)


def draw_plot(name: str, results: Sequence[Result]) -> tuple[Figure, Table]:
    """A figure of one panel, greedy beside sampled accuracy."""
    plot = PLOTS[name]
    full = [r for r in results if name in LEVELS and r["method"] == "full"]
    inside = [r for r in results if r not in full] or full
    figure, row = _row_of_panels(plot.title, len(MEASURES))
    rows: Table = []
    for axes, (measure, label) in zip(row, MEASURES.items(), strict=True):
        dots = [Dot(plot.series(r), plot.x(r), r[measure], _seed(r)) for r in inside]
        draw_dots(axes, dots, log_x=True)
        if name != "fig6":  # whose models have a base each
            draw_level(axes, _base(results, measure), "base model", GREY)
        levels = grouped(full, plot.full).items()
        for (level, members), style in zip(levels, LEVEL_STYLES, strict=False):
            draw_level(axes, statistics.fmean(r[measure] for r in members), level, BLACK, style)
        axes.set_xlabel(plot.x_label)
        axes.set_ylabel(label)
        rows += [{"measure": measure, **asdict(dot)} for dot in dots]
    return figure, rows


def draw_smallest(results: Sequence[Result]) -> tuple[Figure, Table]:
    """Figure 3: the smallest update that reaches a share of the best, against model size."""
    figure, (axes,) = _row_of_panels("Smallest update for a share of the best", 1)
    dots = []
    for share in SHARES:
        for size, members in grouped(results, lambda r: float(r["model_parameters"])).items():
            means = {
                count: statistics.fmean(r["final_accuracy"] for r in same)
                for count, same in grouped(members, lambda r: r["num_trainable"]).items()
            }
            least = min(n for n in means if means[n] >= share * max(means.values()))
            dots.append(Dot(f"{100 * share:g} % of the best", size, least, seed=0))
    draw_dots(axes, dots, log_x=True, percent=False)
    axes.set_yscale("log")
    label_values(axes.yaxis, sorted({dot.y for dot in dots}))
    axes.set_xlabel("parameters of the model")
    axes.set_ylabel("trained parameters")
    return figure, [{**asdict(dot), "seed": "mean"} for dot in dots]


def draw_choices(results: Sequence[Result]) -> tuple[Figure, Table]:
    """Choices beside one another: a line for each, seeds as points, mean and interval."""
    figure, (row,) = panels("Choices at about thirteen parameters", 1, len(MEASURES), (11, 5))
    points = grouped(results, _point)
    rows: Table = []
    for axes, (measure, label) in zip(row, MEASURES.items(), strict=True):
        for place, (point, members) in enumerate(points.items()):
            values = [100 * result[measure] for result in members]
            mean, half = mean_interval(values)
            axes.plot(values, [place] * len(values), "o", color=BLUE, alpha=0.35)
            axes.errorbar([mean], [place], xerr=[half], color=ORANGE, marker="s", capsize=3)
            rows += [
                {"measure": measure, "series": point, "y": value / 100, "seed": _seed(result)}
                for value, result in zip(values, members, strict=True)
            ]
        base = 100 * _base(results, measure)
        axes.axvline(base, color=GREY, linestyle="--", label="base model")
        axes.set_yticks(range(len(points)), list(points) if axes is row[0] else [])
        axes.invert_yaxis()
        axes.set_xlim(-3, 103)
        axes.set_xlabel(label)
        tidy(axes)
    return figure, rows


def draw_curves(results: Sequence[Result]) -> tuple[Figure, Table]:
    """Figure 5: reward, length and KL against the step: every seed thin, their mean thick."""
    figure, row = _row_of_panels("Training", len(CURVES))
    rows: Table = []
    for axes, (metric, label) in zip(row, CURVES.items(), strict=True):
        for color, (point, members) in zip(COLORS, grouped(results, _point).items(), strict=False):
            curves = [r["curves"][metric] for r in members if metric in r["curves"]]
            for curve in curves:
                axes.plot(range(1, len(curve) + 1), curve, color=color, alpha=0.25, lw=1)
            means = [statistics.fmean(values) for values in zip(*curves, strict=False)]
            axes.plot(range(1, len(means) + 1), means, color=color, label=point)
            rows += [
                {"measure": metric, "series": point, "x": step, "y": mean}
                for step, mean in enumerate(means, start=1)
            ]
        if metric == "kl_rollout":
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        tidy(axes)
    return figure, rows


def draw_spent(results: Sequence[Result]) -> tuple[Figure, Table]:
    """Accuracy against rollouts and against seconds, by algorithm: a panel for each count."""
    counts = sorted({result["num_trainable"] for result in results})
    size = (4 * len(counts), 7)
    figure, rows_of_axes = panels("Accuracy against what was spent", 2, len(counts), size)
    rows: Table = []
    for column, count in enumerate(counts):
        here = [result for result in results if result["num_trainable"] == count]
        for axes_of_counts, spent in zip(rows_of_axes, ("rollouts", "seconds"), strict=True):
            axes = axes_of_counts[column]
            dots = [
                dot
                for members in grouped(here, _point).values()
                for dot in _spent_dots(members, spent, _with_sigma(members[0], here))
            ]
            draw_dots(axes, dots, log_x=False)
            axes.set_title(f"{count} parameter{'s' * (count > 1)}", fontsize="medium")
            axes.set_xlabel(spent)
            axes.set_ylabel("validation, greedy, %")
            rows += [{"numbers": count, "measure": spent, **asdict(dot)} for dot in dots]
    return figure, rows


def _with_sigma(result: Result, results: Sequence[Result]) -> str:
    """The algorithm, and which of the first steps (`sigma`) that were tried it had."""
    tried = sorted({r["settings"]["sigma"] for r in results if "sigma" in r["settings"]})
    place = {tried[0]: ", small sigma", tried[-1]: ", large sigma"} if len(tried) > 1 else {}
    return str(result["algorithm"]) + place.get(setting(result, "sigma", None), "")


def _spent_dots(members: Sequence[Result], spent: str, label: str) -> list[Dot]:
    """The validations of a point's runs; a step has the seeds' mean seconds, so they share x."""
    seconds = statistics.fmean(value for run in members for value in run["curves"]["seconds"])
    a_step = {"rollouts": members[0]["rollouts_per_step"], "seconds": seconds}[spent]
    return [
        Dot(label, step * a_step, value, _seed(run))
        for run in members
        for step, value in enumerate(run["curves"].get("validation_accuracy", []), start=1)
        if value is not None
    ]


def _point(result: Result) -> str:
    return str(result.get("point", "run"))


def _seed(result: Result) -> int:
    return int(setting(result, "seed", 0))


SPECIAL: dict[str, Callable[[Sequence[Result]], tuple[Figure, Table]]] = {
    "fig3": draw_smallest,
    "fig5": draw_curves,
    "choices": draw_choices,
    "controls": draw_controls,
    "spent": draw_spent,
}
