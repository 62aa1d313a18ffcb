"""What stock PEFT answers with an exported LoRA, beside what the adapter answers.

PEFT reads the names of some mixtures of experts anew: a `gate_proj` of the shared experts, however
it is named, is taken for the fused experts. Such layers are then named as parameters, which it
takes as they are. A LoRA with which it answers differently is refused.
"""

import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinylora.adapter import TinyLora
from tinylora.adapter.lora_writer import SETTINGS
from tinylora.adapter.modules import clean_name
from tinylora.errors import RequestError
from tinylora.models import evaluation_mode

READ_AS_EXPERTS = ("gate_proj", "up_proj", "down_proj", "gate", "w1", "w2", "w3")
NUM_PROMPTS, NUM_TOKENS = 4, 64
SHARE = 0.05  # of the adapter's own effect: half-precision factors and other orders of adding
ROUNDING = 16  # steps of the model's precision


@dataclass(frozen=True)
class Answer:
    """How far PEFT's logits are from the adapter's (root mean square), or why it gave none."""

    difference: float
    cause: str = ""


def settle_names(adapter: TinyLora, folder: Path, prompts: Sequence[Sequence[int]]) -> str:
    """Name the modules of the LoRA in `folder` so that stock PEFT answers as the adapter does.

    Args:
        prompts: token ids to compare on; none: some of the vocabulary.

    Returns:
        What was found, in a sentence.

    Raises:
        RequestError: no way of naming them gives the adapter's answers.
    """
    model: Any = adapter.model
    if not hasattr(model, "get_input_embeddings"):
        return "It was not compared with PEFT: the base is not a Transformers model."
    ids = [list(prompt[:NUM_TOKENS]) for prompt in prompts[:NUM_PROMPTS]] or [_some_ids(model)]
    ours = _logits(model, ids)
    with adapter.disabled():
        effect = _rms(ours - _logits(model, ids))
    allowed = SHARE * effect + ROUNDING * torch.finfo(model.dtype).eps * _rms(ours)
    for name_as in (_as_modules, _as_parameters):
        name_as(folder / SETTINGS)
        answer = _peft_answer(adapter, folder, ids, ours)
        if answer.difference <= allowed:
            return (
                f"Stock PEFT answers as the adapter does: on {len(ours)} positions its logits "
                f"differ by {answer.difference:.2g} (root mean square), and the adapter changes "
                f"them by {effect:.2g}."
            )
    if answer.cause and not all(item.linear.is_plain for item in adapter.maps.values()):
        _as_modules(folder / SETTINGS)
        return f"It was not compared with PEFT, which does not load it here: {answer.cause}."
    found = answer.cause or f"its logits differ by {answer.difference:.2g} (root mean square)"
    raise RequestError(
        f"Stock PEFT does not answer as this adapter does on a {type(model).__name__}: {found}, "
        f"and the adapter changes them by {effect:.2g}. Serve the adapter itself, or export the "
        "merged model (--to merged)."
    )


