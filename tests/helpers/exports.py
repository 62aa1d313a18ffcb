"""What tests of several exports share: an adapter with numbers, and what a model says."""

from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor

from helpers.tiny import config_of, model_of, values_like
from tinylora.adapter import TinyLora, attach


def adapter_of(
    family: str = "qwen2", dtype: torch.dtype = torch.float32, **settings: Any
) -> TinyLora:
    """An adapter on a model of its own, with values that turn what it says."""
    adapter = attach(model_of(family, dtype), config_of(family, **settings))
    adapter.set_values(values_like(adapter.v))
    return adapter


def served(family: str, folder: Path, dtype: torch.dtype = torch.float32) -> peft.PeftModel:
    """Another copy of the base model, with the exported folder loaded by stock PEFT."""
    return peft.PeftModel.from_pretrained(model_of(family, dtype), str(folder)).eval()


@torch.no_grad()
def logits(model: Any, ids: Tensor) -> Tensor:
    return model(input_ids=ids).logits
