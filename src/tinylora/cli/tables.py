"""Tables of modules and groups, for `inspect` and `--dry-run`."""

from collections import defaultdict
from collections.abc import Sequence

from rich.table import Table

from tinylora.adapter.modules import LinearMap
from tinylora.adapter.sharing import assign_groups, module_types, table
from tinylora.config import AdapterConfig


def module_table(maps: Sequence[LinearMap], title: str) -> Table:
    """One row for each kind of module: how many, which shape."""
    kinds: dict[tuple[str, int, int], int] = defaultdict(int)
    for linear in maps:
        kinds[module_types([linear.name])[0], linear.d_out, linear.d_in] += 1
    rows = Table("module", "count", "d_out", "d_in", title=title, title_justify="left")
    for (kind, d_out, d_in), count in kinds.items():
        rows.add_row(kind, str(count), str(d_out), str(d_in))
    return rows


def sharing_table(
    maps: Sequence[LinearMap], config: AdapterConfig
) -> tuple[list[list[str]], Table]:
    """The groups, and the table that shows them."""
    groups = assign_groups([linear.name for linear in maps], config.num_groups, config.sharing)
    header, *rows = table(groups, config.u)
    title = f"{len(groups)} groups, {config.sharing}"
    shown = Table(*header, title=title, title_justify="left")
    for row in rows:
        shown.add_row(*row)
    return groups, shown
