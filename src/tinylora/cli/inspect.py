"""`tinylora inspect`: what a model offers to adapt, or what an adapter file holds."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from tinylora.cli.options import parse
from tinylora.errors import RequestError

if TYPE_CHECKING:
    from tinylora.adapter.modules import LinearMap

DESCRIPTION = """What a model offers to adapt, or what an adapter file holds."""


@dataclass
class Options:
    """One thing to look at."""

    what: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(
            help="pocket, a model's folder or hub id, an adapter file, or a run folder",
            metavar="MODEL|ADAPTER",
        ),
    ]
    num_groups: Annotated[
        str | None,
        tyro.conf.arg(
            help="for a model: show how so many groups share (none: no sharing)",
            metavar="INT",
            help_behavior_hint="(default: 1)",
        ),
    ] = None
    sharing: Annotated[
        str | None,
        tyro.conf.arg(
            help="for a model: how they share",
            metavar="tiled|structured",
            help_behavior_hint="(default: tiled)",
        ),
    ] = None
    targets: Annotated[
        str | None,
        tyro.conf.arg(
            help="for a model: the maps to adapt",
            metavar="NAME,NAME,...",
            help_behavior_hint="(default: the seven of a Llama block)",
        ),
    ] = None


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    options = parse(Options, argv, "inspect", DESCRIPTION)
    from tinylora.adapter.files import FILE_NAME

    path = Path(options.what).expanduser()
    if path.is_file() or (path / FILE_NAME).is_file():
        show_adapter(path)
    elif (path / "config.yaml").is_file():
        raise RequestError(
            f"{path} is a run that has no adapter yet: it still trains, or it was interrupted. Go "
            f'on with it by "tinylora train --resume --output {path}".'
        )
    elif path.suffix == ".safetensors":
        raise RequestError(f"There is no adapter file {path}. Give a file, or a run folder.")
    else:
        show_model(options)


def show_adapter(path: Path) -> None:
    """Everything in the file, in words."""
    from rich.console import Console

    from tinylora.adapter import files

    held = files.read(path)
    num_groups, u = held.v.shape
    settings = ", ".join(f"{name} = {value}" for name, value in held.config.model_dump().items())
    left_out = ", ".join(held.left_out) or "none"
    lines = [
        f"An adapter of {num_groups * u} numbers: {num_groups} groups of modules, u = {u}.",
        f"Precision: {held.v.dtype}, {held.v.numel() * held.v.element_size()} bytes of numbers.",
        f"Base model: {held.base or 'not recorded'}"
        + (f" at {held.revision}" * bool(held.revision)),
        f"Fingerprint of the base: {held.fingerprint or 'not taken'}",
        f"Settings: {settings}",
        f"Modules left out, because their weights do not define the directions: {left_out}",
        f"Hash of the modules' names: {held.modules}",
        f"|v| = {float(held.v.float().norm()):.6g}",
        *(f"v[{i}] = {_numbers(row.float().tolist())}" for i, row in enumerate(held.v)),
    ]
    for line in lines:
        Console().print(line, soft_wrap=True, highlight=False, markup=False)


def show_model(options: Options) -> None:
    """The matched linear maps, and how they would share."""
    from rich.console import Console

    from tinylora.adapter.modules import linear_maps
    from tinylora.cli.quiet import quieten
    from tinylora.config import AdapterConfig
    from tinylora.models import load_skeleton
    from tinylora.train.tables import module_table, sharing_table

    names = ("num_groups", "sharing", "targets")
    chosen = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    config = AdapterConfig(**chosen)
    quieten(options.what)
    model = load_skeleton(options.what)
    note = None
    try:
        maps = linear_maps(model, config.targets, config.layers)
    except RequestError:
        present = every_linear_map(model)
        if options.targets is not None or not present:
            raise
        maps, note = present, _other_targets(present)
    num_weights = sum(parameter.numel() for parameter in model.parameters())
    title = f"{options.what}: {type(model).__name__}, {num_weights:,} parameters"
    console = Console()
    console.print(module_table(maps, f"{title}; {len(maps)} linear maps matched"))
    if note is not None:
        console.print(note, soft_wrap=True, highlight=False, markup=False)
        return
    num_groups, sharing = sharing_table(maps, config)
    console.print(sharing)
    console.print(
        f"With u numbers a group, {num_groups} x u are trained; without sharing, {len(maps)} x u."
    )


def every_linear_map(model: Any) -> "list[LinearMap]":
    """The linear maps of a model, whatever they are called."""
    from tinylora.adapter.modules import linear_maps

    leaves = {name for name, module in model.named_modules() if not list(module.children())}
    found: list[LinearMap] = []
    for target in sorted({name.rpartition(".")[2] for name in leaves}):
        with suppress(RequestError):  # it is no linear map
            found += linear_maps(model, (target,))
    places = {name: place for place, (name, _) in enumerate(model.named_modules())}
    return sorted(found, key=lambda linear: places[linear.name])


def _other_targets(maps: "Sequence[LinearMap]") -> str:
    """What to adapt where the seven maps of a Llama block are not there."""
    inside = [linear.name.rpartition(".")[2] for linear in maps if linear.layer is not None]
    return (
        "The default targets, the seven maps of a Llama block, are not all there. To adapt the "
        f"maps inside the blocks: --targets {','.join(dict.fromkeys(inside))}"
    )


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.6g}" for value in values)
