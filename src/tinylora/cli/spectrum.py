"""What an SVD of each linear layer keeps, and how well it is defined, for `tinylora inspect`."""

from collections.abc import Sequence
from itertools import pairwise

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tinylora.adapter.factors import linear_factors
from tinylora.adapter.modules import LinearMap
from tinylora.adapter.svd import NEAR_EQUAL, Factors
from tinylora.run.module_tables import common_prefix
from tinylora.settings import AdapterConfig

MANY_MAPS = 50  # from which on progress is shown


def spectrum_table(maps: Sequence[LinearMap], config: AdapterConfig, console: Console) -> Table:
    """One row for each linear layer: the kept singular values, the next one, and their gaps.

    The factors come from the cache of factors, or go there: an adapter attached later finds them.
    """
    prefix = common_prefix([linear.name for linear in maps])
    title = f"Leading singular values, rank {config.rank} (under {prefix})"
    table = Table("module", "kept", "next", "gaps", "edge", title=title, title_justify="left")
    is_quick = len(maps) < MANY_MAPS
    for linear in track(maps, "SVD", console=console, transient=True, disable=is_quick):
        factors = linear_factors(linear, config)
        table.add_row(linear.name.removeprefix(f"{prefix}."), *_cells(factors))
    table.caption = (
        "gaps: relative, between the kept values; edge: from the last kept to the next. Below "
        f"{NEAR_EQUAL:g}, kept vectors are rotated by a rule; at the edge, the module is left out."
    )
    table.caption_justify = "left"
    return table


def _cells(factors: Factors) -> tuple[str, str, str, str]:
    S, edge = factors.S.tolist(), factors.edge_gap
    gaps = [1 - after / before for before, after in pairwise(S)]
    return (
        " ".join(f"{s:.4g}" for s in S),
        f"{S[-1] * (1 - edge):.4g}",
        " ".join(_gap(gap, "rotated") for gap in gaps),
        _gap(edge, "left out"),
    )


def _gap(gap: float, consequence: str) -> str:
    return f"{gap:.2%}" if gap >= NEAR_EQUAL else f"{gap:.1g}: {consequence}"
