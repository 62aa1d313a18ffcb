"""A LoRA in PEFT's format, for PEFT, vLLM and everything else that reads it: A = V^T, B = U S R.

The factors are the adapter's own: nothing is decomposed again. r = lora_alpha, so that the scaling
is 1; modules that the adapter left out are absent. The rank is the adapter's: an engine that wants
a larger one pads with zeros by itself.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from tinylora.adapter import TinyLora
from tinylora.adapter.files import DTYPES, Store
from tinylora.adapter.hooks import AdaptedMap
from tinylora.adapter.modules import clean_name
from tinylora.atomic import new_folder
from tinylora.errors import RequestError

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"


def to_lora(adapter: TinyLora, folder: str | Path, dtype: Store = "fp32") -> int:
    """Write the adapter as it is now into a new LoRA folder; returns the bytes of its weights.

    Args:
        dtype: of A and B. The update of a LoRA in half precision is off by about 0.3 %.

    Raises:
        RequestError: the folder is not free, or v is not finite.
        OSError: the disk is full.
    """
    return LoraWriter(adapter, dtype).write(folder)


@dataclass(frozen=True)
class LoraWriter:
    """Writes version after version of one adapter: A is made once, and B follows v."""

    adapter: TinyLora
    dtype: Store = "fp32"

    def write(self, folder: str | Path) -> int:
        """Write the present version into a new folder; returns the bytes of its weights.

        Raises:
            RequestError: the folder is not free, or v is not finite.
            OSError: the disk is full.
        """
        data = save(self.tensors(), {"format": "pt"})
        with new_folder(Path(folder)) as scratch:
            (scratch / SETTINGS).write_text(self.settings, encoding="utf-8")
            (scratch / WEIGHTS).write_bytes(data)
        return len(data)

    def tensors(self) -> dict[str, Tensor]:
        """A (r, d_in) and B (d_out, r) of every adapted map, by PEFT's names."""
        check_finite(self.adapter)
        v = self.adapter.v.detach()
        made = {
            _key(name, "B"): self._stored(product(item, v))
            for name, item in self.adapter.maps.items()
        }
        return self._A | made

    @cached_property
    def settings(self) -> str:
        """`adapter_config.json`."""
        return json.dumps(lora_settings(self.adapter), indent=2) + "\n"

    @cached_property
    def _A(self) -> dict[str, Tensor]:
        return {_key(name, "A"): self._stored(m.A) for name, m in self.adapter.maps.items()}

    def _stored(self, factor: Tensor) -> Tensor:
        return factor.to("cpu", DTYPES[self.dtype]).contiguous()


def product(item: AdaptedMap, v: Tensor) -> Tensor:
    """B R = U S R, (d_out, r), in the dtype of v."""
    return item.B @ item.mix(v).to(item.B.device)


def check_finite(adapter: TinyLora) -> None:
    """Refuse an adapter that answers nothing."""
    if not bool(torch.isfinite(adapter.v).all()):
        raise RequestError(
            "v holds inf or nan, so the exported model would answer nothing. Export an earlier "
            "version, or train with a smaller rate."
        )


def lora_settings(adapter: TinyLora) -> dict[str, Any]:
    """What PEFT has to know: its own defaults, save that nothing is scaled."""
    maps = adapter.maps.values()
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": adapter.base[0],
        "revision": adapter.base[1] or None,
        "r": adapter.config.rank,
        "lora_alpha": adapter.config.rank,
        "target_modules": target_modules(adapter),
        "bias": "none",
        "fan_in_fan_out": any(type(item.linear.module).__name__ == "Conv1D" for item in maps),
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }


def target_modules(adapter: TinyLora) -> list[str]:
    """The last parts of the names where these name the adapted maps alone, else whole names."""
    adapted = set(adapter.maps)
    ends = {name.rpartition(".")[2] for name in adapted}
    names = {clean_name(name) for name, _ in adapter.model.named_modules()}
    meant = {name for name in names if name.rpartition(".")[2] in ends}
    return sorted(ends if meant == adapted else adapted)


def _key(name: str, factor: str) -> str:
    return f"base_model.model.{name}.lora_{factor}.weight"
