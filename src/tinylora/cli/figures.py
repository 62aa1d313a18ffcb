"""`tinylora figures`: pictures and CSV from runs."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from tinylora.cli.options import Verb
from tinylora.settings.base import Settings


class Request(Settings):
    """What to draw, and where to."""

    runs: tuple[str, ...] = Field(
        title="RUNS...", description="run folders, sweep folders, or files of results"
    )
    out: str = Field(default="figures", title="DIR", description="the folder of the figures")


VERB = Verb(
    name="figures",
    description="Draw figures from runs, sweeps and files of results, each also as CSV.",
    examples="""\
  tinylora figures runs/a runs/b             two runs
  tinylora figures runs/grid --out figures   a sweep""",
    groups={"options": Request.model_fields},
    positional="runs",
    several=("runs",),
)


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    request = Request(**VERB.given(argv))
    from tinylora.plotting import check_can_draw

    check_can_draw('"tinylora figures"')
    from tinylora.sweep.drawing import draw_figures
    from tinylora.sweep.results import read_results

    for path in draw_figures(read_results(request.runs), Path(request.out)):
        print(f"{path} (and {path.with_suffix('.csv').name})")
