"""An adapter on disk: v and the settings that rebuild everything else, in under 1 KB.

The layout is final: one safetensors file that holds the tensor `v` (num_groups, u) in fp32, bf16
or fp16, and one metadata entry `tinylora`, a JSON object with sorted keys (see `AdapterFile`).
Equal contents are equal bytes. U, S, V and P are never stored.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tinylora.atomic import write_atomically
from tinylora.config import AdapterConfig
from tinylora.errors import RequestError

Store = Literal["fp32", "bf16", "fp16"]
FILE_NAME = "adapter.safetensors"  # in a run folder
FORMAT = 1
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class AdapterFile:
    """What a file holds."""

    v: Tensor  # (num_groups, u)
    config: AdapterConfig
    modules: str  # `modules_hash` of the groups
    left_out: tuple[str, ...]  # modules whose weights do not define the kept directions
    base: str  # name of the base model, "" where it has none
    revision: str  # its commit on the hub, "" where it has none
    fingerprint: str = ""  # of the base model's weights; "" where it was not taken


@dataclass(frozen=True)
class Rounding:
    """What storing v in fewer bits changes."""

    max_abs: float
    relative: float  # ||stored - v|| / ||v||, 0 for v = 0


def write(path: str | Path, contents: AdapterFile, store: Store = "fp32") -> int:
    """Write the file atomically and return its size in bytes; in a folder, by its usual name.

    Raises:
        RequestError: `store` is unknown, or v does not fit into it (inf, nan).
    """
    data = _encode(contents, store)
    path = _file(path)
    write_atomically(path, data)
    return len(data)


def read(path: str | Path) -> AdapterFile:
    """Read an adapter file, or the one in a run folder.

    Raises:
        RequestError: nothing is there, or it is not an adapter of this project.
    """
    file_path = _file(path)
    if not file_path.is_file():
        raise RequestError(
            f"There is no adapter at {file_path}. Give the path of an adapter file, or of a run "
            f"folder that holds {FILE_NAME}."
        )
    try:
        with safe_open(file_path, framework="pt") as file:
            names, text = list(file.keys()), (file.metadata() or {}).get("tinylora")
            v = file.get_tensor("v") if "v" in names else None
    except (OSError, SafetensorError) as error:
        raise RequestError(
            f"{file_path} cannot be read as safetensors ({error}): it is damaged or something "
            "else. Copy it again, or train again."
        ) from None
    if text is None or v is None:
        raise RequestError(
            f"{file_path} is a safetensors file, but not a TinyLoRA adapter: it holds "
            f"{', '.join(names[:3]) or 'no tensors'} and no settings. Give a file that "
            "adapter.save wrote."
        )
    return _decode(v, text, file_path)


def rounding(v: Tensor, store: Store) -> Rounding:
    """What v would lose in the precision `store`."""
    exact = v.detach().double()
    error = exact.to(DTYPES[store]).double() - exact
    norm = float(exact.norm())
    return Rounding(float(error.abs().max()), float(error.norm()) / norm if norm else 0.0)


def modules_hash(groups: Sequence[Sequence[str]]) -> str:
    """16 hex digits over the names of the adapted modules, group by group."""
    text = "\n\n".join("\n".join(names) for names in groups)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _file(path: str | Path) -> Path:
    """The file itself, where the path may be that of a folder."""
    return Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)


def _encode(contents: AdapterFile, store: Store) -> bytes:
    if store not in DTYPES:
        raise RequestError(f"store = {store!r}, but v is stored as one of {', '.join(DTYPES)}.")
    v = contents.v.detach().cpu().to(DTYPES[store]).contiguous()
    if not bool(torch.isfinite(v).all()):
        raise RequestError(
            f"v is not finite in {store} (largest value {float(contents.v.abs().max())}): the "
            "adapter would answer nothing. Store it as fp32, or train with a smaller rate."
        )
    meta: dict[str, Any] = {
        "format": FORMAT,
        "config": contents.config.model_dump(mode="json"),
        "modules": contents.modules,
        "left_out": contents.left_out,
        "base": contents.base,
        "revision": contents.revision,
        "fingerprint": contents.fingerprint,
    }
    text = json.dumps(meta, sort_keys=True, separators=(",", ":"))
    return save({"v": v}, {"tinylora": text})


def _decode(v: Tensor, text: str, path: Path) -> AdapterFile:
    try:
        meta = json.loads(text)
        if meta["format"] != FORMAT:
            raise RequestError(
                f"{path} has format {meta['format']}, but this version reads format {FORMAT}. "
                "Install a newer tinylora."
            )
        return AdapterFile(
            v=v,
            config=AdapterConfig(**meta["config"]),
            modules=meta["modules"],
            left_out=tuple(meta["left_out"]),
            base=meta["base"],
            revision=meta["revision"],
            fingerprint=meta["fingerprint"],
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise RequestError(
            f"{path} is an adapter whose settings cannot be read ({error!r}): it is damaged. "
            "Copy it again, or train again."
        ) from None
