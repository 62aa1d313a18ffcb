"""The adapter as a LoRA in PEFT's format: A = V^T, B = U S R, for engines that serve LoRA.

The factors are the adapter's own: nothing is decomposed again. r = lora_alpha, so that the scaling
is 1; modules that the adapter left out are absent. The rank is the adapter's: an engine that wants
a larger one pads with zeros by itself. Modules are named whole: a last part can name others too.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save
from torch import Tensor

from tinylora.adapter.contents import DTYPES, Store
from tinylora.adapter.files import PEFT_SETTINGS
from tinylora.adapter.hooks import AdaptedLayer
from tinylora.atomic import new_folder
from tinylora.errors import RequestError

if TYPE_CHECKING:
    from tinylora.adapter.layer import TinyLora

WEIGHTS, SETTINGS = "adapter_model.safetensors", PEFT_SETTINGS


@dataclass(frozen=True)
class LoraWriter:
    """Writes version after version of one adapter: A is made once, and B follows v.

    For engines: there is no model card, and nothing is measured.

    Args:
        dtype: of A and B.
        names: of the layers that are written; None: all that are adapted.
    """

    adapter: "TinyLora"
    dtype: Store = "fp32"
    names: tuple[str, ...] | None = None

    def write(self, folder: str | Path) -> int:
        """Write the present version into a new folder; returns the bytes of its weights.

        Raises:
            RequestError: the folder is not free, or v is not finite.
            OSError: the disk is full.
        """
        with new_folder(Path(folder)) as scratch:
            return self.write_into(scratch)

    def write_into(self, folder: Path) -> int:
        """The same into a folder that is there."""
        data = save(self.tensors(), {"format": "pt"})
        (folder / SETTINGS).write_text(self.settings, encoding="utf-8")
        (folder / WEIGHTS).write_bytes(data)
        return len(data)

    def tensors(self) -> dict[str, Tensor]:
        """A (r, d_in) and B (d_out, r) of every adapted layer, by PEFT's names."""
        check_finite(self.adapter)
        v = self.adapter.v.detach()
        made = {
            key_of(name, "B"): self._stored(product(item, v)) for name, item in self._maps.items()
        }
        return self._A | made

    @property
    def _maps(self) -> dict[str, AdaptedLayer]:
        maps = self.adapter.maps
        return maps if self.names is None else {name: maps[name] for name in self.names}

    @cached_property
    def settings(self) -> str:
        """`adapter_config.json`."""
        settings = lora_settings(self.adapter) | {"target_modules": sorted(self._maps)}
        return json.dumps(settings, indent=2) + "\n"

    @cached_property
    def _A(self) -> dict[str, Tensor]:
        return {key_of(name, "A"): self._stored(m.A) for name, m in self._maps.items()}

    def _stored(self, factor: Tensor) -> Tensor:
        return factor.to("cpu", DTYPES[self.dtype]).contiguous()


def product(item: AdaptedLayer, v: Tensor) -> Tensor:
    """B R = U S R, (d_out, r), in the dtype of v."""
    return item.B @ item.mix(v).to(item.B.device)


def check_finite(adapter: "TinyLora") -> None:
    """Refuse an adapter that answers nothing."""
    if not bool(torch.isfinite(adapter.v).all()):
        raise RequestError(
            "v contains inf or nan, so the exported model could not answer. Export an earlier "
            "version, or train with a smaller learning rate."
        )


def lora_settings(adapter: "TinyLora") -> dict[str, Any]:
    """What PEFT has to know: its own defaults, save that nothing is scaled."""
    return {
        **common_settings(adapter),
        "peft_type": "LORA",
        "lora_alpha": adapter.config.rank,
        "init_lora_weights": True,
        "lora_dropout": 0.0,
        "use_dora": False,
        "use_rslora": False,
    }


def common_settings(adapter: "TinyLora") -> dict[str, Any]:
    """What every one of PEFT's methods has to know."""
    maps = adapter.maps.values()
    return {
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": adapter.base[0] or None,
        "revision": adapter.base[1] or None,
        "r": adapter.config.rank,
        "target_modules": sorted(adapter.maps),
        "bias": "none",
        "fan_in_fan_out": any(type(item.linear.module).__name__ == "Conv1D" for item in maps),
        "inference_mode": True,
        "modules_to_save": None,
    }


def key_of(name: str, factor: str) -> str:
    """PEFT's name of one factor of a module."""
    return f"base_model.model.{name}.lora_{factor}.weight"
