"""`tinylora export`: an adapter as a LoRA, a merged model, a llama.cpp LoRA, or PEFT's TinyLoRA."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from tinylora.atomic import check_free
from tinylora.cli.options import ADAPTER_HELP, Force, Quantize, parse
from tinylora.errors import RequestError

if TYPE_CHECKING:
    from tinylora.adapter import TinyLora
    from tinylora.export.card import Exported
    from tinylora.models import Base

DESCRIPTION = """Write an adapter in the format of another engine, into a new folder with a model
card: lora for PEFT and vLLM, merged for anything that loads a model, gguf for llama.cpp, and
peft-tinylora for PEFT's own TinyLoRA."""
NUM_PROMPTS = 16
ONE_PRECISION = ("gguf", "peft-tinylora")


@dataclass
class Options:
    """What to write, and where."""

    adapter: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(help=ADAPTER_HELP, metavar="ADAPTER"),
    ]
    to: Annotated[
        Literal["lora", "merged", "gguf", "peft-tinylora"], tyro.conf.arg(help="the format")
    ]
    out: Annotated[str, tyro.conf.arg(help="the folder to make", metavar="DIR")]
    model: Annotated[
        str | None,
        tyro.conf.arg(
            help="the base model: pocket, a local folder, or a hub id",
            metavar="TEXT",
            help_behavior_hint="(default: the run's, else the adapter's)",
        ),
    ] = None
    store: Annotated[
        Literal["fp32", "bf16", "fp16"],
        tyro.conf.arg(help="precision of what is written (gguf and peft-tinylora: fp32)"),
    ] = "fp32"
    dtype: Annotated[
        Literal["auto", "fp32", "bf16"],
        tyro.conf.arg(help="precision in which the base model is loaded"),
    ] = "fp32"
    quantize: Quantize = None
    device: Annotated[
        str, tyro.conf.arg(help="where the base model is loaded: cpu, cuda, ...", metavar="TEXT")
    ] = "cpu"
    force: Force = False


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    options = parse(Options, argv, "export", DESCRIPTION)
    check(options)
    from rich.console import Console

    from tinylora.adapter import load

    base = load_base(options)
    adapter = load(base.model, options.adapter, force=options.force)
    exported = write(options, base, adapter)
    lines = [f"{options.out}: {exported.num_bytes:,} bytes of weights.", *exported.notes]
    for line in lines:
        Console().print(line, soft_wrap=True, highlight=False, markup=False)


def check(options: Options) -> None:
    """What can be refused before anything is loaded.

    Raises:
        RequestError: the folder is not free, or the format has one precision alone.
    """
    check_free(Path(options.out))
    if options.to in ONE_PRECISION and options.store != "fp32":
        raise RequestError(
            f"--store {options.store} with --to {options.to}, but that is written in fp32 alone: "
            "the adapter is small, and nothing is rounded. Leave --store out."
        )


def load_base(options: Options) -> "Base":
    """The base model, as `tinylora eval` finds it."""
    from tinylora.cli import eval as eval_verb
    from tinylora.evaluate import measure

    asked = eval_verb.AllOptions(
        model=options.model,
        adapter=options.adapter,
        dtype=options.dtype,
        quantize=options.quantize,
        device=options.device,
    )
    return measure.load_base(eval_verb.with_recorded(asked))


def write(options: Options, base: "Base", adapter: "TinyLora") -> "Exported":
    """Call the export that was asked for."""
    from tinylora import export

    source = options.adapter
    if options.to == "lora":
        prompts = sample_prompts(base)
        return export.to_lora(adapter, options.out, options.store, prompts=prompts, source=source)
    if options.to == "gguf":
        return export.to_gguf(adapter, options.out, source=source)
    if options.to == "peft-tinylora":
        return export.to_peft_tinylora(adapter, options.out, source=source)
    return export.to_merged(
        adapter,
        options.out,
        options.store,
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
