"""A whole model with the update written into its weights: W + U S R V^T.

In half precision most of a tiny update is rounded away, because a change of less than half a step
of an element is lost; the report says how much arrived, and what that did to the logits.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinylora.adapter import FoldReport, TinyLora
from tinylora.adapter.files import DTYPES, Store
from tinylora.adapter.fold import fold_report, hindrance, shared_parameters
from tinylora.adapter.hooks import REGISTERED_NAME
from tinylora.adapter.lora_writer import check_finite
from tinylora.atomic import new_folder
from tinylora.errors import RequestError
from tinylora.export.card import Exported, ExportKind, write_card
from tinylora.models import evaluation_mode

KIND = ExportKind(
    to="merged",
    what="a merged model",
    library="transformers",
    relation="finetune",
    how="""python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")""",
)


@dataclass(frozen=True)
class LogitReport:
    """How far the merged model's next-token distributions are from the adapter's."""

    mean_kl: float  # nats, over all positions of all prompts
    max_difference: float  # of two logits
    changed: float  # share of positions whose most likely token is another
    num_positions: int


def to_merged(
    adapter: TinyLora,
    folder: str | Path,
    dtype: Store = "fp32",
    *,
    tokenizer: Any = None,
    prompts: Sequence[Sequence[int]] = (),
    source: str | Path | None = None,
) -> Exported:
    """Write the base model with the update in its weights, as `save_pretrained` writes models.

    The model itself is as it was afterwards, bit for bit.

    Args:
        adapter: attached to its base.
        folder: which is made, and must not be there yet.
        dtype: of all its weights. It must be no finer than the model at hand.
        tokenizer: is saved beside the model.
        prompts: token ids; where weights are rounded, the report compares logits on them.
        source: what the adapter was loaded from, for the model card.

    Raises:
        RequestError: the base is quantised, or coarser than dtype; the folder is not free; v is
            not finite.
        OSError: the disk is full.
    """
    _check(adapter, dtype)
    model = adapter.model
    with new_folder(Path(folder)) as scratch:
        exact = [_logits(model, ids) for ids in prompts]
        with _merged(adapter, DTYPES[dtype]) as rounding:
            num_bytes = _save(model, scratch, DTYPES[dtype])
            merged = [_logits(model, ids) for ids in prompts]
        if tokenizer is not None:
            tokenizer.save_pretrained(scratch)
        logits = compare_logits(exact, merged) if prompts else None
        exported = Exported(Path(folder), num_bytes, _notes(dtype, rounding, logits))
        write_card(scratch, KIND, adapter, exported, source)
    return exported


def _check(adapter: TinyLora, dtype: Store) -> None:
    check_finite(adapter)
    shared = shared_parameters(adapter.model)
    for name, item in adapter.maps.items():
        cause = hindrance(item, shared, allow_half=True)
        if cause:
            raise RequestError(
                f"{name} cannot be merged: it is {cause}. Load the base model without "
                "quantisation, or export a LoRA, which leaves every weight as it is."
            )
    for name, tensor in adapter.model.state_dict().items():
        is_half = tensor.is_floating_point() and tensor.dtype.itemsize < 4
        if is_half and tensor.dtype != DTYPES[dtype]:
            raise RequestError(
                f"{name} is {tensor.dtype}, so merged weights in {dtype} would be rounded twice. "
                "Load the base model in fp32, which is exact, or write that dtype."
            )


@contextmanager
def _merged(adapter: TinyLora, dtype: torch.dtype) -> Iterator[FoldReport]:
    """Inside, every weight has the value that it has in the merged model.

    How much of the update arrived is counted from the base model's weights in that precision.
    """
    maps = list(adapter.maps.values())
    before = [item.linear.weight().clone().to(dtype) for item in maps]
    with adapter.folded(allow_half=True), _rounded(adapter.model, dtype):
        yield fold_report(maps, before, adapter.v.detach())


@contextmanager
def _rounded(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Inside, what the model would save has values of this precision; afterwards it is restored."""
    saved: list[tuple[Tensor, Tensor]] = []
    try:
        for tensor in model.state_dict().values():
            rounded = tensor.to(dtype) if tensor.is_floating_point() else tensor
            if not torch.equal(tensor, rounded.to(tensor.dtype)):
                saved.append((tensor, tensor.clone()))
                tensor.copy_(rounded)
        yield
    finally:
        for tensor, original in saved:
            tensor.copy_(original)


def _save(model: Any, folder: Path, dtype: torch.dtype) -> int:
    """`save_pretrained` in another precision; returns the bytes of the weights."""
    state: dict[str, Tensor] = {}
    by_place: dict[int, Tensor] = {}  # tied weights stay one tensor
    for name, tensor in model.state_dict().items():
        if name != REGISTERED_NAME:
            stored = tensor.to(dtype) if tensor.is_floating_point() else tensor
            state[name] = by_place.setdefault(tensor.data_ptr(), stored)
    model.save_pretrained(folder, state_dict=state)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = str(dtype).removeprefix("torch.")
    config.pop("gguf_quantization", None)  # these are not a GGUF file's weights any more
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _logits(model: Any, ids: Sequence[int]) -> Tensor:
    """Of every position, (tokens, vocabulary)."""
    place = next(model.parameters()).device
    with torch.no_grad(), evaluation_mode(model):
        logits: Tensor = model(input_ids=torch.tensor([list(ids)], device=place)).logits[0]
    return logits


def compare_logits(exact: Sequence[Tensor], merged: Sequence[Tensor]) -> LogitReport:
    """Over all positions: KL(exact || merged), the largest difference, and changed choices."""
    p, q = (torch.cat(list(part)).double() for part in (exact, merged))  # (positions, vocabulary)
    log_p, log_q = p.log_softmax(-1), q.log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)
    changed = (p.argmax(-1) != q.argmax(-1)).double().mean()
    return LogitReport(float(kl.mean()), float((p - q).abs().max()), float(changed), len(p))


def _notes(dtype: Store, rounding: FoldReport, logits: LogitReport | None) -> tuple[str, ...]:
    notes = [
        f"In {dtype}, {1 - rounding.rounded_away:.2%} of the update arrived in the weights, with a "
        f"relative error of {rounding.relative_error:.2g}."
    ]
    if logits is not None:
        notes.append(
            f"Against the adapter itself, on {logits.num_positions} positions of sample prompts: "
            f"KL {logits.mean_kl:.2g} nats a token, largest difference of a logit "
            f"{logits.max_difference:.2g}, a different most likely token at {logits.changed:.2%}."
        )
    return tuple(notes)
