"""`tinylora inspect`: what a model offers to adapt, or what an adapter file holds."""

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tinylora.cli.options import Verb, split
from tinylora.errors import RequestError
from tinylora.settings import AdapterConfig
from tinylora.settings.base import OrNone, Settings

if TYPE_CHECKING:
    from rich.console import Console

    from tinylora.adapter.files import AdapterFile

MANY_WEIGHTS = 10**9


class Request(Settings):
    """One thing to look at."""

    what: str = Field(
        title="MODEL|ADAPTER",
        description="pocket, a model's folder or hub id; an adapter file, a run folder, an "
        "adapter's hub id or text (tl1:...)",
    )
    model: Annotated[str | None, OrNone] = Field(
        default=None,
        description="of an adapter: the base model to check it against (none: the one it names, "
        "if that is on this machine)",
    )
    spectrum: Literal["auto", "yes", "no"] = Field(
        default="auto",
        description="of a model: singular values of its linear layers (auto: where the weights "
        "are on this machine, and at most a billion)",
    )


MODEL_SETTINGS = ("rank", "num_groups", "sharing", "targets")
VERB = Verb(
    name="inspect",
    description="Show what a model offers to adapt, or what an adapter file holds.",
    examples="""\
  tinylora inspect pocket --rank 4             a model's linear layers and singular values
  tinylora inspect Qwen/Qwen2.5-3B-Instruct    a model on the hub, without its weights
  tinylora inspect runs/a                      the adapter of a run
  tinylora inspect tl1:... --model pocket      an adapter as text, and whether it fits a model""",
    groups={
        "options": Request.model_fields,
        "how a model would be adapted": {n: AdapterConfig.model_fields[n] for n in MODEL_SETTINGS},
    },
    positional="what",
)


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    request, settings = split(Request, VERB.given(argv))
    from tinylora.adapter.files import FILE_NAME, PEFT_SETTINGS
    from tinylora.adapter.text import is_text

    what = os.path.expanduser(request.what)
    held = [os.path.isfile(os.path.join(what, name)) for name in (FILE_NAME, PEFT_SETTINGS)]
    if is_text(what) or os.path.isfile(what) or any(held):
        if settings:
            raise RequestError(
                f"--{next(iter(settings)).replace('_', '-')} is for a model, but {request.what} "
                "is an adapter, which has its own settings. Leave it out."
            )
        show_adapter(what, request.model)
    elif os.path.isfile(os.path.join(what, "config.yaml")):
        raise RequestError(
            f"The run {what} has not written an adapter yet: it is still training, or it was "
            f'interrupted. Resume it with "tinylora train --resume --output {what}".'
        )
    elif what.endswith(".safetensors"):
        raise RequestError(f"The adapter file {what} does not exist. Pass a file, or a run folder.")
    else:
        show_model_or_hub_adapter(request, AdapterConfig(**settings))


def show_model_or_hub_adapter(request: Request, config: AdapterConfig) -> None:
    """A hub id is that of a model; failing that, of an adapter."""
    from tinylora.adapter import hub

    try:
        show_model(request, config)
    except RequestError:
        if not hub.is_hub_id(request.what) or "targets" in config.model_fields_set:
            raise
        with suppress(RequestError):
            show_adapter(request.what, request.model)
            return
        raise


def show_adapter(source: str, model: str | None) -> None:
    """Everything in the adapter, in words, and whether the base model here is its own."""
    from tinylora.adapter import files, fingerprint
    from tinylora.adapter.contents import smallest_store
    from tinylora.adapter.freedom import described_file
    from tinylora.adapter.text import encode

    held = files.read(source)
    num_groups, u = held.v.shape
    settings = ", ".join(f"{name} = {value}" for name, value in held.config.model_dump().items())
    left_out = ", ".join(held.left_out) or "none"
    print(
        f"An adapter of {num_groups * u} parameters: {num_groups} "
        f"group{'s' * (num_groups > 1)} of modules, u = {u}.",
        f"Degrees of freedom: {described_file(held)}.",
        f"Precision: {held.v.dtype}, {held.v.numel() * held.v.element_size()} bytes of parameters.",
        f"Base model: {held.base or 'not recorded'}"
        + (f" at {held.revision}" * bool(held.revision)),
        f"Fingerprint of the base: {fingerprint.described(held.fingerprint)}",
        f"The base model here: {base_at_hand(held, model)}",
        f"Settings: {settings}",
        f"Modules left out, because their weights do not define the singular vectors: {left_out}",
        f"Hash of the modules' names: {held.modules}",
        f"|v| = {float(held.v.float().norm()):.6g}",
        *(f"v[{i}] = {_numbers(row.float().tolist())}" for i, row in enumerate(held.v)),
        f"As one line: {encode(held, smallest_store(held.v))}",
        sep="\n",
    )


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
        return f"{name or 'its base'} is not on this machine under that name; name it with --model"
    quieten(name)
    quantize = quantization(held.fingerprint)
    if quantize == "none" or stored_quantization(name):
        at_hand = mapped_model(name)
    else:
        try:
            at_hand = load_model(name, device="cpu", quantize=quantize).model
        except RequestError as error:
            return f"{name} was not checked: {error}"
        name = f"{name}, quantised with --quantize {quantize},"
    problem = base_problem(at_hand, held)
    return f"{name} differs: {problem}" if problem else f"{name} is the base it was trained on"


def show_model(request: Request, config: AdapterConfig) -> None:
    """The matched linear layers, how they would share, and what an SVD keeps of each."""
    from rich.console import Console

    from tinylora.adapter.modules import linear_maps, resolved
    from tinylora.adapter.sharing import sharing_note
    from tinylora.cli.quiet import quieten
    from tinylora.models import load_skeleton
    from tinylora.run.module_tables import coverage_note, module_table, sharing_table

    quieten(request.what)
    model, asked = load_skeleton(request.what), config
    if request.model is not None:
        raise RequestError(
            f"--model {request.model} names the base that an adapter is checked against, but "
            f"{request.what} is a model itself. Leave --model out."
        )
    config = resolved(config, model)
    maps = linear_maps(model, config.targets, config.layers)
    num_weights = sum(parameter.numel() for parameter in model.parameters())
    title = f"{request.what}: {type(model).__name__}, {num_weights:,} parameters"
    console = Console()
    console.print(module_table(maps, f"{title}; {len(maps)} linear layers matched"))
    num_groups, sharing = sharing_table(maps, config)
    console.print(sharing)
    for note in filter(None, (sharing_note(asked, len(maps)), coverage_note(model, maps))):
        print(note)
    print(
        f"With u parameters in each group, {num_groups} x u are trained; without sharing, "
        f"{len(maps)} x u."
    )
    show_spectrum(request, config, num_weights, console)


def show_spectrum(
    request: Request, config: AdapterConfig, num_weights: int, console: "Console"
) -> None:
    """The leading singular values, where they are wanted and the weights are here."""
    from tinylora.adapter.modules import linear_maps
    from tinylora.cli.spectrum import spectrum_table
    from tinylora.mapped import is_here, mapped_model

    if request.spectrum == "no":
        return
    if request.spectrum == "auto" and not is_here(request.what):
        print("Singular values are shown only where the weights are on this machine.")
    elif request.spectrum == "auto" and num_weights > MANY_WEIGHTS:
        print(
            "Singular values of a model of this size take minutes; show them with --spectrum yes."
        )
    else:
        maps = linear_maps(mapped_model(request.what), config.targets, config.layers)
        console.print(spectrum_table(maps, config, console))


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.6g}" for value in values)
