"""A sweep from beginning to end: skip the runs that are done, do the others, report."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tinylora.errors import TinyLoraError
from tinylora.sweep import outcomes
from tinylora.sweep.grid import Grid, GridRun
from tinylora.sweep.results import write_results
from tinylora.sweep.runners import Job, run_all


def sweep(
    grid: Grid, folder: Path, runner: str, num_processes: int, console: Console | None = None
) -> None:
    """Do every run of the grid that is not done yet; then write its results and a table.

    Raises:
        TinyLoraError: some runs failed; the results of the others are written.
    """
    console = console or Console()
    _do(grid.first_runs(), folder, runner, num_processes, console)
    best = best_rates(grid, folder)
    _do(grid.later_runs(best), folder, runner, num_processes, console)
    wanted = final_runs(grid, best)
    everything = [*grid.first_runs(), *grid.later_runs(best)]
    write_results(grid, wanted, everything, folder)
    console.print(table(grid, wanted, folder))
    failed = [r for r in everything if outcomes.state(folder / r.folder_name) == "failed"]
    if failed:
        name = failed[0].folder_name
        cause = (folder / name / outcomes.FAILURE).read_text(encoding="utf-8")
        raise TinyLoraError(
            f"{len(failed)} of {len(everything)} runs failed, such as {name} "
            f"({cause.strip().splitlines()[-1]}). Run the same command again to retry them; see "
            f"{folder}/*/{outcomes.FAILURE} for the causes."
        )


def best_rates(grid: Grid, folder: Path) -> dict[str, float | None]:
    """For each point the learning rate with the best mean objective over its seeds."""
    scores: dict[str, dict[float | None, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in grid.first_runs():
        place = folder / run.folder_name
        if outcomes.state(place) == "done":
            scores[run.point.name][run.rate].append(float(outcomes.summary(place)[grid.objective]))
    return {
        name: max(by_rate, key=lambda rate: statistics.fmean(by_rate[rate]))
        for name, by_rate in scores.items()
    }


def final_runs(grid: Grid, best: dict[str, float | None]) -> list[GridRun]:
    """The runs that figures show: each point at its best rate, on every seed."""
    return [
        GridRun(point, best[point.name], seed, grid)
        for point in grid.points
        if point.name in best
        for seed in grid.seeds
    ]


def table(grid: Grid, wanted: Sequence[GridRun], folder: Path) -> Table:
    """Mean and range of the objective for each point."""
    shown = Table("point", "learning rate", "numbers", "runs", grid.objective, title=str(folder))
    by_point: dict[str, list[GridRun]] = defaultdict(list)
    for run in wanted:
        if outcomes.state(folder / run.folder_name) == "done":
            by_point[run.point.name].append(run)
    for name, members in by_point.items():
        ended = [outcomes.summary(folder / run.folder_name) for run in members]
        values = [float(summary[grid.objective]) for summary in ended]
        spread = f"{statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
        rate = "default" if members[0].rate is None else f"{members[0].rate:g}"
        shown.add_row(name, rate, str(ended[0]["num_trainable"]), str(len(values)), spread)
    return shown


def _do(
    wanted: Sequence[GridRun], folder: Path, runner: str, num_processes: int, console: Console
) -> None:
    left = [run for run in wanted if outcomes.state(folder / run.folder_name) != "done"]
    console.print(f"{len(wanted) - len(left)} of {len(wanted)} runs are done, {len(left)} to go.")
    jobs: list[Job] = [(run.settings, folder, run.folder_name) for run in left]
    for number, (name, state) in enumerate(run_all(jobs, runner, num_processes), start=1):
        console.print(f"{number}/{len(left)} {state}: {name}", highlight=False, soft_wrap=True)
