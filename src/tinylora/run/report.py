"""The end of a run, for people: a table in the terminal and the training curve as a picture."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from tinylora.algorithms.log import whole_lines
from tinylora.evaluate.tables import accuracy_text
from tinylora.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, legend_below, panels, save_png, tidy
from tinylora.policy import Policy
from tinylora.run.prepare import Prepared, degrees_of_freedom

SMOOTH_STEPS = 9
LEAST_SHARE = 0.01  # kinds of answers that are rarer stay out of the table


def start_line(prepared: Prepared, policy: Policy, output: Path) -> str:
    """What a run is, in one line: model, device, task, parameters, engine, folder."""
    config, model = prepared.config, prepared.base.model
    device = model.device
    place = str(device)
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        place = f"{device} ({about.name}, {about.total_memory / 2**30:.0f} GiB)"
    count = policy.num_trainable
    freedom = degrees_of_freedom(prepared, count)
    return (
        f"{config.method} by {config.algorithm}: {prepared.base.name} in {config.dtype} on "
        f"{place}, task {prepared.task.name}, {count:,} parameters ({freedom:,} degrees of "
        f"freedom), rollouts by {config.rollout}, output {output}"
    )


def end_table(summary: Mapping[str, Any]) -> Table:
    """Base, final and gain of each accuracy; then what it took."""
    table = Table(title=f"{summary['model']} on {summary['task']}", title_justify="left")
    table.add_column("test accuracy")
    for name in ("base", "final", "gain"):
        table.add_column(name, justify="right")
    for row in accuracy_rows(summary):
        table.add_row(*row)
    if summary.get("best"):
        table.add_section()
        for row in best_rows(summary):
            table.add_row(*row)
    table.add_section()
    table.add_row("parameters trained", "", f"{summary['num_trainable']:,}", _layout(summary))
    in_file = f"{summary['store']}, file {summary['file_bytes']}"
    table.add_row("adapter, bytes", "", str(summary["adapter_bytes"]), in_file)
    duration = str(timedelta(seconds=round(summary["seconds"])))
    ended = {"steps": "", "time": ", then time was up", "no signal": ", then no signal"}
    table.add_row("time", "", duration, f"{summary['steps']} steps{ended[summary['stopped']]}")
    return table


def _layout(summary: Mapping[str, Any]) -> str:
    """How the trained parameters are shared: `u=1, 13 groups`, or `lora, rank 2`."""
    if "num_groups" in summary:
        return f"u={summary['u']}, {summary['num_groups']} groups"
    rank = f", rank {summary['rank']}" if "rank" in summary else ""
    return f"{summary['method']}{rank}"


def best_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """What validation chose: its step, and its accuracies on the test problems."""
    best, measured = summary["best"], summary["evaluations"]["best"]
    chosen = f"{best['validation_accuracy']:.1%} of {best['num_validation_problems']}"
    rows = [(f"best: step {best['step']}", "", chosen, "on validation")]
    for kind in ("greedy", "sampled"):
        gain = _gain(summary["evaluations"]["base"][kind], measured[kind], "accuracy")
        rows.append((f"  {kind}", "", accuracy_text(measured[kind]), gain))
    return rows


def accuracy_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """For greedy and sampled answers: their accuracy, then the share of each kind of answer."""
    rows = []
    for title, kind in (("greedy (pass@1)", "greedy"), ("sampled", "sampled")):
        base, final = (summary["evaluations"][when][kind] for when in ("base", "final"))
        gain = _gain(base, final, "accuracy")
        rows.append((title, accuracy_text(base), accuracy_text(final), gain))
        rows.extend(_kind_rows(base["by_label"], final["by_label"]))
    return rows


def _kind_rows(
    base: Mapping[str, Any], final: Mapping[str, Any]
) -> list[tuple[str, str, str, str]]:
    """The share of each kind, and how many of its answers were right."""
    none = {"share": 0.0, "accuracy": 0.0}
    rows = []
    for label in dict.fromkeys([*base, *final]):
        before, after = base.get(label, none), final.get(label, none)
        if max(before["share"], after["share"]) >= LEAST_SHARE:
            cells = [f"{x['share']:.0%}, {x['accuracy']:.0%} right" for x in (before, after)]
            rows.append((f"  {label}", cells[0], cells[1], _gain(before, after, "share")))
    return rows


def _gain(before: Mapping[str, float], after: Mapping[str, float], key: str) -> str:
    return f"{100 * (after[key] - before[key]):+.1f} points"


def draw_curve(metrics: Path, summary: Mapping[str, Any], out: Path) -> None:
    """What training followed, against the step, and the accuracies before, within and after it.

    They share a panel where training followed a reward. Where the reward is 0 or 1 for every
    answer, it is an accuracy too. Supervised fine-tuning has a loss, in a panel of its own.
    """
    lines = [line for _, line in whole_lines(metrics)]
    measure = _measure(lines)
    num_panels = 2 if measure == "loss" else 1
    title = f"{summary['num_trainable']} trained parameters: {summary['model']}"
    figure, (axes,) = panels(title, 1, num_panels, (7 * num_panels, 4))
    values, steps = [line[measure] for line in lines], [line["step"] for line in lines]
    if "true_reward" in lines[0]:
        true = smooth([line["true_reward"] for line in lines])
        axes[0].plot(steps, true, color=BLACK, label="true reward, which was not followed")
    label = "loss, training" if measure == "loss" else f"sampled {measure}, training"
    axes[0].plot(steps, values, color=BLUE, alpha=0.3, linewidth=1)
    axes[0].plot(steps, smooth(values), color=BLUE, linewidth=2, label=label)
    _draw_accuracies(axes[-1], lines, summary)
    for panel, name in zip(axes, (measure, "accuracy"), strict=False):
        panel.set_xlabel("step")
        panel.set_ylabel(name)
        panel.set_ylim((0, 1) if name == "accuracy" else None)
        tidy(panel)
    legend_below(figure)
    save_png(figure, out, dpi=150)


def _measure(lines: Sequence[Mapping[str, Any]]) -> str:
    """What the steps have been taken by."""
    if any("reward" not in line for line in lines):
        return "loss"
    is_true = all(x["reward"] == x["accuracy"] and "true_reward" not in x for x in lines)
    return "accuracy" if is_true else "reward"


def _draw_accuracies(
    axes: Any, lines: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> None:
    validated = [line for line in lines if "validation_accuracy" in line]
    if validated:
        points = [[line[name] for line in validated] for name in ("step", "validation_accuracy")]
        axes.plot(*points, color=GREEN, marker="o", markersize=4, label="greedy, validation")
    if kept := summary.get("snapshots"):
        points = [[held[name] for held in kept] for name in ("step", "accuracy")]
        axes.plot(*points, color=ORANGE, marker="D", linestyle=":", label="greedy, snapshots")
    for name, color, style in (("base", GREY, "--"), ("final", ORANGE, "-")):
        accuracy = summary[f"{name}_accuracy"]
        label = f"{name}, greedy on test: {accuracy:.1%}"
        axes.axhline(accuracy, color=color, linestyle=style, linewidth=2, label=label)


def smooth(values: Sequence[float]) -> list[float]:
    """The mean of each value and its neighbours."""
    half = SMOOTH_STEPS // 2
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]
