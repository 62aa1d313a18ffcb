"""`tinylora sweep`: all runs of a grid."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tinylora.cli.options import parse
from tinylora.errors import RequestError

DESCRIPTION = """Run every point of a grid on every seed; each run is a folder. What is done is
skipped, so the same command goes on after an interruption and takes up what failed; grids of one
recipe that are given one DIR share the runs that they have in common."""


@dataclass
class Options:
    """A grid, and who runs it."""

    grid: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(help="a YAML file of points, seeds and learning rates", metavar="GRID.yaml"),
    ]
    out: Annotated[
        str | None,
        tyro.conf.arg(
            help="the sweep's folder",
            metavar="DIR",
            help_behavior_hint="(default: runs/ and the grid's name)",
        ),
    ] = None
    runner: Annotated[
        Literal["local", "ray"],
        tyro.conf.arg(help="processes of this machine, or a Ray cluster (RAY_ADDRESS)"),
    ] = "local"
    processes: Annotated[
        int | None,
        tyro.conf.arg(
            help="runs at once; they divide the cores",
            metavar="INT",
            help_behavior_hint="(default: one a core, at most 8)",
        ),
    ] = None
    dry_run: Annotated[
        bool, tyro.conf.arg(help="list the runs and stop", help_behavior_hint="")
    ] = False


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    options = parse(Options, argv, "sweep", DESCRIPTION)
    if options.processes is not None and options.processes < 1:
        raise RequestError(f"processes = {options.processes}, but one run at a time is the least.")
    from tinylora.sweep.grid import load_grid

    grid = load_grid(options.grid)
    folder = Path(options.out) if options.out else Path("runs") / grid.name
    if options.dry_run:
        first = grid.first_runs()
        for planned in first:
            print(planned.folder_name)
        choices = sum(len(point.rates) > 1 for point in grid.points)
        later = choices * (len(grid.seeds) - len(grid.rate_seeds))
        print(f"{len(first)} runs, and {later} more with the best learning rates. Nothing was run.")
        return
    from tinylora.sweep.sweep import sweep

    sweep(grid, folder, options.runner, options.processes or min(8, os.cpu_count() or 1))
