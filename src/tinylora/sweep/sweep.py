"""A sweep from beginning to end: what is done is skipped, what is left runs, the rest is told."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tinylora.errors import TinyLoraError
from tinylora.sweep import runs
from tinylora.sweep.grid import Grid, Run
from tinylora.sweep.records import write_records
from tinylora.sweep.runners import Job, run_all


def sweep(
    grid: Grid, folder: Path, runner: str, num_processes: int, console: Console | None = None
) -> None:
    """Do every run of the grid that is not done yet; then write its records and a table.

    Raises:
        TinyLoraError: some runs failed; the others are done and recorded.
    """
    console = console or Console()
    _do(grid.first_runs(), folder, runner, num_processes, console)
    best = best_rates(grid, folder)
    _do(grid.later_runs(best), folder, runner, num_processes, console)
    wanted = final_runs(grid, best)
    write_records(grid, wanted, [*grid.first_runs(), *grid.later_runs(best)], folder)
    console.print(table(grid, wanted, folder))
    everything = [*grid.first_runs(), *grid.later_runs(best)]
    states = Counter(runs.state(runs.folder_of(folder, run)) for run in everything)
    if states["failed"]:
        failed = next(r for r in everything if runs.state(runs.folder_of(folder, r)) == "failed")
        cause = (runs.folder_of(folder, failed) / runs.FAILURE).read_text(encoding="utf-8")
        raise TinyLoraError(
            f"{states['failed']} of {len(everything)} runs failed, such as {failed.folder_name} "
            f"({cause.strip().splitlines()[-1]}). The same command takes them up again; the "
            f"causes stand in {folder}/*/{runs.FAILURE}."
        )


def best_rates(grid: Grid, folder: Path) -> dict[str, float | None]:
    """For each point the learning rate with the best mean objective over its seeds."""
    scores: dict[str, dict[float | None, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in grid.first_runs():
        place = runs.folder_of(folder, run)
        if runs.state(place) == "done":
            scores[run.point.name][run.rate].append(float(runs.summary(place)[grid.objective]))
    return {
        name: max(by_rate, key=lambda rate: statistics.fmean(by_rate[rate]))
        for name, by_rate in scores.items()
    }


def final_runs(grid: Grid, best: dict[str, float | None]) -> list[Run]:
    """The runs that figures show: each point at its best rate, on every seed."""
    return [
        Run(point, best[point.name], seed, grid)
        for point in grid.points
        if point.name in best
        for seed in grid.seeds
    ]


def table(grid: Grid, wanted: Sequence[Run], folder: Path) -> Table:
    """Mean and range of the objective for each point."""
    shown = Table("point", "learning rate", "numbers", "runs", grid.objective, title=str(folder))
    by_point: dict[str, list[Run]] = defaultdict(list)
    for run in wanted:
        if runs.state(runs.folder_of(folder, run)) == "done":
            by_point[run.point.name].append(run)
    for name, members in by_point.items():
        ended = [runs.summary(runs.folder_of(folder, run)) for run in members]
        values = [float(summary[grid.objective]) for summary in ended]
        spread = f"{statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
        rate = "default" if members[0].rate is None else f"{members[0].rate:g}"
        shown.add_row(name, rate, str(ended[0]["num_trainable"]), str(len(values)), spread)
    return shown


def _do(
    wanted: Sequence[Run], folder: Path, runner: str, num_processes: int, console: Console
) -> None:
    left = [run for run in wanted if runs.state(runs.folder_of(folder, run)) != "done"]
    console.print(f"{len(wanted) - len(left)} of {len(wanted)} runs are done, {len(left)} to go.")
    jobs: list[Job] = [(run.settings, folder, run.folder_name) for run in left]
    for number, (name, state) in enumerate(run_all(jobs, runner, num_processes), start=1):
        console.print(f"{number}/{len(left)} {state}: {name}", highlight=False, soft_wrap=True)
