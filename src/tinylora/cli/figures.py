"""`tinylora figures`: pictures and CSV from runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from tinylora.cli.options import parse

DESCRIPTION = """Draw figures from runs, sweeps and files of results, each also as CSV."""


@dataclass
class Options:
    """What to draw, and where to."""

    runs: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(help="run folders, sweep folders, or files of results", metavar="RUNS..."),
    ]
    out: Annotated[str, tyro.conf.arg(help="the folder of the figures", metavar="DIR")] = "figures"


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    options = parse(Options, argv, "figures", DESCRIPTION)
    from tinylora.sweep.drawing import draw_figures
    from tinylora.sweep.results import read_results

    for path in draw_figures(read_results(options.runs), Path(options.out)):
        print(f"{path} (and {path.with_suffix('.csv').name})")
