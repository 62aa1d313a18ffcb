"""Which modules share their numbers: integers in, groups out (paper, sections 3 and 7).

Modules come ordered by depth, as `modules.linear_maps` gives them. *Tiled* cuts that order into
runs, so that neighbours in depth share, whatever their type; *structured* first sorts by type, so
that modules of one type share. Tiled wins in the paper. `n_tie` cuts as the paper does, runs of
exactly so many modules and the remainder last; `num_groups` cuts runs whose sizes differ by at
most one.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from tinylora.errors import RequestError
from tinylora.settings import AdapterConfig

Sharing = Literal["tiled", "structured"]


def with_sharing(config: AdapterConfig, num_modules: int) -> AdapterConfig:
    """The settings for so many modules: no sharing where the default has more groups than that."""
    is_given = "num_groups" in config.model_fields_set
    if is_given or config.num_groups is None or config.num_groups <= num_modules:
        return config
    return config.model_copy(update={"num_groups": None})


def sharing_note(config: AdapterConfig, num_modules: int) -> str:
    """What `with_sharing` does to these settings, in a sentence; "" where they stay."""
    if with_sharing(config, num_modules) is config:
        return ""
    return (
        f"The default is {config.num_groups} groups, but only {num_modules} modules are adapted: "
        "each has a group to itself. Set num_groups or n_tie to let them share."
    )


def groups_of(modules: Sequence[str], config: AdapterConfig) -> list[list[str]]:
    """The groups in which the settings let these modules share.

    Raises:
        RequestError: more groups were asked for than there are modules.
    """
    config = with_sharing(config, len(modules))
    return assign_groups(modules, config.num_groups, config.sharing, config.n_tie)


def assign_groups(
    modules: Sequence[str],
    num_groups: int | None,
    sharing: Sharing = "tiled",
    n_tie: int | None = None,
) -> list[list[str]]:
    """Cut the modules into runs of exactly `n_tie`, or into `num_groups` near-equal runs.

    With neither, every module has its own group.

    Raises:
        RequestError: there are more groups than modules.
    """
    ordered = _by_type(modules) if sharing == "structured" else list(modules)
    if n_tie is not None:
        return [ordered[start : start + n_tie] for start in range(0, len(ordered), n_tie)]
    count = len(modules) if num_groups is None else num_groups
    if not 1 <= count <= len(modules):
        raise RequestError(
            f"num_groups = {count}, but only {len(modules)} modules matched "
            f"{module_types(modules)}: a group needs a module. Use 1 <= num_groups <= "
            f'{len(modules)}, or list the modules with "tinylora inspect MODEL".'
        )
    edges = [i * len(ordered) // count for i in range(count + 1)]
    return [ordered[start:stop] for start, stop in pairwise(edges)]


def budget(num_params: int, num_modules: int) -> tuple[int, int]:
    """Spend `num_params` as (u, num_groups): fewer, unique numbers first (paper, section 7).

    Up to the number of modules, u = 1 and every number has a group to itself. Beyond it, u is the
    smallest that divides the budget into groups for at least half the modules that it could have.

    Raises:
        RequestError: no such u exists; the message names the nearest budgets that have one.
    """
    if num_params < 1:
        raise RequestError(
            f"params = {num_params}, but an adapter trains at least one parameter. Use params >= 1."
        )
    split = _split(num_params, num_modules)
    if split is None:
        below = next(n for n in range(num_params, 0, -1) if _split(n, num_modules))
        above = next(n for n in range(num_params, 3 * num_params) if _split(n, num_modules))
        raise RequestError(
            f"params = {num_params} cannot be spread over {num_modules} modules: every group has "
            f"the same u. Use {_spelled(below, num_modules)}, or {_spelled(above, num_modules)}; "
            "or set u and num_groups yourself."
        )
    return split


def table(groups: Sequence[Sequence[str]], u: int, max_rows: int = 16) -> list[tuple[str, ...]]:
    """The sharing as rows of text, header first; the middle of a long table is left out."""
    rows = [
        (str(index), str(len(names)), str(u), names[0], names[-1])
        for index, names in enumerate(groups)
    ]
    if len(rows) > max_rows:
        half = max_rows // 2
        hidden = ("...", f"{len(rows) - 2 * half} more groups", "", "", "")
        rows = [*rows[:half], hidden, *rows[-half:]]
    return [("group", "modules", "numbers", "first", "last"), *rows]


def module_types(modules: Sequence[str]) -> list[str]:
    """The names with their numbers taken out, each once, in order of appearance."""
    return list(dict.fromkeys(map(_type_of, modules)))


def _type_of(name: str) -> str:
    return re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", name)


def _by_type(modules: Sequence[str]) -> list[str]:
    rank = {kind: index for index, kind in enumerate(module_types(modules))}
    return sorted(modules, key=lambda name: rank[_type_of(name)])  # stable: depth within a type


def _split(num_params: int, num_modules: int) -> tuple[int, int] | None:
    smallest = -(-num_params // num_modules)
    candidates = range(smallest, 2 * smallest + 1) if smallest > 1 else range(1, 2)
    return next(((u, num_params // u) for u in candidates if num_params % u == 0), None)


def _spelled(num_params: int, num_modules: int) -> str:
    u, num_groups = budget(num_params, num_modules)
    return f"{num_params} (u = {u} in {num_groups} groups)"