def _as_modules(path: Path) -> None:
    """Every layer is a target module, by its whole name."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    parameters = settings.pop("target_parameters", [])
    settings["target_modules"] += [name.removesuffix(".weight") for name in parameters]
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _as_parameters(path: Path) -> None:
    """Layers whose names PEFT takes for fused experts are target parameters."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    names = settings["target_modules"]
    taken = [name for name in names if name.rpartition(".")[2] in READ_AS_EXPERTS]
    settings["target_modules"] = [name for name in names if name not in taken]
    settings["target_parameters"] = [f"{name}.weight" for name in taken]
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def sum_in_peft(
    adapter: TinyLora, folders: Sequence[Path], prompts: Sequence[Sequence[int]]
) -> str:
    """Have stock PEFT add up LoRAs, one for each number, by the numbers; compare it with `adapter`.

    Args:
        folders: of the LoRAs, in the order of the numbers.
        prompts: as `settle_names` takes them.

    Returns:
        What was found, in a sentence.

    Raises:
        RequestError: PEFT answers differently.
    """
    model: Any = adapter.model
    if not hasattr(model, "get_input_embeddings"):
        return "They were not compared with PEFT: the base is not a Transformers model."
    ids = [list(prompt[:NUM_TOKENS]) for prompt in prompts[:NUM_PROMPTS]] or [_some_ids(model)]
    ours = _logits(model, ids)
    with adapter.disabled():
        effect = _rms(ours - _logits(model, ids))
    with adapter.disabled(), _loaded_by_peft(model, folders[0]) as (peft_model, _):
        for place, folder in enumerate(folders[1:], 1):
            peft_model.load_adapter(str(folder), f"number {place}")
        names = ["default", *(f"number {place}" for place in range(1, len(folders)))]
        weights = adapter.v.detach().flatten().tolist()
        peft_model.add_weighted_adapter(names, weights, "sum", combination_type="cat")
        peft_model.set_adapter("sum")
        difference = _rms(ours - _logits(model, ids))
    allowed = SHARE * effect + ROUNDING * torch.finfo(model.dtype).eps * _rms(ours)
    if difference > allowed:
        raise RequestError(
            f"Stock PEFT does not add these LoRAs up to the adapter on a {type(model).__name__}: "
            f"its logits differ by {difference:.2g} (root mean square). Export one LoRA (--to "
            "lora)."
        )
    return (
        f"Added up by their numbers in stock PEFT, they answer as the adapter does: on {len(ours)} "
        f"positions the logits differ by {difference:.2g} (root mean square), and the adapter "
        f"changes them by {effect:.2g}."
    )


def _peft_answer(adapter: TinyLora, folder: Path, ids: list[list[int]], ours: Tensor) -> Answer:
    try:
        with adapter.disabled(), _loaded_by_peft(adapter.model, folder) as (_, adapted):
            if wrong := adapted ^ set(adapter.maps):
                return Answer(math.inf, f"it adapts different modules (such as {min(wrong)})")
            return Answer(_rms(ours - _logits(adapter.model, ids)))
    except (ValueError, TypeError, LookupError, RuntimeError, ImportError) as error:
        return Answer(math.inf, str(error).strip().split("\n")[0].rstrip("."))


@contextmanager
def _loaded_by_peft(model: nn.Module, folder: Path) -> Iterator[tuple[Any, set[str]]]:
    """Inside, PEFT's layers are in the model; afterwards nothing is left of them.

    Yields:
        PEFT's model, and the names of the modules that its layers adapt.
    """
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    children = [(module, dict(module._modules)) for module in model.modules()]
    required = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    attributes = set(vars(model))
    try:
        with evaluation_mode(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice for those who train
            loaded = PeftModel.from_pretrained(model, str(folder))
            named = model.named_modules()
            yield loaded, {clean_name(name) for name, m in named if isinstance(m, BaseTunerLayer)}
    finally:
        for module, held in children:
            module._modules = held
        for parameter, is_required in required:
            parameter.requires_grad_(is_required)
        for name in set(vars(model)) - attributes:
            delattr(model, name)


def _some_ids(model: Any) -> list[int]:
    """Tokens all over the vocabulary, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    size = model.get_input_embeddings().weight.shape[0]
    return torch.randint(size, (NUM_TOKENS // 2,), generator=generator).tolist()


def _logits(model: Any, ids: list[list[int]]) -> Tensor:
    """Of every position of every prompt, (positions, vocabulary), in fp32 at least."""
    device = model.get_input_embeddings().weight.device
    with torch.no_grad(), evaluation_mode(model):
        rows = [model(input_ids=torch.tensor([row], device=device)).logits[0] for row in ids]
    logits = torch.cat(rows)
    return logits.float() if logits.dtype.itemsize < 4 else logits


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
