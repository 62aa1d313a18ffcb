"""`tinylora sweep`: all runs of a grid."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tinylora.cli.options import Verb
from tinylora.settings.base import OrNone, Settings

if TYPE_CHECKING:
    from tinylora.sweep.grid import Grid


class Request(Settings):
    """A grid, and who runs it."""

    grid: str = Field(
        title="GRID.yaml", description="a YAML file of settings, seeds and learning rates"
    )
    out: Annotated[str | None, OrNone] = Field(
        default=None,
        title="DIR",
        description="the sweep's folder (none: runs/ and the grid's name)",
    )
    runner: Literal["local", "ray"] = Field(
        default="local", description="processes on this machine, or a Ray cluster (RAY_ADDRESS)"
    )
    processes: Annotated[int | None, OrNone] = Field(
        default=None,
        ge=1,
        description="runs at the same time; they share the cores (none: one for each core, at "
        "most 8)",
    )
    dry_run: bool = Field(default=False, description="list the runs and stop")


VERB = Verb(
    name="sweep",
    description="""\
Run every point of a grid with every seed; each run is a folder. Finished runs
are skipped, so the same command resumes a sweep and retries what failed.
Grids of one recipe that are given the same --out share the runs that they
have in common.""",
    examples="""\
  tinylora sweep recipes/pocket/grids/fig1.yaml --dry-run         what would run
  tinylora sweep recipes/pocket/grids/fig1.yaml --out runs/fig1   resumes where it ended""",
    groups={"options": Request.model_fields},
    positional="grid",
)


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    request = Request(**VERB.given(argv))
    from tinylora.sweep.grid import load_grid

    grid = load_grid(request.grid)
    if request.dry_run:
        show(grid)
        return
    from tinylora.sweep.sweep import sweep

    folder = Path(request.out) if request.out else Path("runs") / grid.name
    sweep(grid, folder, request.runner, request.processes or min(8, os.cpu_count() or 1))


def show(grid: "Grid") -> None:
    """The runs that are known before any has run."""
    first = grid.first_runs()
    for planned in first:
        print(planned.folder_name)
    choices = sum(len(point.rates) > 1 for point in grid.points)
    later = choices * (len(grid.seeds) - len(grid.rate_seeds))
    print(f"{len(first)} runs, and {later} more with the best learning rates. Nothing was run.")
