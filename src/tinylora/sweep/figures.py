"""The paper's figures, and ours, from records of runs; each as a picture and as CSV.

A record says by its `figure` where it belongs; runs that belong to no figure are drawn as figure 1.
"""

import csv
import io
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tinylora.atomic import write_atomically
from tinylora.errors import RequestError
from tinylora.sweep.plots import (
    COLORS,
    Dot,
    draw_dots,
    draw_level,
    label_values,
    mean_interval,
    short,
    tidy,
)
from tinylora.sweep.records import Record

WITH_FULL = {"fig4", "fig7", "fig8", "fig9"}  # that show the full fine-tuning of figure 1
LEVEL_STYLES = ("--", "-.", ":")
SHARES = (0.9, 0.95, 0.975)  # of the best accuracy, figure 3
Table = list[dict[str, Any]]


@dataclass(frozen=True)
class Plot:
    """A figure of one panel: accuracy against something, in series."""

    title: str
    x_label: str
    x: Callable[[Record], float]
    series: Callable[[Record], str]
    log_x: bool = True
    full: Callable[[Record], str] = lambda record: "full fine-tuning"  # names of dashed lines


def setting(record: Record, name: str, default: Any) -> Any:
    """A setting of the run, where it was given."""
    return record["settings"].get(name, default)


def _numbers(record: Record) -> float:
    return float(record["num_trainable"])


def _references(record: Record) -> str:
    """What SFT learned from, and how much of it."""
    source = {"task": "annotators", "own": "own samples"}[setting(record, "references", "task")]
    return f"{source}, {setting(record, 'prompts_per_step', 16)} a step"


