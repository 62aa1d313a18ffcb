"""A LoRA in PEFT's format, for PEFT, vLLM and everything else that reads it: A = V^T, B = U S R.

The factors are the adapter's own: nothing is decomposed again. r = lora_alpha, so that the scaling
is 1; modules that the adapter left out are absent. The rank is the adapter's: an engine that wants
a larger one pads with zeros by itself.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from tinylora.adapter import TinyLora
from tinylora.adapter.files import DTYPES, PEFT_SETTINGS, Store
from tinylora.adapter.hooks import AdaptedMap
from tinylora.adapter.modules import clean_name
from tinylora.atomic import new_folder
from tinylora.errors import RequestError
from tinylora.export.card import Exported, Kind, write_card

KIND = Kind(
    to="lora",
    what="a LoRA",
    library="peft",
    relation="adapter",
    how="""python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("BASE")
model = PeftModel.from_pretrained(base, "FOLDER")
```

```sh
vllm serve BASE --enable-lora --max-lora-rank 8 --lora-modules tiny=FOLDER""",
)
WEIGHTS, SETTINGS = "adapter_model.safetensors", PEFT_SETTINGS


def to_lora(
    adapter: TinyLora,
    folder: str | Path,
    dtype: Store = "fp32",
    *,
    source: str | Path | None = None,
) -> Exported:
    """Write the adapter as it is now into a new LoRA folder, with a model card.

    Args:
        dtype: of A and B.
        source: what the adapter was loaded from, for the model card.

    Raises:
        RequestError: the folder is not free, or v is not finite.
        OSError: the disk is full.
    """
    writer = LoraWriter(adapter, dtype)
    with new_folder(Path(folder)) as scratch:
        num_bytes = writer.write_into(scratch)
        exported = Exported(Path(folder), num_bytes, _notes(adapter, writer.tensors(), dtype))
        write_card(scratch, KIND, adapter, exported, source)
    return exported


@dataclass(frozen=True)
class LoraWriter:
    """Writes version after version of one adapter: A is made once, and B follows v.

    For engines: there is no model card, and nothing is measured.
    """

    adapter: TinyLora
    dtype: Store = "fp32"

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
    return {
        **common_settings(adapter),
        "peft_type": "LORA",
        "lora_alpha": adapter.config.rank,
        "init_lora_weights": True,
        "lora_dropout": 0.0,
        "use_dora": False,
        "use_rslora": False,
    }


def common_settings(adapter: TinyLora) -> dict[str, Any]:
    """What every one of PEFT's methods has to know."""
    maps = adapter.maps.values()
    return {
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": adapter.base[0] or None,
        "revision": adapter.base[1] or None,
        "r": adapter.config.rank,
        "target_modules": target_modules(adapter),
        "bias": "none",
        "fan_in_fan_out": any(type(item.linear.module).__name__ == "Conv1D" for item in maps),
        "inference_mode": True,
        "modules_to_save": None,
    }


def target_modules(adapter: TinyLora) -> list[str]:
    """The last parts of the names where these name the adapted maps alone, else whole names."""
    adapted = set(adapter.maps)
    ends = {name.rpartition(".")[2] for name in adapted}
    names = {clean_name(name) for name, _ in adapter.model.named_modules()}
    meant = {name for name in names if name.rpartition(".")[2] in ends}
    return sorted(ends if meant == adapted else adapted)


def _notes(adapter: TinyLora, tensors: Mapping[str, Tensor], dtype: Store) -> tuple[str, ...]:
    """What rounding A and B to half precision did to the update: ||B' A' - dW|| / ||dW||."""
    if dtype == "fp32":
        return ("A and B are the adapter's own factors, in fp32.",)
    wanted = missed = 0.0
    for name in adapter.maps:
        A, B = (tensors[_key(name, factor)].float() for factor in "AB")
        delta = adapter.delta_weight(name).cpu()
        wanted += float(delta.square().sum())
        missed += float((B @ A - delta).square().sum())
    error = (missed / wanted) ** 0.5 if wanted else 0.0
    return (f"A and B are in {dtype}: the update W' - W has a relative error of {error:.2g}.",)


def _key(name: str, factor: str) -> str:
    return f"base_model.model.{name}.lora_{factor}.weight"
