"""Factors on disk, keyed by the weights they come from: a second start costs a hash.

One safetensors file per weight matrix, written atomically; a file that does not check out is
computed again. `TINYLORA_CACHE` names the folder (default: `$XDG_CACHE_HOME/tinylora`); `off`
keeps the disk out of it.
"""

import hashlib
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tinylora.adapter.svd import Factors, truncated_svd
from tinylora.atomic import write_atomically
from tinylora.folders import cache_folder

_VERSION = "1"  # raise it when truncated_svd gives other numbers


def cached_svd(W: Tensor, rank: int, subspace: str = "top") -> Factors:
    """`truncated_svd`, from disk where these very weights were seen before."""
    folder = cache_folder()
    if folder is None:
        return truncated_svd(W, rank, subspace)
    path = folder / "factors" / f"{_key(W, rank, subspace)}.safetensors"
    factors = _read(path, W)
    if factors is None:
        factors = truncated_svd(W, rank, subspace)
        _write(path, factors)
    return factors


def _key(W: Tensor, rank: int, subspace: str) -> str:
    header = f"{_VERSION} {tuple(W.shape)} {W.dtype} {rank} {subspace}"
    return hashlib.sha256(header.encode() + _digest(W)).hexdigest()


def _digest(*tensors: Tensor) -> bytes:
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.contiguous().flatten().view(torch.uint8).cpu().numpy().data)
    return total.digest()


def _read(path: Path, W: Tensor) -> Factors | None:
    try:
        with safe_open(path, framework="pt") as file:
            U, S, V = (file.get_tensor(name) for name in "USV")
            meta = file.metadata() or {}
    except (OSError, SafetensorError):
        return None
    if meta.get("digest") != _digest(U, S, V).hex():
        return None
    U, S, V = (tensor.to(W.device) for tensor in (U, S, V))
    return Factors(U, S, V, float(meta["edge_gap"]), float(meta["residual"]), meta["method"])


def _write(path: Path, factors: Factors) -> None:
    tensors = {name: getattr(factors, name).cpu().contiguous() for name in "USV"}
    meta = {
        "digest": _digest(*tensors.values()).hex(),
        "edge_gap": repr(factors.edge_gap),
        "residual": repr(factors.residual),
        "method": factors.method,
    }
    try:
        write_atomically(path, save(tensors, meta), is_shared=True)
    except OSError as error:
        warnings.warn(
            f"The factors could not be kept in {path.parent} ({error}), so they are computed "
            "again next time. Set TINYLORA_CACHE to a folder that can be written, or to off.",
            stacklevel=2,
        )
