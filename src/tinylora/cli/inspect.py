"""`tinylora inspect`: what a model offers to adapt, or what an adapter file holds."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from tinylora.cli.options import parse
from tinylora.errors import RequestError

if TYPE_CHECKING:
    from rich.console import Console

    from tinylora.adapter.files import AdapterFile
    from tinylora.adapter.modules import LinearMap
    from tinylora.settings import AdapterConfig

MANY_WEIGHTS = 10**9
MODEL_SETTINGS = ("rank", "num_groups", "sharing", "targets")
DESCRIPTION = """What a model offers to adapt, or what an adapter file holds."""


@dataclass
class Options:
    """One thing to look at."""

    what: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(
            help="pocket, a model's folder or hub id; an adapter file, a run folder, an adapter's "
            "hub id or text (tl1:...)",
            metavar="MODEL|ADAPTER",
        ),
    ]
    model: Annotated[
        str | None,
        tyro.conf.arg(
            help="for an adapter: the base to check it against",
            metavar="TEXT",
            help_behavior_hint="(default: the one it names, if that is on this machine)",
        ),
    ] = None
    spectrum: Annotated[
        Literal["auto", "yes", "no"],
        tyro.conf.arg(
            help="for a model: singular values of its maps (auto: where the weights are on this "
            "machine, and at most a billion)",
        ),
    ] = "auto"
    rank: Annotated[
        str | None,
        tyro.conf.arg(
            help="for a model: how many singular directions are kept",
            metavar="INT",
            help_behavior_hint="(default: 2)",
        ),
    ] = None
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
    from tinylora.adapter.files import FILE_NAME, PEFT_SETTINGS
    from tinylora.adapter.text import is_text

    what = os.path.expanduser(options.what)
    held = [os.path.isfile(os.path.join(what, name)) for name in (FILE_NAME, PEFT_SETTINGS)]
    if is_text(what) or os.path.isfile(what) or any(held):
        if chosen := chosen_settings(options):
            raise RequestError(
                f"--{next(iter(chosen)).replace('_', '-')} is for a model, but {options.what} is "
                "an adapter, whose settings are in it. Leave it out."
            )
        show_adapter(what, options.model)
    elif os.path.isfile(os.path.join(what, "config.yaml")):
        raise RequestError(
            f"{what} is a run that has no adapter yet: it still trains, or it was interrupted. Go "
            f'on with it by "tinylora train --resume --output {what}".'
        )
    elif what.endswith(".safetensors"):
        raise RequestError(f"There is no adapter file {what}. Give a file, or a run folder.")
    else:
        show_model_or_hub_adapter(options)


def chosen_settings(options: Options) -> dict[str, Any]:
    """Those of an adapter to be, as far as they were given."""
    values = {name: getattr(options, name) for name in MODEL_SETTINGS}
    return {name: value for name, value in values.items() if value is not None}


def show_model_or_hub_adapter(options: Options) -> None:
    """A hub id is that of a model; failing that, of an adapter."""
    from tinylora.adapter import hub

    try:
        show_model(options)
    except RequestError:
        if not hub.is_hub_id(options.what) or options.targets is not None:
            raise
        with suppress(RequestError):
            show_adapter(options.what, options.model)
            return
        raise


def show_adapter(source: str, model: str | None) -> None:
    """Everything in the adapter, in words, and whether the base at hand is its base."""
    from rich.console import Console

    from tinylora.adapter import files, fingerprint
    from tinylora.adapter.contents import smallest_store
    from tinylora.adapter.freedom import described_file
    from tinylora.adapter.text import encode

    held = files.read(source)
    num_groups, u = held.v.shape
    settings = ", ".join(f"{name} = {value}" for name, value in held.config.model_dump().items())
    left_out = ", ".join(held.left_out) or "none"
    lines = [
        f"An adapter of {num_groups * u} numbers: {num_groups} group{'s' * (num_groups > 1)} of "
        f"modules, u = {u}.",
        f"Degrees of freedom: {described_file(held)}.",
        f"Precision: {held.v.dtype}, {held.v.numel() * held.v.element_size()} bytes of numbers.",
        f"Base model: {held.base or 'not recorded'}"
        + (f" at {held.revision}" * bool(held.revision)),
        f"Fingerprint of the base: {fingerprint.described(held.fingerprint)}",
        f"The base at hand: {base_at_hand(held, model)}",
        f"Settings: {settings}",
        f"Modules left out, because their weights do not define the directions: {left_out}",
        f"Hash of the modules' names: {held.modules}",
        f"|v| = {float(held.v.float().norm()):.6g}",
        *(f"v[{i}] = {_numbers(row.float().tolist())}" for i, row in enumerate(held.v)),
        f"As one line: {encode(held, smallest_store(held.v))}",
    ]
    for line in lines:
        Console().print(line, soft_wrap=True, highlight=False, markup=False)


def base_at_hand(held: "AdapterFile", model: str | None) -> str:
    """Whether the model that was named, or else the one that the adapter names, is its base."""
    from tinylora.adapter.fingerprint import quantization
    from tinylora.adapter.loading import base_problem
    from tinylora.cli.quiet import quieten
    from tinylora.mapped import is_here, mapped_model
    from tinylora.models import load_model, stored_quantization

    name = model or held.base
    if not held.fingerprint:
        return "not checked, because no fingerprint was taken"
    is_found = model is not None
    with suppress(RequestError):  # the base of a file need not be a name that is found
        is_found = is_found or bool(name and is_here(name))
    if not is_found:
        return f"{name or 'its base'} is not on this machine under that name; name it by --model"
    quieten(name)
    quantize = quantization(held.fingerprint)
    if quantize == "none" or stored_quantization(name):
        at_hand = mapped_model(name)
    else:
        try:
            at_hand = load_model(name, device="cpu", quantize=quantize).model
        except RequestError as error:
            return f"{name} was not checked: {error}"
        name = f"{name}, quantised by --quantize {quantize},"
    problem = base_problem(at_hand, held)
    return f"{name} differs: {problem}" if problem else f"{name} is the base it was trained on"


def show_model(options: Options) -> None:
    """The matched linear maps, how they would share, and what an SVD keeps of each."""
    from rich.console import Console

    from tinylora.adapter.modules import linear_maps, resolved
    from tinylora.adapter.sharing import sharing_note
    from tinylora.cli.quiet import quieten
    from tinylora.models import load_skeleton
    from tinylora.run.tables import module_table, sharing_table
    from tinylora.settings import AdapterConfig

    config = asked = AdapterConfig(**chosen_settings(options))
    quieten(options.what)
    model = load_skeleton(options.what)
    if options.model is not None:
        raise RequestError(
            f"--model {options.model} names the base that an adapter is checked against, but "
            f"{options.what} is a model itself. Leave --model out."
        )
    note = None
    try:
        config = resolved(config, model)
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
    if fitted := sharing_note(asked, len(maps)):
        console.print(fitted)
    console.print(
        f"With u numbers a group, {num_groups} x u are trained; without sharing, {len(maps)} x u."
    )
    show_spectrum(options, config, num_weights, console)


def show_spectrum(
    options: Options, config: "AdapterConfig", num_weights: int, console: "Console"
) -> None:
    """The leading singular values, where they are wanted and the weights are here."""
    from tinylora.adapter.modules import linear_maps
    from tinylora.cli.spectrum import spectrum_table
    from tinylora.mapped import is_here, mapped_model

    if options.spectrum == "no":
        return
    if options.spectrum == "auto" and not is_here(options.what):
        console.print("Singular values are shown where the weights are on this machine.")
    elif options.spectrum == "auto" and num_weights > MANY_WEIGHTS:
        console.print("Singular values of so large a model take minutes: --spectrum yes")
    else:
        maps = linear_maps(mapped_model(options.what), config.targets, config.layers)
        console.print(spectrum_table(maps, config, console))


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
