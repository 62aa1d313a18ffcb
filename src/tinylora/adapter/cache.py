"""Factors on disk, keyed by the weights they come from: a second start costs a hash.

One safetensors file per weight matrix, written atomically; a file that does not check out is
computed again. `TINYLORA_CACHE` names the folder (default: `$XDG_CACHE_HOME/tinylora`); `off`
keeps the disk out of it.
"""

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tinylora.adapter.modules import LinearMap, read_columns, read_weight
from tinylora.adapter.quantized import has_codes, kept_tensors, scheme
from tinylora.adapter.svd import Factors, truncated_svd
from tinylora.atomic import write_atomically
from tinylora.folders import cache_folder

_VERSION = "1"  # raise it when truncated_svd gives other numbers


def cached_svd(W: Tensor, rank: int, subspace: str = "top") -> Factors:
    """`truncated_svd`, from disk where these very weights were seen before."""
    folder = cache_folder()
    if folder is None:
        return truncated_svd(W, rank, subspace)
    identity = f"{tuple(W.shape)} {W.dtype} {rank} {subspace}".encode() + _digest(W)
    return _kept(folder, identity, W.device, lambda: truncated_svd(W, rank, subspace))


def cached_svd_of_layer(linear: LinearMap, rank: int, subspace: str = "top") -> Factors:
    """The same of the matrix that a layer computes.

    A quantised one is known by all it keeps and a few of its columns: on a CPU it costs more to
    read W through it than to decompose W, so it is read only where it is new.
    """
    folder = cache_folder()
    if folder is None or not has_codes(linear.module):
        return cached_svd(read_weight(linear), rank, subspace)
    some = read_columns(linear, torch.tensor([0, linear.d_in // 2, linear.d_in - 1]))
    digests = {_digest(tensor) for tensor in (some, *kept_tensors(linear.module))}
    header = f"layer {scheme({linear.name: linear.module})} {some.dtype} {rank} {subspace}"
    identity = header.encode() + b"".join(sorted(digests))
    return _kept(
        folder,
        identity,
        some.device,
        lambda: truncated_svd(read_weight(linear), rank, subspace),
    )


def _kept(
    folder: Path, identity: bytes, device: torch.device, compute: Callable[[], Factors]
) -> Factors:
    key = hashlib.sha256(f"{_VERSION} ".encode() + identity).hexdigest()
    path = folder / "factors" / f"{key}.safetensors"
    factors = _read(path, device)
    if factors is None:
        factors = compute()
        _write(path, factors)
    return factors


def _digest(*tensors: Tensor) -> bytes:
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.contiguous().flatten().view(torch.uint8).cpu().numpy().data)
    return total.digest()


def _read(path: Path, device: torch.device) -> Factors | None:
    try:
        with safe_open(path, framework="pt") as file:
            U, S, V = (file.get_tensor(name) for name in "USV")
            meta = file.metadata() or {}
    except (OSError, SafetensorError):
        return None
    if meta.get("digest") != _digest(U, S, V).hex():
        return None
    U, S, V = (tensor.to(device) for tensor in (U, S, V))
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
            f"The factors could not be cached in {path.parent} ({error}), so they will be "
            "computed again next time. Set TINYLORA_CACHE to a writable folder, or to off.",
            stacklevel=2,
        )
