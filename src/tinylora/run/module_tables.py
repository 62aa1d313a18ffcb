"""Tables of modules and groups: what is adapted, and who shares with whom."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import takewhile

from rich.table import Table

from tinylora.adapter.freedom import described, surplus
from tinylora.adapter.modules import LinearMap
from tinylora.adapter.sharing import groups_of, module_types, table
from tinylora.settings import AdapterConfig


def module_table(maps: Sequence[LinearMap], title: str) -> Table:
    """One row for each kind of module: how many, which shape."""
    kinds: dict[tuple[str, int, int], int] = defaultdict(int)
    for linear in maps:
        kinds[module_types([linear.name])[0], linear.d_out, linear.d_in] += 1
    rows = Table("module", "count", "d_out", "d_in", title=title, title_justify="left")
    for (kind, d_out, d_in), count in kinds.items():
        rows.add_row(kind, str(count), str(d_out), str(d_in))
    return rows


def sharing_table(maps: Sequence[LinearMap], config: AdapterConfig) -> tuple[int, Table]:
    """How many groups there are, and the table that shows who shares with whom.

    Its caption says how the numbers are spent, and warns where a group has more than a core.
    """
    names = [linear.name for linear in maps]
    groups = groups_of(names, config)
    header, *rows = table(groups, config.u)
    prefix = common_prefix(names)
    title = f"{len(groups)} group{'s' * (len(groups) > 1)}, {config.sharing} (under {prefix})"
    shown = Table(*_without_numbers(header), title=title, title_justify="left")
    shown.caption = "\n".join(filter(None, (described(groups, config), surplus(groups, config))))
    shown.caption_justify = "left"
    for row in rows:
        shown.add_row(*(cell.removeprefix(f"{prefix}.") for cell in _without_numbers(row)))
    return len(groups), shown


def _without_numbers(row: Sequence[str]) -> list[str]:
    """u is the same for every group, and is in the caption."""
    group, modules, _, first, last = row
    return [group, modules, first, last]


def common_prefix(names: Sequence[str]) -> str:
    """The leading parts that all names have in common; there is one name at least."""
    parts = [set(column) for column in zip(*(name.split(".") for name in names), strict=False)]
    shared = list(takewhile(lambda values: len(values) == 1, parts))
    return ".".join(names[0].split(".")[: len(shared)])
