"""The tables of docs/results.md, from the results of the pocket grids.

    python benchmarks/pocket_results.py docs/results

Gains are in points over the base model on the same problems: mean over seeds and half the width of
the 95 % interval by Student's t. A comparison pairs runs of one seed, and is called a difference
where its interval leaves zero out. Where it is not, the table says from which true difference on
the same test, with as many seeds of this spread, would show one four times in five (its power).
"""

import argparse
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from tinylora.sweep.panels import mean_interval, seen_from
from tinylora.sweep.results import Result, read_results

MEASURES = {"greedy": "accuracy", "sampled": "accuracy_sampled"}
LEAST_GAIN = 10  # points, of which shares make sense
TRUE_REWARD = "reward_control=none"
REACHED = (0.3, 0.5, 0.7)  # greedy accuracies whose price is compared
Points = dict[str, list[Result]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path, help="a folder of FIGURE.jsonl files")
    folder = parser.parse_args().records
    for file in sorted(folder.glob("*.jsonl")):
        points = by_point(read_results([str(file)]))
        print(f"\n## {file.stem}\n")
        if file.stem == "spent":
            print_spent(points)
        else:
            print_gains(points, is_shared=file.stem in ("fig1", "fig2"))
        for line in COMPARED.get(file.stem, lambda _: [])(points):
            print(line)


def by_point(records: Iterable[Result]) -> Points:
    """The runs of each point at its best rate, in the order of their seeds."""
    points: Points = defaultdict(list)
    for record in sorted(records, key=lambda r: (r["num_trainable"], r["settings"]["seed"])):
        if record["is_best_rate"]:
            points[record["point"]].append(record)
    return dict(points)


def gains(runs: Sequence[Result], measure: str) -> list[float]:
    """Points over the base model, by seed."""
    name = MEASURES[measure]
    return [100 * (run[f"final_{name}"] - run[f"base_{name}"]) for run in runs]


def print_gains(points: Points, *, is_shared: bool) -> None:
    """A line a point; with the share of full fine-tuning's gain, where it is there."""
    head = ["point", "parameters", "bytes", "rate", "greedy", "sampled"]
    print_row(head + ["share, greedy", "share, sampled"] * is_shared)
    print_row(["---"] * (len(head) + 2 * is_shared))
    for name, runs in points.items():
        first = runs[0]
        rate = first["settings"].get("learning_rate", "")
        row = [name, first["num_trainable"], first["adapter_bytes"], rate]
        row += [shown(gains(runs, measure)) for measure in MEASURES]
        if is_shared:
            row += [share(runs, full_of(points, first), measure) for measure in MEASURES]
        print_row(row)


def full_of(points: Points, run: Result) -> list[Result]:
    """Full fine-tuning on the same data."""
    return next(
        runs
        for runs in points.values()
        if runs[0]["method"] == "full" and data_of(runs[0]) == data_of(run)
    )


def data_of(run: Result) -> tuple[str, int]:
    settings = run["settings"]
    return settings.get("references", "task"), settings["prompts_per_step"]


def share(runs: Sequence[Result], full: Sequence[Result], measure: str) -> str:
    """What part of full fine-tuning's gain the runs have, seed by seed; where it has one."""
    whole = statistics.fmean(gains(full, measure))
    if whole < LEAST_GAIN:
        return "-"
    return shown([100 * gain / whole for gain in gains(runs, measure)], " %")


def compared(one: str, other: str, points: Points, label: str) -> str:
    """The first point against the second, paired by seed, as a row of `table_head`."""
    cells = [label]
    for measure in MEASURES:
        pairs = zip(gains(points[one], measure), gains(points[other], measure), strict=True)
        differences = [a - b for a, b in pairs]
        mean, half = mean_interval(differences)
        if not any(differences):
            verdict = "the same"
        elif abs(mean) > half:
            verdict = "differs"
        else:
            verdict = f"not shown; {seen_from(differences):.1f} would be"
        cells += [shown(differences), verdict]
    return f"| {' | '.join(cells)} |"


def table_head(title: str) -> Iterable[str]:
    """Comparisons in points: the difference, and whether it is one."""
    yield f"\n{title}, paired by seed:\n"
    yield "| comparison | greedy | a difference? | sampled | a difference? |"
    yield "| --- | --- | --- | --- | --- |"


def compare_choices(points: Points) -> Iterable[str]:
    tied, grouped = "u=13 num_groups=1", "u=1 num_groups=13"
    yield from table_head("Against the paper's own choice")
    yield compared(grouped, tied, points, "u = 1 in 13 groups against u = 13 tied")
    yield compared(f"{tied} projection=shared", tied, points, "one P for all against one each")
    for other, label in {
        "sharing=structured": "structured against tiled",
        "subspace=middle": "middle singular directions against the top ones",
        "basis=random": "random directions against the top ones",
        "layers=1-2": "blocks 1 and 2 against all four",
        "layers=2-3": "blocks 2 and 3 against all four",
    }.items():
        yield compared(f"{grouped} {other}", grouped, points, label)


