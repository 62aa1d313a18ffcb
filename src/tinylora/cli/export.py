"""`tinylora export`: an adapter in the formats of other engines."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from tinylora.cli.options import Verb
from tinylora.settings.base import OrNone, Settings
from tinylora.settings.evaluate import ADAPTER_HELP, Quantize, recorded_run

if TYPE_CHECKING:
    from tinylora.adapter import TinyLora
    from tinylora.export.card import Exported
    from tinylora.models import Base

NUM_PROMPTS = 16
ONE_PRECISION = ("gguf", "peft-tinylora", "sliders")


class Request(Settings):
    """What to write, and where."""

    adapter: str = Field(title="ADAPTER", description=ADAPTER_HELP)
    to: Literal["lora", "merged", "gguf", "peft-tinylora", "sliders"] = Field(
        description="the format"
    )
    out: str = Field(title="DIR", description="the folder to make")
    store: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32",
        description="precision of what is written (gguf, peft-tinylora and sliders: only fp32)",
    )
    slider_format: Literal["peft", "gguf"] = Field(
        default="peft", description="sliders: PEFT folders, or files for llama.cpp"
    )
    model: Annotated[str | None, OrNone] = Field(
        default=None,
        description="pocket, a local folder, or a hub id (none: the run's or the adapter's)",
    )
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        default="fp32", description="precision in which the base model is loaded"
    )
    quantize: Quantize | None = Field(
        default=None,
        description="how the base model is quantised (default: as the run's or the adapter's was)",
    )
    device: str = Field(default="cpu", description="where the base model is loaded: cpu, cuda, ...")
    force: bool = Field(
        default=False,
        description="load the adapter onto a base model different from its own: it then acts on "
        "other singular vectors than it was trained for",
    )

    @model_validator(mode="after")
    def _has_its_precision(self) -> Self:
        if self.to in ONE_PRECISION and self.store != "fp32":
            raise ValueError(
                f"store = {self.store} with to = {self.to}, but {self.to} is always written in "
                "fp32, so that nothing is rounded. Leave --store out."
            )
        return self

    def idle(self) -> dict[str, str]:
        """Only sliders have a format of their own."""
        if self.to == "sliders":
            return {}
        return {"slider_format": f"with to = {self.to}, but only sliders read it. Leave it out."}


LOADING = ("model", "dtype", "quantize", "device", "force")
FIELDS = Request.model_fields
VERB = Verb(
    name="export",
    description="""\
Write an adapter in the format of another engine, into a new folder with a
model card: lora for PEFT and vLLM, merged for anything that loads a model,
gguf for llama.cpp, peft-tinylora for PEFT's own TinyLoRA, and sliders, one
LoRA for each number, for engines that scale LoRAs.""",
    examples="""\
  tinylora export runs/a --to lora --out exported/a
  tinylora export runs/a --to merged --store bf16 --out exported/merged
  tinylora export tl1:... --to gguf --model Qwen/Qwen2.5-3B-Instruct --out exported/gguf""",
    groups={
        "what is written": {name: f for name, f in FIELDS.items() if name not in LOADING},
        "base model": {name: FIELDS[name] for name in LOADING},
    },
    positional="adapter",
)


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    request = Request(**VERB.given(argv))
    from tinylora.adapter import load
    from tinylora.atomic import check_free

    check_free(Path(request.out))
    base = find_base(request)
    adapter = load(base.model, request.adapter, force=request.force)
    exported = write(request, base, adapter)
    print(f"{request.out}: {exported.num_bytes:,} bytes of weights.", *exported.notes, sep="\n")


def find_base(request: Request) -> "Base":
    """The base model, as `tinylora eval` finds it."""
    from tinylora.cli.quiet import quieten
    from tinylora.evaluate.measure import base_name, load_base

    recorded, adapters = recorded_run([request.adapter]), [request.adapter]
    name = request.model or recorded.get("model")
    quantize = request.quantize or recorded.get("quantize")
    quieten(base_name(name, adapters))
    return load_base(name, adapters, request.dtype, request.device, quantize)


def write(request: Request, base: "Base", adapter: "TinyLora") -> "Exported":
    """Call the export that was asked for."""
    from tinylora import export

    source = request.adapter
    if request.to == "lora":
        prompts = sample_prompts(base)
        return export.to_lora(adapter, request.out, request.store, prompts=prompts, source=source)
    if request.to == "sliders":
        prompts = sample_prompts(base)
        return export.to_sliders(
            adapter, request.out, request.slider_format, prompts=prompts, source=source
        )
    if request.to == "gguf":
        return export.to_gguf(adapter, request.out, source=source)
    if request.to == "peft-tinylora":
        return export.to_peft_tinylora(adapter, request.out, source=source)
    return export.to_merged(
        adapter,
        request.out,
        request.store,
        tokenizer=base.tokenizer,
        prompts=sample_prompts(base),
        source=source,
    )


def sample_prompts(base: "Base") -> list[list[int]]:
    """Word problems, as this model is asked them."""
    from tinylora.prompts import text_of
    from tinylora.tasks import load_task

    text = text_of(base)
    return [text.encode(problem) for problem in load_task("pocket").test[:NUM_PROMPTS]]
