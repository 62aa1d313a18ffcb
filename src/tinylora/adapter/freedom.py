"""x numbers, y degrees of freedom: how many directions of all R together the numbers reach.

A group's v -> (R of each of its modules) is linear, and its rank follows from the settings by
arithmetic. With a random P for each module it is min(u, rank^2 x modules); where R is diagonal,
min(u, rank x modules). One P for all modules leaves their R equal, and so do the unit matrices:
min(u, rank^2). At rank 1 a normalised P_i is a sign, and only looking at the signs tells.
"""

from collections.abc import Sequence

import torch

from tinylora.adapter.contents import AdapterFile
from tinylora.adapter.factors import projections
from tinylora.settings import AdapterConfig

OWN = ("gaussian", "diagonal")  # projections of which every module has its own
SURPLUS = 64  # columns of signs beyond the rows: that these span less has a chance of 2^-64


def degrees_of_freedom(groups: Sequence[Sequence[str]], config: AdapterConfig) -> int:
    """The rank of v -> all R, over the names of the modules group by group."""
    return sum(_of_group(names, config) for names in groups)


def described(groups: Sequence[Sequence[str]], config: AdapterConfig) -> str:
    """How the numbers are spent, for tables and cards."""
    num_numbers = config.u * len(groups)
    numbers = f"{num_numbers} number{'s' * (num_numbers > 1)}: u = {config.u}"
    freedom = degrees_of_freedom(groups, config)
    return f"{numbers} {_spread(groups)}; {freedom} degree{'s' * (freedom > 1)} of freedom"


def described_file(contents: AdapterFile) -> str:
    """The same of a file, which does not say how many modules a group has."""
    config, (num_groups, _) = contents.config, contents.v.shape
    freedom = degrees_of_freedom([("any",)] * num_groups, config)
    is_at_most = freedom < contents.v.numel() and config.projection in OWN
    shown = f"at most {contents.v.numel()}" if is_at_most else str(freedom)
    return f"{contents.v.numel()} numbers, {shown} degrees of freedom"


def surplus(groups: Sequence[Sequence[str]], config: AdapterConfig) -> str:
    """A warning where a module has more parameters than its R has elements; "" elsewhere."""
    if config.u <= places(config):
        return ""
    num_numbers, freedom = config.u * len(groups), degrees_of_freedom(groups, config)
    size = "rank" if config.projection == "diagonal" else "rank^2"
    cause = f"u = {config.u}, but the R of one module has {size} = {places(config)} elements"
    if freedom < num_numbers:
        return (
            f"{cause}: {num_numbers} numbers reach {freedom} degrees of freedom. The others change "
            "the size of a step, not what can be learned. Use a smaller u, or more groups."
        )
    return (
        f"{cause}: the modules of a group cannot vary independently. The same number of "
        "parameters in more groups, with a smaller u, does better in the paper (section 7)."
    )


def places(config: AdapterConfig) -> int:
    """How many elements of one R the projections reach."""
    return config.rank if config.projection == "diagonal" else config.rank**2


def _of_group(names: Sequence[str], config: AdapterConfig) -> int:
    if config.projection not in OWN:
        return min(config.u, places(config))
    most = min(config.u, places(config) * len(names))
    return _rank_of_signs(names, config) if config.rank == 1 and most > 1 else most


def _rank_of_signs(names: Sequence[str], config: AdapterConfig) -> int:
    u = min(config.u, len(names) + SURPLUS)
    few = config.model_copy(update={"u": u})
    signs = torch.stack([projections(name, few).flatten() for name in names])  # (modules, u)
    return int(torch.linalg.matrix_rank(signs))


def _spread(groups: Sequence[Sequence[str]]) -> str:
    sizes = [len(names) for names in groups]
    if len(groups) == 1:
        return f"tied over {'all ' * (sizes[0] > 1)}{sizes[0]} module{'s' * (sizes[0] > 1)}"
    if len(set(sizes)) == 1:
        return f"in {len(groups)} groups of {sizes[0]} module{'s' * (sizes[0] > 1)}"
    if len(set(sizes[:-1])) == 1 and sizes[-1] < sizes[0]:
        return f"in {len(groups)} groups of {sizes[0]} modules, the last of {sizes[-1]}"
    return f"in {len(groups)} groups of {min(sizes)} or {max(sizes)} modules"