PLOTS = {
    "fig1": Plot(
        "Accuracy against trained numbers, GRPO", "trained numbers", _numbers, lambda r: r["method"]
    ),
    "fig2": Plot(
        "Accuracy against trained numbers, SFT",
        "trained numbers",
        _numbers,
        lambda r: f"{r['method']}, {_references(r)}",
        full=lambda r: f"full, {_references(r)}",
    ),
    "fig4": Plot(
        "Accuracy against bytes, by precision and sharing",
        "bytes of the adapter's numbers",
        lambda r: float(r["adapter_bytes"]),
        lambda r: (
            f"{r['store']}, {setting(r, 'sharing', 'tiled')}"
            + (", trained in it" if "precision" in r["settings"] else "")
        ),
    ),
    "fig6": Plot(
        "Accuracy against trained numbers, by model",
        "trained numbers",
        _numbers,
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


def draw_figures(records: Sequence[Record], out: Path) -> list[Path]:
    """Every figure that the records have runs for; returns the pictures.

    Raises:
        RequestError: there is no record.
    """
    shown = [record for record in records if record["is_best_rate"]]
    if not shown:
        raise RequestError("The records hold no run, so there is nothing to draw.")
    out.mkdir(parents=True, exist_ok=True)
    by_figure: dict[str, list[Record]] = defaultdict(list)
    for record in shown:
        figure = record["figure"]
        by_figure[figure if figure in (*PLOTS, *SPECIAL) else "fig1"].append(record)
    full = [record for record in by_figure.get("fig1", []) if record["method"] == "full"]
    for name in WITH_FULL & set(by_figure):
        by_figure[name] += full
    if "fig6" in by_figure:
        by_figure["fig3"] = by_figure["fig6"]
    drawn = []
    for name, members in sorted(by_figure.items()):
        draw = SPECIAL.get(name) or draw_plot
        figure, rows = draw(name, members)
        drawn.append(save(figure, rows, out / name))
    return drawn


def draw_plot(name: str, records: Sequence[Record]) -> tuple[Figure, Table]:
    """A figure of one panel, greedy beside sampled accuracy."""
    plot = PLOTS[name]
    figure, panels = _panels(plot.title, 2)
    rows: Table = []
    for axes, kind in zip(panels, ("final_accuracy", "final_accuracy_sampled"), strict=True):
        inside = [r for r in records if not _is_level(name, r)]
        dots = [Dot(plot.series(r), plot.x(r), r[kind], int(setting(r, "seed", 0))) for r in inside]
        draw_dots(axes, dots, log_x=plot.log_x)
        _levels(axes, name, records, kind)
        axes.set_xlabel(plot.x_label)
        axes.set_ylabel("greedy accuracy, %" if kind == "final_accuracy" else "sampled, %")
        rows += [{"measure": kind, **vars(dot)} for dot in dots]
    _legend(figure, panels[0])
    return figure, rows


def _is_level(name: str, record: Record) -> bool:
    return name in ("fig1", "fig2", *WITH_FULL) and record["method"] == "full"


def _levels(axes: Any, name: str, records: Sequence[Record], kind: str) -> None:
    """The base model, and full fine-tuning, as dashed lines."""
    if name == "fig6":
        return
    base = statistics.fmean(record[kind.replace("final", "base")] for record in records)
    draw_level(axes, base, "base model", "#999999")
    full: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if _is_level(name, record):
            full[PLOTS[name].full(record)].append(record[kind])
    for (label, values), style in zip(full.items(), LEVEL_STYLES, strict=False):
        draw_level(axes, statistics.fmean(values), label, "#000000", style)


def draw_smallest(name: str, records: Sequence[Record]) -> tuple[Figure, Table]:
    """Figure 3: the smallest update that reaches a share of the best, against model size."""
    figure, (axes,) = _panels("Smallest update for a share of the best", 1)
    by_model: dict[float, list[Record]] = defaultdict(list)
    for record in records:
        by_model[float(record["model_parameters"])].append(record)
    rows: Table = []
    for share in SHARES:
        for size, members in by_model.items():
            means = {
                num: statistics.fmean(values)
                for num, values in _by(members, "num_trainable", "final_accuracy").items()
            }
            reached = [n for n in means if means[n] >= share * max(means.values())]
            label = f"{100 * share:g} % of the best"
            rows.append({"series": label, "x": size, "y": min(reached), "seed": "mean"})
    dots = [Dot(row["series"], row["x"], row["y"], 0) for row in rows]
    draw_dots(axes, dots, log_x=True, percent=False)
    axes.set_yscale("log")
    label_values(axes.yaxis, sorted({dot.y for dot in dots}))
    axes.set_xlabel("parameters of the model")
    axes.set_ylabel("trained numbers")
    _legend(figure, axes)
    return figure, rows


def draw_choices(name: str, records: Sequence[Record]) -> tuple[Figure, Table]:
    """Choices beside one another: a line for each, seeds as points, mean and interval."""
    figure, panels = _panels("Choices at about thirteen numbers", 2)
    figure.set_size_inches(11, 5)
    by_point = _by_point(records)
    rows: Table = []
    for axes, kind in zip(panels, ("final_accuracy", "final_accuracy_sampled"), strict=True):
        for place, (point, members) in enumerate(by_point.items()):
            values = [100 * record[kind] for record in members]
            mean, half = mean_interval(values)
            axes.plot(values, [place] * len(values), "o", color=COLORS[0], alpha=0.35)
            axes.errorbar([mean], [place], xerr=[half], color=COLORS[1], marker="s", capsize=3)
            seeds = [setting(record, "seed", 0) for record in members]
            rows += [
                {"measure": kind, "series": point, "y": value / 100, "seed": seed}
                for value, seed in zip(values, seeds, strict=True)
            ]
        base = statistics.fmean(record[kind.replace("final", "base")] for record in records)
        axes.axvline(100 * base, color="#999999", linestyle="--", label="base model")
        axes.set_yticks(range(len(by_point)), list(by_point) if axes is panels[0] else [])
        axes.invert_yaxis()
        axes.set_xlim(-3, 103)
        axes.set_xlabel("greedy accuracy, %" if kind == "final_accuracy" else "sampled, %")
        tidy(axes)
    _legend(figure, panels[0])
    return figure, rows


CURVES = {
    "reward": "mean reward",
    "completion_length": "tokens per completion",
    "kl_rollout": "KL, trainer to rollout",
}


def draw_curves(name: str, records: Sequence[Record]) -> tuple[Figure, Table]:
    """Figure 5: reward, length and KL against the step: every seed thin, their mean thick."""
    figure, panels = _panels("Training", 3)
    rows: Table = []
    for axes, (metric, label) in zip(panels, CURVES.items(), strict=True):
        for index, (point, members) in enumerate(_by_point(records).items()):
            curves = [record["curves"][metric] for record in members]
            for curve in curves:
                axes.plot(range(1, len(curve) + 1), curve, color=COLORS[index], alpha=0.25, lw=1)
            for step, values in enumerate(zip(*curves, strict=False), start=1):
                mean = statistics.fmean(values)
                rows.append({"measure": metric, "series": point, "x": step, "y": mean})
            means = [r["y"] for r in rows if (r["measure"], r["series"]) == (metric, point)]
            axes.plot(range(1, len(means) + 1), means, color=COLORS[index], label=point)
        if metric == "kl_rollout":
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        tidy(axes)
    _legend(figure, panels[0])
    return figure, rows


def draw_spent(name: str, records: Sequence[Record]) -> tuple[Figure, Table]:
    """Accuracy against rollouts and against seconds, by algorithm: a panel for each count."""
    counts = sorted({record["num_trainable"] for record in records})
    figure = Figure(figsize=(4 * len(counts), 7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("Accuracy against what was spent")
    panels = figure.subplots(2, len(counts), squeeze=False)
    rows: Table = []
    for column, count in enumerate(counts):
        here = [record for record in records if record["num_trainable"] == count]
        for row, spent in enumerate(("rollouts", "seconds")):
            axes = panels[row][column]
            runs = _by_point(here).values()
            dots = [
                dot
                for members in runs
                for dot in _spent_dots(members, spent, _with_sigma(members[0], here))
            ]
            draw_dots(axes, dots, log_x=False)
            axes.set_title(f"{count} number{'s' * (count > 1)}", fontsize="medium")
            axes.set_xlabel(spent)
            axes.set_ylabel("validation, greedy, %")
            rows += [{"numbers": count, "measure": spent, **vars(dot)} for dot in dots]
    _legend(figure, panels[0][0])
    return figure, rows


def _with_sigma(record: Record, records: Sequence[Record]) -> str:
    """The algorithm, and which of the first steps (`sigma`) that were tried it had."""
    tried = sorted({r["settings"]["sigma"] for r in records if "sigma" in r["settings"]})
    place = {tried[0]: ", small sigma", tried[-1]: ", large sigma"} if len(tried) > 1 else {}
    return str(record["algorithm"]) + place.get(record["settings"].get("sigma"), "")


def _spent_dots(members: Sequence[Record], spent: str, label: str) -> list[Dot]:
    """The validations of a point's runs; a step has the seeds' mean seconds, so they share x."""
    seconds = statistics.fmean(value for run in members for value in run["curves"]["seconds"])
    a_step = {"rollouts": members[0]["rollouts_per_step"], "seconds": seconds}[spent]
    return [
        Dot(label, step * a_step, value, int(run["settings"]["seed"]))
        for run in members
        for step, value in enumerate(run["curves"].get("validation_accuracy", []), start=1)
        if value is not None
    ]


SPECIAL: dict[str, Callable[[str, Sequence[Record]], tuple[Figure, Table]]] = {
    "fig3": draw_smallest,
    "fig5": draw_curves,
    "choices": draw_choices,
    "spent": draw_spent,
}


def save(figure: Figure, rows: Table, path: Path) -> Path:
    """`path.png` and `path.csv`, both whole or not there."""
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(picture, dpi=140)
    write_atomically(path.with_suffix(".png"), picture.getvalue())
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path.with_suffix(".csv"), text.getvalue().encode())
    return path.with_suffix(".png")


def _panels(title: str, count: int) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(4.6 * count, 4.4), layout="constrained")
    figure.suptitle(title)
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _legend(figure: Figure, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize="small"
    )


def _by(records: Sequence[Record], key: str, value: str) -> dict[Any, list[float]]:
    held: dict[Any, list[float]] = defaultdict(list)
    for record in records:
        held[record[key]].append(record[value])
    return held


def _by_point(records: Sequence[Record]) -> dict[str, list[Record]]:
    held: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        held[record.get("point", "run")].append(record)
    return held
