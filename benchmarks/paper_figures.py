"""The figures of docs/paper-figures.md: the paper's points on corrected axes, ours beside them.

    python benchmarks/paper_figures.py DIGITISED --records docs/results --out docs/paper-figures

DIGITISED is a folder with figures.csv: points that were read off the vector figures of arXiv
2602.04118 v1, in the columns figure, model, panel, configuration, numbers, accuracy. The file is
not part of this repository; its points stand in the tables of the page, which --tables prints.
"""

import argparse
import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinylora.plotting import BLACK, GREY, legend_below, panels, save_png
from tinylora.sweep.drawing import LEVEL_STYLES, PLOTS, draw_smallest
from tinylora.sweep.panels import Dot, draw_dots, draw_level, grouped, label_values
from tinylora.sweep.results import Result, read_results

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
ALIKE = ("7", "8")  # figures whose series have the same names and colours in all panels
SIZES = {"0.5B": 0.5e9, "1.5B": 1.5e9, "3B": 3e9, "7B": 7e9}  # as the models are named
PANEL = 5.2, 4.4  # inches


@dataclass(frozen=True)
class Read:
    """One point that was read off a figure."""

    figure: str
    model: str
    panel: str
    configuration: str
    numbers: str
    accuracy: float | None

    @property
    def count(self) -> int:
        return int(self.numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("digitised", type=Path, help="the folder of figures.csv")
    parser.add_argument("--records", type=Path, default=Path("docs/results"), help="of our runs")
    parser.add_argument("--out", type=Path, default=Path("docs/paper-figures"))
    parser.add_argument("--tables", action="store_true", help="print the points, draw nothing")
    options = parser.parse_args()
    points = read_points(options.digitised / "figures.csv")
    by_figure = grouped(points, lambda point: point.figure)
    if options.tables:
        for name, members in by_figure.items():
            print_table(name, members)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWN.items():
        figure = draw(by_figure[name], options.records)
        legend_below(figure)
        save_png(figure, options.out / f"fig{name}.png", dpi=110)
        print(options.out / f"fig{name}.png")


def read_points(file: Path) -> list[Read]:
    """All points; one that stands for several values of u is as many points."""
    with file.open(encoding="utf-8", newline="") as lines:
        _, *rows = csv.reader(lines)
    points = []
    for figure, model, panel, configuration, numbers, accuracy in rows:
        value = float(accuracy) if accuracy else None
        names = re.findall(r"\d+", configuration) if "overlap" in configuration else [""]
        for u in names:
            label = f"u={u}" if u else configuration
            points.append(Read(figure, model, panel, label, numbers, value))
    return points


def print_table(name: str, points: Sequence[Read]) -> None:
    """The points as the page shows them: figures 4, 7 and 8 across, the others a row each."""
    print(f"\nFigure {name}\n")
    across = ACROSS.get(name)
    if across is None:
        print_row(["model", "point", "numbers", "accuracy, %"])
        print_row(["---"] * 4)
        for point in points:
            print_row([point.model, point.configuration, point.numbers, percent(point)])
        return
    columns = sorted({across(p) for p in points}, key=lambda text: int(text.split("=")[-1]))
    print_row(["model", "", *columns])
    print_row(["---"] * (2 + len(columns)))
    for (model, panel), members in grouped(points, lambda p: (p.model, p.panel)).items():
        found = {across(p): percent(p) for p in members}
        print_row([model, panel, *(found.get(column, "") for column in columns)])


ACROSS: dict[str, Callable[[Read], str]] = {
    "4": lambda point: point.numbers,
    "7": lambda point: point.configuration,
    "8": lambda point: point.configuration,
}


def percent(point: Read) -> str:
    return "" if point.accuracy is None else f"{100 * point.accuracy:.1f}"


def print_row(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |")


def figure_of(title: str, count: int) -> tuple[Any, list[Any]]:
    figure, (row,) = panels(title, 1, count, (PANEL[0] * count, PANEL[1]))
    return figure, row


def ours(axes: Any, name: str, records: Path, title: str) -> None:
    """Our runs of the same figure, on the same axis."""
    plot = PLOTS[f"fig{name}"]
    results = [r for r in read_results([str(records / f"fig{name}.jsonl")]) if r["is_best_rate"]]
    kept = [r for r in results if r["method"] != "full"]
    before = "" if name in ALIKE else "here: "
    dots = [Dot(before + plot.series(r), plot.x(r), r["final_accuracy"], seed_of(r)) for r in kept]
    draw_dots(axes, dots, log_x=True)
    if name != "6":  # whose models have a base each
        base = sum(r["base_accuracy"] for r in results) / len(results)
        draw_level(axes, base, "here: base model", GREY)
    levels = grouped([r for r in results if r["method"] == "full"], plot.full).items()
    for (label, full), style in zip(levels, LEVEL_STYLES, strict=False):
        accuracy = sum(r["final_accuracy"] for r in full) / len(full)
        draw_level(axes, accuracy, f"here: {label}", BLACK, style)
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel("greedy accuracy, %")


def seed_of(result: Result) -> int:
    return int(result["settings"]["seed"])


def theirs(
    axes: Any, dots: Sequence[Dot], title: str, x_label: str, low: float, high: float = 100
) -> None:
    """The paper's points; accuracies from `low` to `high` %."""
    draw_dots(axes, dots, log_x=True)
    axes.set_ylim(low, high)
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel(x_label)
    axes.set_ylabel("GSM8K, %")


def dots_of(
    points: Iterable[Read], series: Callable[[Read], str], x: Callable[[Read], float]
) -> list[Dot]:
    return [Dot(series(p), x(p), p.accuracy, seed=0) for p in points if p.accuracy is not None]


def method_of(point: Read) -> str:
    """By what the figure's colours say; of figure 2, whose legend has no counts, by the count."""
    for name in ("LoRA-XS", "LoRA r"):
        if name in point.configuration:
            return name.removesuffix(" r")
    return "TinyLoRA, u = 1" if "u=1" in point.configuration else "TinyLoRA or LoRA-XS"


def draw_counts(name: str, points: Sequence[Read], records: Path) -> Any:
    """Figures 1 and 2: accuracy against trained parameters."""
    is_level = re.compile(r"untrained|full")
    levels = [point for point in points if is_level.match(point.configuration)]
    rest = [point for point in points if point not in levels]
    kind = {"1": "GRPO", "2": "SFT"}[name]
    figure, (left, right) = figure_of(f"Figure {name}: {kind}", 2)
    dots = dots_of(rest, method_of, lambda p: p.count)
    theirs(left, dots, f"paper: {points[0].model}", "trained parameters", 70)
    for point, color in zip(levels, (GREY, BLACK) if len(levels) > 1 else (BLACK,), strict=True):
        level = point.configuration.removesuffix(" (dashed)")
        draw_level(left, point.accuracy or 0, f"paper: {level}", color, "-.")
    ours(right, name, records, "here: pocket (0.9 M)")
    return figure


def draw_sizes(points: Sequence[Read], records: Path) -> Any:
    """Figure 3 against the size of the model, which the paper's axis does not show."""
    figure, (left, right) = figure_of("Figure 3: the smallest update for a share of the best", 2)
    dots = []
    for point in points:
        size = SIZES[point.configuration.split(":")[0]]
        for share, count in zip(("90", "95", "97.5"), point.numbers.split("/"), strict=True):
            dots.append(Dot(f"{share} % of the best", size, float(count), seed=0))
    results = read_results([str(records / "fig6.jsonl")])
    _, rows = draw_smallest([result for result in results if result["is_best_rate"]])
    here = [Dot(row["series"], row["x"], row["y"], seed=0) for row in rows]
    for axes, shown, title in ((left, dots, "paper: Qwen2.5"), (right, here, "here: pocket")):
        draw_dots(axes, shown, log_x=True, percent=False)
        axes.set_yscale("log")
        label_values(axes.yaxis, sorted({dot.y for dot in shown}))
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("parameters of the model")
        axes.set_ylabel("trained parameters")
    return figure


def draw_bytes(points: Sequence[Read], records: Path) -> Any:
    """Figure 4 as it is labelled, and with bytes."""
    figure, (printed, corrected, right) = figure_of("Figure 4: numbers, and bytes", 3)
    model = f"paper: {points[0].model}"
    numbers = dots_of(points, lambda p: p.panel, lambda p: p.count)
    size = dots_of(points, lambda p: p.panel, lambda p: p.count * BYTES[p.panel.split()[0]])
    theirs(printed, numbers, f"{model}, the printed axis", "numbers (printed: bytes)", 60, 90)
    theirs(corrected, size, f"{model}, in bytes", "bytes = numbers x bytes of one", 60, 90)
    ours(right, "4", records, "here: pocket (0.9 M)")
    return figure


def draw_baselines(points: Sequence[Read], records: Path) -> Any:
    """Figure 6: of its points only the untrained models' are read; ours are whole."""
    figure, (left, right) = figure_of("Figure 6: models", 2)
    sizes = {point.model: SIZES[point.model.split("-")[1]] for point in points}
    dots = dots_of(points, lambda p: "untrained", lambda p: sizes[p.model])
    theirs(left, dots, "paper: untrained Qwen2.5-Instruct", "parameters of the model", 0)
    ours(right, "6", records, "here: pocket models of three sizes")
    return figure


def draw_by_model(
    name: str, points: Sequence[Read], records: Path, x: Callable[[Read], float], label: str
) -> Any:
    """Figures 7 and 8: a panel for each of the paper's models, and ours."""
    models = grouped(points, lambda point: point.model)
    figure, row = figure_of({"7": "Figure 7: frozen rank", "8": "Figure 8: u, n_tie"}[name], 3)
    for axes, (model, members) in zip(row, models.items(), strict=False):
        dots = dots_of(members, lambda p: p.configuration.replace("=", " = "), x)
        theirs(axes, dots, f"paper: {model}", label, 45)
    ours(row[2], name, records, "here: pocket (0.9 M)")
    return figure


def tied(point: Read) -> float:
    """The number behind "=" of the panel's name: r, or n_tie."""
    return float(point.panel.split("=")[1])


DRAWN: dict[str, Callable[[Sequence[Read], Path], Any]] = {
    "1": lambda points, records: draw_counts("1", points, records),
    "2": lambda points, records: draw_counts("2", points, records),
    "3": draw_sizes,
    "4": draw_bytes,
    "6": draw_baselines,
    "7": lambda points, records: draw_by_model("7", points, records, tied, "frozen rank r"),
    "8": lambda points, records: draw_by_model("8", points, records, tied, "n_tie"),
}


if __name__ == "__main__":
    main()
