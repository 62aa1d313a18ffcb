"""A base model whose weights stay on the disk: enough to look at it, for nearly no memory.

Its parameters are views of the mapped files, so that only what is read is loaded. It does **not**
answer: buffers that a model computes for itself are not there.
"""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open
from torch import Tensor

from tinylora.models import load_model, load_skeleton, missing_is_a_request_error, model_source

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


def is_here(name: str) -> bool:
    """Whether a model's weights are on this machine as safetensors: nothing is downloaded."""
    return bool(_weight_files(name))


def mapped_model(name: str) -> Any:
    """The model in the precision it is stored in; loaded as any other where mapping cannot do it.

    Raises:
        RequestError: the model is not there.
    """
    model = load_skeleton(name)
    if getattr(model.config, "quantization_config", None) is not None:
        return load_model(name, device="cpu").model
    state: dict[str, Tensor] = {}
    with missing_is_a_request_error(name):
        for path in _weight_files(name):
            with safe_open(path, framework="pt") as file:
                state |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        model.load_state_dict(state, strict=False, assign=True)
        model.tie_weights()
    if any(parameter.is_meta for parameter in model.parameters()):  # under other names, or not here
        return load_model(name, device="cpu").model
    model.config._name_or_path = name
    return model


def _weight_files(name: str) -> list[Path]:
    """The files that hold the weights; none, where one is missing."""
    index = _local(name, INDEX)
    if index is None:
        names = [SINGLE]
    else:
        with missing_is_a_request_error(name):
            held = json.loads(index.read_text(encoding="utf-8"))
            names = sorted(map(str, {*held["weight_map"].values()}))
    paths = [_local(name, file) for file in names]
    return [path for path in paths if path is not None] if None not in paths else []


def _local(name: str, file: str) -> Path | None:
    """A file of a model's folder, or of the hub's cache."""
    source = model_source(name)
    if isinstance(source, Path):
        return source / file if (source / file).is_file() else None
    found = try_to_load_from_cache(source, file)
    return Path(found) if isinstance(found, str) else None