def compare_precisions(points: Points) -> Iterable[str]:
    yield from table_head("Precisions and sharing")
    for half, label in {
        "store=bf16": "rounded to bf16",
        "precision=bf16 store=bf16": "trained in bf16",
        "precision=fp16 store=fp16": "trained in fp16",
    }.items():
        at = f"56 bytes, 28 numbers {label} against 14 in fp32"
        yield compared(f"u=1 num_groups=28 {half}", "u=1 num_groups=14", points, at)
    for num in (14, 28):
        full = f"u=1 num_groups={num}"
        for half in ("store=bf16", "precision=bf16 store=bf16", "precision=fp16 store=fp16"):
            yield compared(f"{full} {half}", full, points, f"{num} numbers, {half} against fp32")
        structured = f"{full} sharing=structured"
        yield compared(structured, full, points, f"{num} numbers, structured against tiled")


def compare_ranks(points: Points) -> Iterable[str]:
    yield from table_head("Against r = 2")
    for u in (1, 4):
        for rank in (1, 4, 8):
            one, two = (f"rank={r} u={u} num_groups=13" for r in (rank, 2))
            yield compared(one, two, points, f"u = {u}, r = {rank}")


def compare_sharing(points: Points) -> Iterable[str]:
    yield from table_head("The same count, spent on groups or on u")
    for groups, tied in ((("1", "4"), ("4", "1")), (("4", "4"), ("16", "1"))):
        one, other = (f"u={u} num_groups={g} rank=2" for u, g in (groups, tied))
        num = points[one][0]["num_trainable"]
        yield compared(one, other, points, f"{num} numbers: {one[:-7]} against {other[:-7]}")


def compare_controls(points: Points) -> Iterable[str]:
    yield from table_head("Against the task's own reward")
    for name in points:
        if name != TRUE_REWARD:
            yield compared(name, TRUE_REWARD, points, name.removeprefix("reward_control="))


def compare_searches(points: Points) -> Iterable[str]:
    yield from table_head("Searches against GRPO, after as many rollouts")
    grpo = {
        r[0]["num_trainable"]: name for name, r in points.items() if r[0]["algorithm"] == "grpo"
    }
    for name, runs in points.items():
        first = runs[0]
        if first["algorithm"] != "grpo":
            what = f"{first['algorithm']}, sigma {first['settings']['sigma']}"
            num = first["num_trainable"]
            label = f"{num} number{'s' * (num > 1)}, {what}"
            yield compared(name, grpo[first["num_trainable"]], points, label)


COMPARED = {
    "controls": compare_controls,
    "choices": compare_choices,
    "spent": compare_searches,
    "fig4": compare_precisions,
    "fig7": compare_ranks,
    "fig8": compare_sharing,
}


def print_spent(points: Points) -> None:
    """What each algorithm reached, and what it took to get there."""
    head = ["numbers", "algorithm", "greedy gain", "sampled gain", "rollouts", "seconds"]
    print_row(
        head + [f"{prize} to {100 * g:.0f} %" for g in REACHED for prize in ("rollouts", "s")]
    )
    print_row(["---"] * (len(head) + 2 * len(REACHED)))
    for runs in points.values():
        first = runs[0]
        seconds = statistics.fmean(sum(run["curves"]["seconds"]) for run in runs)
        rollouts = first["rollouts_per_step"] * first["steps"]
        sigma = f", sigma {first['settings']['sigma']}" if "sigma" in first["settings"] else ""
        row = [first["num_trainable"], first["algorithm"] + sigma]
        row += [*(shown(gains(runs, measure)) for measure in MEASURES), rollouts, f"{seconds:.0f}"]
        for goal in REACHED:
            row += price(runs, goal)
        print_row(row)


def price(runs: Sequence[Result], goal: float) -> tuple[str, str]:
    """Mean rollouts and seconds until the validation first reached `goal`, where all seeds did."""
    steps = []
    for run in runs:
        values = run["curves"].get("validation_accuracy", [])
        reached = [step for step, value in enumerate(values, 1) if value and value >= goal]
        steps.append(reached[0] if reached else None)
    done = [(run, step) for run, step in zip(runs, steps, strict=True) if step is not None]
    if len(done) < len(runs):
        return f"{len(done)} of {len(runs)} seeds", ""
    rollouts = statistics.fmean(run["rollouts_per_step"] * step for run, step in done)
    seconds = statistics.fmean(sum(run["curves"]["seconds"][:step]) for run, step in done)
    return f"{rollouts:.0f}", f"{seconds:.0f}"


def shown(values: Sequence[float], unit: str = "") -> str:
    mean, half = mean_interval(values)
    return f"{mean:+.1f} ± {half:.1f}{unit}"


def print_row(cells: Sequence[object]) -> None:
    print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
