"""The fingerprint of a base model: it tells another base, what differs in it, and why.

Every tensor of a plain base (parameters and the buffers that are saved with them) is sampled at a
fixed stride and upcast exactly, so that device, wrappers and an exact upcast do not matter. A
fingerprint is a kind, a colon and hex digits; here `plain:` and 36 of them. They are SHA-256, cut
to 4 bytes each, of the embeddings, of the linear layers, and of norms and biases; then to 3 bytes
each, of the linear layers rounded to bf16 and to fp16, by which a base that was rounded is told
from one that was trained.

A base read from a GGUF file is plain, too, with the file's quantisation for a kind: `gguf Q4_1:`.
Its weights are those that the file dequantises to, so their hashes alone decide which base it is.

A quantised base has its scheme in place of `plain`, its codes among the linear layers, and in place
of the two roundings a sketch of what its layers compute (`quantized.py`).

What it does **not** cover: elements outside the sample (at most `NUM_SAMPLED` a tensor are in it;
training changes nearly all), and the tokenizer. Of a model without weights, or one whose tensors
are spread over several machines, none is taken: "".
"""

import hashlib
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tinylora.adapter.hooks import REGISTERED_NAME
from tinylora.adapter.modules import PLAIN_DTYPES, clean_name
from tinylora.adapter.quantized import codes, is_near, quantized_layers, scheme, sketch
from tinylora.pocket import is_pocket

NUM_SAMPLED = 4096
PARTS = ("embeddings", "linear layers", "norms or biases")
ROUNDED = {"bf16": torch.bfloat16, "fp16": torch.float16}
NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}  # of torch
PART_DIGITS, ROUNDING_DIGITS = 8, 6  # hex digits of each of the three parts and two roundings

AS_BEFORE = "Load the base as it was."
CAUSES = {  # where one part alone differs
    "embeddings": ("Likely tokens were added, or the embeddings were retrained.", AS_BEFORE),
    "norms or biases": ("Likely only they were fine-tuned.", AS_BEFORE),
    "linear layers": (
        "Likely a fine-tuned version, or one with another adapter merged into it.",
        "Load the model that it was made from.",
    ),
}
QUANTIZED_CAUSES = {
    "linear layers": (
        "Likely a fine-tuned version, or the same weights rounded before they were quantised.",
        "Load the model that it was made from, in the precision of the run (--dtype).",
    ),
    "scales": ("Likely quantised by another version, or with other settings.", AS_BEFORE),
}
GGUF = "gguf "  # and the file's quantisation: the kind of a base that was read from a GGUF file
QUANTIZE = {"plain": "none", "nf4-double": "nf4", "int8": "int8"}  # what `load_model` makes
ELSE = (
    "Likely another model, another revision of it, or a fine-tuned version.",
    "Load the model that the adapter was trained on.",
)


@dataclass(frozen=True)
class Fingerprint:
    """A fingerprint's text, taken apart."""

    kind: str
    parts: dict[str, str]  # of PARTS
    rest: str  # the two roundings of a plain base, the sketch of a quantised one

    @classmethod
    def parse(cls, text: str) -> "Fingerprint":
        kind, _, digits = text.partition(":")
        starts = range(0, PART_DIGITS * len(PARTS), PART_DIGITS)
        hashes = [digits[start : start + PART_DIGITS] for start in starts]
        return cls(kind, dict(zip(PARTS, hashes, strict=True)), digits[PART_DIGITS * len(PARTS) :])

    @property
    def is_plain(self) -> bool:
        """Whether the linear layers hold weights, and not codes."""
        return self.kind == "plain" or self.kind.startswith(GGUF)

    @property
    def exact(self) -> str:
        """Of the linear layers as they are, to compare with `rounded`."""
        return self.parts["linear layers"][:ROUNDING_DIGITS]

    @property
    def rounded(self) -> dict[str, str]:
        """Of the linear layers of a plain base in each of the precisions of ROUNDED."""
        halves = self.rest[:ROUNDING_DIGITS], self.rest[ROUNDING_DIGITS:]
        return dict(zip(ROUNDED, halves, strict=True))


@dataclass(frozen=True)
class Mismatch:
    """Why a model is not the base that a fingerprint was taken of; sentences for people."""

    what: str
    cause: str
    cure: str


def take(model: nn.Module) -> str:
    """The fingerprint of a model's weights; "" where it has none yet (meta device).

    It reads a few thousand elements of each tensor: milliseconds, also for large models. Quantised
    layers also compute one row each.
    """
    layers = quantized_layers(model)
    if not all(_is_whole(parameter, bool(layers)) for parameter in model.parameters()):
        return ""
    samples = _samples(model, layers)
    if layers:
        return f"{scheme(layers)}:{_hashes([*samples, *_codes(layers)])}{sketch(layers)}"
    maps = [s for s in samples if s.part == "linear layers"]
    roundings = [_hash([_rounded(s, dtype) for s in maps]) for dtype in ROUNDED.values()]
    digits = f"{_hashes(samples)}{''.join(h[:ROUNDING_DIGITS] for h in roundings)}"
    return f"{_plain_kind(model)}:{digits}"


