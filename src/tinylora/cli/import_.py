"""`tinylora import`: a checkpoint of PEFT's own TinyLoRA as an adapter file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tinylora.cli.options import Verb
from tinylora.errors import RequestError
from tinylora.settings.base import OrNone, Settings


class Request(Settings):
    """What to read, and what to write."""

    folder: str = Field(title="PEFT_FOLDER", description="the folder that PEFT wrote")
    out: str = Field(title="FILE", description="the adapter file to make")
    store: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", description="precision of the parameters in the file"
    )
    model: Annotated[str | None, OrNone] = Field(
        default=None,
        description="the base model: pocket, a local folder, or a hub id (none: the checkpoint's)",
    )
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        default="fp32", description="precision in which the base model is loaded"
    )
    device: str = Field(default="cpu", description="where the base model is loaded: cpu, cuda, ...")


VERB = Verb(
    name="import",
    description="""\
Turn a checkpoint of PEFT's TinyLoRA into an adapter file that gives the same
answers. Every module gets the rank^2 parameters of its core, because PEFT's
projections and sharing differ from ours.""",
    examples="""\
  tinylora import peft_output/ --out adapter.safetensors
  tinylora import peft_output/ --model models/base --out adapter.safetensors""",
    groups={"options": Request.model_fields},
    positional="folder",
)


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    request = Request(**VERB.given(argv))
    if Path(request.out).exists():
        raise RequestError(f"{request.out} exists already. Name a file that does not exist yet.")
    from tinylora.cli.quiet import quieten
    from tinylora.export.peft_tinylora import from_peft_tinylora, read_settings
    from tinylora.models import load_model

    name = base_name(request, read_settings(Path(request.folder)))
    quieten(name)
    base = load_model(name, request.dtype, request.device)
    imported = from_peft_tinylora(base.model, request.folder)
    adapter = imported.adapter
    num_bytes = adapter.save(request.out, request.store)
    print(
        f"{request.out}: {adapter.num_trainable} parameters, {num_bytes:,} bytes.",
        f"The checkpoint has {imported.num_before} trained parameters; here each of the "
        f"{len(adapter.maps)} modules has the {adapter.config.u} of its core.",
        f"At most {imported.residual:.1g} of a module's update could not be expressed.",
        f"Storing the parameters in {request.store} changes them by "
        f"{adapter.rounding(request.store).relative:.1g} of their size.",
        sep="\n",
    )


def base_name(request: Request, settings: dict[str, object]) -> str:
    """The base model that was asked for, or the one that the checkpoint names.

    Raises:
        RequestError: there is neither.
    """
    name = request.model or settings.get("base_model_name_or_path")
    if not name:
        raise RequestError(f"{request.folder} does not name its base model. Name it with --model.")
    return str(name)
