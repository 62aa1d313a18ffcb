"""Tables of modules and groups: what is adapted, and who shares with whom."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import takewhile

from rich.table import Table
from torch import nn

from tinylora.adapter.freedom import described, surplus
from tinylora.adapter.modules import LinearMap, looks_linear, sizes_of, text_modules
from tinylora.adapter.sharing import groups_of, module_types, table
from tinylora.settings import AdapterConfig

LEAST_LEFT = 200  # a share of the weights that is smaller, one in so many, is not worth a word
MOST_KINDS = 4


def module_table(maps: Sequence[LinearMap], title: str) -> Table:
    """One row for each kind of module: how many, which shape."""
    kinds: dict[tuple[str, int, int], int] = defaultdict(int)
    for linear in maps:
        kinds[module_types([linear.name])[0], linear.d_out, linear.d_in] += 1
    rows = Table("module", "count", "d_out", "d_in", title=title, title_justify="left")
    for (kind, d_out, d_in), count in kinds.items():
        rows.add_row(kind, str(count), str(d_out), str(d_in))
    return rows


def coverage_note(model: nn.Module, maps: Sequence[LinearMap]) -> str:
    """Which share of the blocks' weights the adapted layers hold, and what the rest is; "": all."""
    sizes = block_weights(model)
    rest = Counter(sizes)
    for linear in maps:
        rest.pop(linear.name, None)
    total, left = sum(sizes.values()), sum(rest.values())
    if left * LEAST_LEFT <= total:
        return ""
    kinds: Counter[str] = Counter()
    for name, size in rest.items():
        kinds[".".join(part for part in name.split(".")[-2:] if not part.isdigit())] += size
    shown = (f"{kind} {size / total:.0%}" for kind, size in kinds.most_common(MOST_KINDS))
    return (
        f"The adapted layers hold {1 - left / total:.0%} of the weights in the model's blocks; "
        f"not adapted: {', '.join(shown)}. Fused experts are not linear layers, so no adapter "
        "acts on them."
    )


def block_weights(model: nn.Module) -> dict[str, int]:
    """The matrices in the numbered blocks: a linear layer by its name, anything else (fused
    experts, filters of convolutions) by its parameter's."""
    found = {}
    for name, module in text_modules(model):
        if not any(part.isdigit() for part in name.split(".")):
            continue
        if looks_linear(module):
            found[name] = math.prod(sizes_of(module))
            continue
        for own, parameter in module.named_parameters(recurse=False):
            if parameter.dim() > 1:
                found[f"{name}.{own}"] = parameter.numel()
    return found


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