def compare(there: str, here: str) -> Mismatch | None:
    """What is different `here`; None for the same base, or where one of the two was not taken.

    Args:
        there: the fingerprint in an adapter's file.
        here: that of the model at hand.
    """
    if not there or not here or there == here:
        return None
    file, model = Fingerprint.parse(there), Fingerprint.parse(here)
    differing = [part for part in PARTS if file.parts[part] != model.parts[part]]
    if file.kind != model.kind:
        is_same = file.is_plain and model.is_plain and not differing  # dequantised by other means
        return None if is_same else _other_kind(file, model)
    if file.is_plain:
        causes = CAUSES
        said = _rounding(file, model) if "linear layers" in differing else None
    else:
        causes, said = CAUSES | QUANTIZED_CAUSES, None
        if not differing and not is_near(file.rest, model.rest):
            differing = ["scales"]
    if not differing:
        return None
    likely = causes.get(differing[0], ELSE) if len(differing) == 1 else ELSE
    return Mismatch(f"the {_listed(differing)} differ", *(said or likely))


def described(text: str) -> str:
    """A fingerprint in words."""
    if not text:
        return "not taken"
    taken = Fingerprint.parse(text)
    hashes = ", ".join(f"{part} {digits}" for part, digits in taken.parts.items())
    if not taken.is_plain:
        return f"quantised weights ({taken.kind}); {hashes}"
    exact = [name for name, digits in taken.rounded.items() if digits == taken.exact]
    origin = "" if taken.kind == "plain" else f" of a GGUF file in {taken.kind.removeprefix(GGUF)}"
    return f"plain weights{origin}, exact in {' and in '.join(exact) or 'fp32'}; {hashes}"


def quantization(text: str) -> str:
    """The `quantize` of `load_model` that gives such a base; none for a scheme that it does not."""
    return QUANTIZE.get(text.partition(":")[0], "none")


def identity(model: nn.Module) -> tuple[str, str]:
    """Name and commit of the base model; of a local folder the last part, never the whole path.

    The packaged model is `pocket`, also where it was loaded by its path, and a folder of the hub's
    cache is the model that it was downloaded from.
    """
    config = getattr(model, "config", None)
    name = str(getattr(config, "_name_or_path", "") or "")
    revision = str(getattr(config, "_commit_hash", None) or "")
    if not name or not Path(name).exists():
        return name, revision
    if is_pocket(name):
        return "pocket", revision
    return hub_snapshot(name) or (Path(name).resolve().name, revision)


def hub_snapshot(path: str) -> tuple[str, str] | None:
    """Hub id and commit of a folder `models--OWNER--NAME/snapshots/COMMIT`; None: it is none."""
    found = re.search(r"/models--([^/]+)/snapshots/([^/]+)/?$", os.path.realpath(path))
    return (found[1].replace("--", "/"), found[2]) if found else None


class _Sample(NamedTuple):
    """What is hashed of one tensor."""

    name: str
    part: str
    shape: tuple[int, ...]
    values: Tensor  # (n,), fp32, or fp64 where fp32 does not hold them


def _is_whole(parameter: nn.Parameter, is_quantized: bool) -> bool:
    if parameter.is_meta or is_quantized:
        return not parameter.is_meta
    return type(parameter.data) is Tensor and parameter.dtype in PLAIN_DTYPES


def _plain_kind(model: nn.Module) -> str:
    """`plain`, or the quantisation of the GGUF file that the weights were read from."""
    quantization = getattr(getattr(model, "config", None), "gguf_quantization", None)
    return f"{GGUF}{quantization}" if quantization else "plain"


def _other_kind(there: Fingerprint, here: Fingerprint) -> Mismatch:
    way = f" (--quantize {QUANTIZE[there.kind]})" if there.kind in QUANTIZE else ""
    cure = f"Load the base as it was{way}."
    if there.kind.startswith(GGUF):
        quantization = there.kind.removeprefix(GGUF)
        cure = f"Load the GGUF file in {quantization} that it was trained on (--model FILE.gguf)."
    return Mismatch(
        f"its base was {_kind_in_words(there.kind)}, and this one is {_kind_in_words(here.kind)}",
        "The weights that a model computes with depend on how it was quantised.",
        cure,
    )


def _kind_in_words(kind: str) -> str:
    if kind.startswith(GGUF):
        return f"a GGUF file in {kind.removeprefix(GGUF)}"
    return "not quantised" if kind == "plain" else f"quantised ({kind})"


