"""`tinylora import`: a checkpoint of PEFT's own TinyLoRA as an adapter file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tinylora.cli.options import parse
from tinylora.errors import RequestError

DESCRIPTION = """Turn a checkpoint of PEFT's TinyLoRA into an adapter file that answers as it does.
Every module gets the rank^2 numbers of its core, because PEFT's projections and its sharing are
other ones."""


@dataclass
class Options:
    """What to read, and what to write."""

    folder: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(help="the folder that PEFT wrote", metavar="PEFT_FOLDER"),
    ]
    out: Annotated[str, tyro.conf.arg(help="the adapter file to make", metavar="FILE")]
    model: Annotated[
        str | None,
        tyro.conf.arg(
            help="the base model: pocket, a local folder, or a hub id",
            metavar="TEXT",
            help_behavior_hint="(default: the checkpoint's)",
        ),
    ] = None
    store: Annotated[
        Literal["fp32", "bf16", "fp16"], tyro.conf.arg(help="precision of the numbers in the file")
    ] = "fp32"
    dtype: Annotated[
        Literal["auto", "fp32", "bf16"],
        tyro.conf.arg(help="precision in which the base model is loaded"),
    ] = "fp32"
    device: Annotated[
        str, tyro.conf.arg(help="where the base model is loaded: cpu, cuda, ...", metavar="TEXT")
    ] = "cpu"


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    options = parse(Options, argv, "import", DESCRIPTION)
    if Path(options.out).exists():
        raise RequestError(f"{options.out} exists already. Name a file that is not there yet.")
    from rich.console import Console

    from tinylora.cli.quiet import quieten
    from tinylora.export.peft_tinylora import from_peft_tinylora, read_settings
    from tinylora.models import load_model

    name = base_name(options, read_settings(Path(options.folder)))
    quieten(name)
    base = load_model(name, options.dtype, options.device)
    imported = from_peft_tinylora(base.model, options.folder)
    adapter = imported.adapter
    num_bytes = adapter.save(options.out, options.store)
    lines = [
        f"{options.out}: {adapter.num_trainable} numbers, {num_bytes:,} bytes.",
        f"The checkpoint has {imported.num_before} trained numbers; here each of the "
        f"{len(adapter.maps)} modules has the {adapter.config.u} of its core.",
        f"At most {imported.residual:.1g} of a module's update could not be expressed; storing the "
        f"numbers in {options.store} changes them by {adapter.rounding(options.store).relative:.1g}"
        " of their size.",
    ]
    for line in lines:
        Console().print(line, soft_wrap=True, highlight=False, markup=False)


def base_name(options: Options, settings: dict[str, object]) -> str:
    """The base model that was asked for, or the one that the checkpoint names.

    Raises:
        RequestError: there is neither.
    """
    name = options.model or settings.get("base_model_name_or_path")
    if not name:
        raise RequestError(f"{options.folder} does not name its base model. Name it by --model.")
    return str(name)
