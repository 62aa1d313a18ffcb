"""What the methods without a file format of their own share: their tensors in a run folder."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from tinylora.adapter.files import DTYPES, Store
from tinylora.atomic import write_atomically
from tinylora.errors import RequestError


def write(path: Path, tensors: dict[str, Tensor], store: Store) -> int:
    stored = {name: t.detach().cpu().to(DTYPES[store]) for name, t in tensors.items()}
    data = save({name: tensor.clone().contiguous() for name, tensor in stored.items()})
    write_atomically(path, data)
    return len(data)


def read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise RequestError(
            f"{path.parent} does not contain {path.name}: the run has not finished, or it trained "
            "another method. Resume it with --resume."
        )
    return load_file(path)


def norm(tensors: Sequence[Tensor]) -> dict[str, float]:
    """The norm of everything trained, as one vector."""
    norms = torch.stack([tensor.detach().norm() for tensor in tensors])
    return {"v_norm": float(norms.norm())}