def _codes(layers: Mapping[str, nn.Module]) -> list[_Sample]:
    return [
        _Sample(f"{name}.{i}", "linear layers", tuple(part.shape), _strided(part))
        for name, layer in layers.items()
        for i, part in enumerate(codes(layer))
    ]


def _hashes(samples: list[_Sample]) -> str:
    return "".join(_hash([s for s in samples if s.part == part])[:PART_DIGITS] for part in PARTS)


def _samples(model: nn.Module, quantized: Mapping[str, nn.Module]) -> list[_Sample]:
    """Of each tensor once: equal matrices are one, so that it does not matter who is tied."""
    embeddings = _embeddings(model)
    found: dict[tuple[object, ...], _Sample] = {}
    for name, tensor in sorted(_tensors(model, quantized).items()):
        values = _strided(tensor)
        part = _part(tensor, name in embeddings)
        is_matrix = tensor.dim() > 1
        key = (tuple(tensor.shape), values.numpy().tobytes(), "" if is_matrix else name)
        first = found.setdefault(key, _Sample(name, part, tuple(tensor.shape), values))
        if part == "embeddings":
            found[key] = first._replace(part=part)
    return list(found.values())


def _tensors(model: nn.Module, quantized: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Parameters and saved buffers by clean name, a tied one under each of its names.

    Of a quantised layer only the bias, in bf16, to which bitsandbytes may round it later.
    """
    found = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        own: dict[str, Tensor | None] = {**module._parameters, **_saved_buffers(module)}
        if clean_name(prefix) in quantized:
            bias = own.get("bias")
            own = {} if bias is None else {"bias": bias.to(torch.bfloat16)}
        for name, value in own.items():
            if value is not None and value.is_floating_point() and name != REGISTERED_NAME:
                found[clean_name(f"{prefix}.{name}".lstrip("."))] = value.detach()
    return found


def _saved_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    unsaved = module._non_persistent_buffers_set
    return {name: buffer for name, buffer in module._buffers.items() if name not in unsaved}


def _embeddings(model: nn.Module) -> set[str]:
    """Names of the tensors of embeddings and of the head, which many models tie to one."""
    modules = {id(module) for module in model.modules() if isinstance(module, nn.Embedding)}
    heads = (getattr(module, "get_output_embeddings", None) for module in model.modules())
    modules |= {id(head()) for head in heads if head is not None}
    return {
        clean_name(f"{prefix}.{name}")
        for prefix, module in model.named_modules(remove_duplicate=False)
        if id(module) in modules
        for name, _ in module.named_parameters()
    }


def _part(tensor: Tensor, is_embedding: bool) -> str:
    if tensor.dim() < 2:
        return "norms or biases"
    return "embeddings" if is_embedding else "linear layers"


def _strided(tensor: Tensor) -> Tensor:
    """At most NUM_SAMPLED elements (n,) on the CPU, in every row and column; never a whole copy."""
    if tensor.dim() == 0 or tensor.numel() == 0:
        return tensor.reshape(-1).float().cpu()
    step = -(-tensor.numel() // NUM_SAMPLED)
    while math.gcd(step, tensor.shape[-1]) > 1:  # a common factor would always hit the same columns
        step += 1
    places = torch.arange(0, tensor.numel(), step, device=tensor.device)
    values = tensor[torch.unravel_index(places, tensor.shape)].cpu()
    is_exact = values.dtype != torch.float64 or torch.equal(values.float().double(), values)
    return values.float() if is_exact else values


def _rounded(sample: _Sample, dtype: torch.dtype) -> _Sample:
    return sample._replace(values=sample.values.to(dtype).float())


def _hash(samples: Iterable[_Sample]) -> str:
    total = hashlib.sha256()
    for sample in sorted(samples, key=lambda sample: sample.name):
        total.update(f"{sample.name} {list(sample.shape)}\n".encode())
        total.update(hashlib.sha256(sample.values.numpy().tobytes()).digest())
    return total.hexdigest()


def _rounding(file: Fingerprint, model: Fingerprint) -> tuple[str, str] | None:
    """Cause and cure where the linear layers are the same but for their precision.

    Rounding is idempotent: weights that were rounded are equal to their own rounding.
    """
    there, here = file.rounded, model.rounded
    for name in ROUNDED:
        if there[name] == model.exact:
            before = next((other for other in ROUNDED if there[other] == file.exact), "fp32")
            return f"These are likely the same weights, rounded to {name}.", _load_in(before)
        if here[name] == file.exact:
            return f"The adapter likely saw the same weights rounded to {name}.", _load_in(name)
    if there == here:
        return "Likely the same in another precision, or very lightly fine-tuned.", AS_BEFORE
    return None


def _load_in(precision: str) -> str:
    option = f" (--dtype {precision})" if precision != "fp16" else ""
    return f"Load the base with dtype=torch.{NAMES[precision]}{option}."


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
