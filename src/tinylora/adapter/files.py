"""An adapter on disk: v and the settings that rebuild everything else, in under 1 KB.

The layout is final: one safetensors file that holds the tensor `v` (num_groups, u) in fp32, bf16
or fp16, and one metadata entry `tinylora`, a JSON object with sorted keys (see `AdapterFile`) and a
checksum of everything else; files from before the checksum have none. Equal contents are equal
bytes. U, S, V and P are never stored.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tinylora.adapter import hub, text
from tinylora.adapter.contents import (
    DTYPES,
    AdapterFile,
    Rounding,
    Store,
    as_stored,
    kept_settings,
    modules_hash,
    rounding,
)
from tinylora.atomic import write_atomically
from tinylora.errors import RequestError
from tinylora.settings import TEXT_PREFIX, AdapterConfig

__all__ = [
    "DTYPES",
    "FILE_NAME",
    "AdapterFile",
    "Rounding",
    "Store",
    "modules_hash",
    "read",
    "rounding",
    "write",
]

FILE_NAME = "adapter.safetensors"  # in a run folder
PEFT_SETTINGS = "adapter_config.json"  # of every method that PEFT knows
FORMAT = 1


def write(path: str | Path, contents: AdapterFile, store: Store = "fp32") -> int:
    """Write the file atomically and return its size in bytes; in a folder, by its usual name.

    Raises:
        RequestError: `store` is unknown, or v does not fit into it (inf, nan).
    """
    data = _encode(contents, store)
    path = _file(path)
    write_atomically(path, data)
    return len(data)


def read(source: str | Path) -> AdapterFile:
    """Read an adapter: a file, the one in a run folder, a text (`tl1:...`), or one on the hub.

    Raises:
        RequestError: nothing is there, or it is not an adapter of this project.
    """
    name = os.path.expanduser(str(source))
    if text.is_text(name):
        return _with_finite_numbers(text.decode(name), name[:40])
    path = _file(name)
    if os.path.isfile(os.path.join(name, PEFT_SETTINGS)) and not path.is_file():
        raise RequestError(
            f"{name} was written by PEFT, so it is not a tinylora adapter. Load it with PEFT; "
            '"tinylora import" turns a checkpoint of PEFT\'s own TinyLoRA into one.'
        )
    if not os.path.isfile(path):
        if not hub.is_hub_id(name):
            raise RequestError(
                f"No adapter was found at {path}. Pass the path of an adapter file or of a run "
                f"folder that contains {FILE_NAME}, a hub id, or an adapter's text "
                f"({TEXT_PREFIX}...)."
            )
        path = hub.download(name, FILE_NAME)
    return _with_finite_numbers(_read_file(path), str(path))


def _with_finite_numbers(contents: AdapterFile, name: str) -> AdapterFile:
    if not bool(torch.isfinite(contents.v).all()):
        raise RequestError(
            f"{name} contains a v with inf or nan, so the model could not answer: training "
            "diverged, or the file is damaged. Use an earlier adapter, or train with a smaller "
            "learning rate."
        )
    return contents


def _file(path: str | Path) -> Path:
    """The file itself, where the path may be that of a folder."""
    return Path(path) / FILE_NAME if os.path.isdir(path) else Path(path)


def _read_file(path: Path) -> AdapterFile:
    try:
        with safe_open(path, framework="pt") as file:
            names, settings = list(file.keys()), (file.metadata() or {}).get("tinylora")
            v = file.get_tensor("v") if "v" in names else None
    except (OSError, SafetensorError) as error:
        raise RequestError(
            f"{path} cannot be read as safetensors ({error}): it is damaged, or not a safetensors "
            "file. Copy it again, or train again."
        ) from None
    if settings is None or v is None:
        raise RequestError(
            f"{path} is a safetensors file, but not a TinyLoRA adapter: it contains "
            f"{', '.join(names[:3]) or 'no tensors'}, without an adapter's settings. Use a file "
            "that adapter.save wrote."
        )
    if v.dim() != 2 or v.dtype not in DTYPES.values():
        raise RequestError(
            f"{path} contains a v of shape {tuple(v.shape)} in {v.dtype}, but an adapter's is "
            f"(num_groups, u) in {', '.join(DTYPES)}: another program wrote it. Use a file that "
            "adapter.save wrote."
        )
    return _decode(v, settings, path)


def _config(settings: dict[str, Any], path: Path) -> AdapterConfig:
    try:
        return AdapterConfig(**settings)
    except RequestError as error:
        raise RequestError(
            f"{path} has settings that this version does not accept: {error} Install a newer "
            "tinylora, or copy the file again."
        ) from None


def _encode(contents: AdapterFile, store: Store) -> bytes:
    v = as_stored(contents.v, store)
    meta: dict[str, Any] = {
        "format": FORMAT,
        "config": kept_settings(contents.config),
        "modules": contents.modules,
        "left_out": contents.left_out,
        "base": contents.base,
        "revision": contents.revision,
        "fingerprint": contents.fingerprint,
    }
    meta["checksum"] = _checksum(meta, v)
    return save({"v": v}, {"tinylora": _json(meta)})


def _json(meta: dict[str, Any]) -> str:
    return json.dumps(meta, sort_keys=True, separators=(",", ":"))


def _checksum(meta: dict[str, Any], v: Tensor) -> str:
    """16 hex digits over the numbers, their precision and shape, and everything in the header."""
    header = _json({name: value for name, value in meta.items() if name != "checksum"})
    total = hashlib.sha256(f"{header} {v.dtype} {tuple(v.shape)} ".encode())
    total.update(v.contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()[:16]


def _decode(v: Tensor, settings: str, path: Path) -> AdapterFile:
    try:
        meta = json.loads(settings)
        if meta["format"] != FORMAT:
            raise RequestError(
                f"{path} has format {meta['format']}, but this version reads format {FORMAT}. "
                "Install a newer tinylora."
            )
        config = _config(meta["config"], path)
        if meta.get("checksum", "") not in ("", _checksum(meta, v)):
            raise RequestError(
                f"{path} is damaged or was edited: its checksum is {meta['checksum']}, but its v "
                f"and settings give {_checksum(meta, v)}, so it may differ from the adapter that "
                "was trained. Copy it again, or train again."
            )
        return AdapterFile(
            v=v,
            config=config,
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
