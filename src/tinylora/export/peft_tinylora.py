"""To and from checkpoints of PEFT's own TinyLoRA.

PEFT's update is B (sum_i v_i P_i) A too, with other factors (A = sqrt(S) V^T, B = U sqrt(S)),
another P (a torch generator), another way of sharing, and everything frozen kept in its file. A
load takes the factors from the file, so ours can be put there: *to PEFT* is exact. *From PEFT*,
each module's core becomes a core between our factors, whose r^2 numbers are then v (identity P, no
sharing): exact where both decompositions keep the same directions, refused where they do not.

Source: peft/tuners/tinylora of PEFT 0.21.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from tinylora.adapter import TinyLora, attach
from tinylora.adapter.lora_writer import SETTINGS, WEIGHTS, check_finite, common_settings
from tinylora.adapter.modules import LinearMap, clean_name, linear_maps
from tinylora.atomic import new_folder
from tinylora.errors import RequestError
from tinylora.export.card import Exported, ExportKind, write_card
from tinylora.settings import SEVEN_MAPS, AdapterConfig

PREFIX = "base_model.model."
TOLERANCE = 1e-2  # share of a module's update that may lie outside our directions
KIND = ExportKind(
    to="peft-tinylora",
    what="a PEFT TinyLoRA",
    library="peft",
    relation="adapter",
    how="""python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("BASE")
model = PeftModel.from_pretrained(base, "FOLDER")""",
)


def to_peft_tinylora(
    adapter: TinyLora, folder: str | Path, *, source: str | Path | None = None
) -> Exported:
    """Write a checkpoint that stock PEFT loads, with the adapter's own factors and P in it.

    Where PEFT cannot share numbers as the adapter does, it gets copies of them.

    Args:
        adapter: attached to its base.
        folder: which is made, and must not be there yet.
        source: what the adapter was loaded from, for the model card.

    Raises:
        RequestError: an adapted layer is quantised; the folder is not free; v is not finite.
        OSError: the disk is full.
    """
    check_finite(adapter)
    _check_plain(adapter)
    tying, rows = sharing_for_peft(adapter)
    data = save(_tensors(adapter, tying, rows), {"format": "pt"})
    exported = Exported(Path(folder), len(data), _notes(adapter, len(rows)))
    with new_folder(Path(folder)) as scratch:
        settings = json.dumps(_settings(adapter, tying), indent=2) + "\n"
        (scratch / SETTINGS).write_text(settings, encoding="utf-8")
        (scratch / WEIGHTS).write_bytes(data)
        write_card(scratch, KIND, adapter, exported, source)
    return exported


def peft_groups(num_modules: int, weight_tying: float) -> list[int]:
    """PEFT's group of each module, in the order of the model's modules."""
    num_groups = max(1, round(num_modules * (1.0 - weight_tying)))
    size = max(1, num_modules // num_groups)
    return [min(place // size, num_groups - 1) for place in range(num_modules)]


def sharing_for_peft(adapter: TinyLora) -> tuple[float, list[int]]:
    """The most sharing that PEFT can express and that never joins two of our groups.

    Returns:
        `weight_tying`, and for each of PEFT's groups the row of v that it gets.
    """
    ours = [adapter.maps[name].group for name in _in_model_order(adapter.model, adapter.maps)]
    for num_groups in range(len(adapter.modules_by_group), len(ours) + 1):
        tying = 1.0 - num_groups / len(ours)
        pairs = set(zip(peft_groups(len(ours), tying), ours, strict=True))
        if len(pairs) == len(dict(pairs)):  # each of its groups lies in one of ours
            return tying, [row for _, row in sorted(pairs)]
    raise AssertionError("no sharing at all joins nothing")


def _in_model_order(model: nn.Module, names: Mapping[str, Any]) -> list[str]:
    cleaned = (clean_name(name) for name, _ in model.named_modules())
    return [name for name in dict.fromkeys(cleaned) if name in names]


def _check_plain(adapter: TinyLora) -> None:
    for name, item in adapter.maps.items():
        if not item.linear.is_plain:
            raise RequestError(
                f"{name} is a {type(item.linear.module).__name__}, and PEFT's TinyLoRA does not "
                "know quantised layers. Export a LoRA (--to lora), which PEFT serves over such a "
                "base."
            )


def _tensors(adapter: TinyLora, tying: float, rows: list[int]) -> dict[str, Tensor]:
    tensors = {}
    for name, item in adapter.maps.items():
        for key, factor in (("A", item.A), ("B", item.B), ("P", item.P)):
            tensors[f"{PREFIX}{name}.tinylora_{key}"] = _stored(factor)
    for group, row in enumerate(rows):
        tensors[f"base_model.tinylora_v.{group}"] = _stored(adapter.v.detach()[row])
    return tensors


def _stored(tensor: Tensor) -> Tensor:
    return tensor.to("cpu", torch.float32, copy=True).contiguous()


def _settings(adapter: TinyLora, tying: float) -> dict[str, Any]:
    return {
        **common_settings(adapter),
        "peft_type": "TINYLORA",
        "u": adapter.config.u,
        "weight_tying": tying,
        "projection_seed": adapter.config.seed,  # unused: P is in the file
        "save_projection": True,
        "init_weights": True,
        "tinylora_dropout": 0.0,
    }


def _notes(adapter: TinyLora, num_groups: int) -> tuple[str, ...]:
    notes = ["It contains U, S, V and P besides the trained parameters, because PEFT stores them."]
    num_numbers = num_groups * adapter.config.u
    if num_numbers > adapter.num_trainable:
        notes.append(
            "PEFT cannot share parameters among modules as this adapter does, so its "
            f"{adapter.num_trainable} parameters are {num_numbers} here, some of them copies. If "
            "you train further in PEFT, the copies diverge."
        )
    if any(item.is_half for item in adapter.maps.values()):
        notes.append("Over a base model in half precision, PEFT rounds A and B to that precision.")
    return tuple(notes)


@dataclass(frozen=True)
class Checkpoint:
    """What a folder of PEFT's TinyLoRA holds: the update of each module, as B R A in float64."""

    rank: int
    num_numbers: int
    base: str
    factors: dict[str, tuple[Tensor, Tensor, Tensor]]  # name -> B (d_out, r), R (r, r), A (r, d_in)

    def delta_weight(self, name: str) -> Tensor:
        B, R, A = self.factors[name]
        return B @ R @ A


@dataclass(frozen=True)
class Imported:
    """An adapter that answers as the checkpoint does, and how nearly."""

    adapter: TinyLora
    num_before: int  # trained numbers in the checkpoint
    residual: float  # largest share of a module's update that our directions cannot express


class PeftSettings(BaseModel):
    """Of PEFT's configuration, what its update follows from."""

    r: int = Field(ge=1)
    u: int = Field(ge=1)
    weight_tying: float = Field(ge=0, le=1)
    projection_seed: int


def from_peft_tinylora(model: nn.Module, folder: str | Path) -> Imported:
    """Attach an adapter whose updates are those of a checkpoint of PEFT's TinyLoRA.

    Args:
        model: the base, which is changed in place as by `attach`.
        folder: with PEFT's adapter_config.json and weights.

    Raises:
        RequestError: the folder holds no such checkpoint, or something in it that no adapter of
            ours can express; the message says what.
    """
    held = read_checkpoint(model, Path(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what is left out is looked at below
        adapter = attach(model, _config(model, held))
    try:
        residuals = [_take(adapter, held, name) for name in held.factors]
    except RequestError:
        adapter.detach()
        raise
    return Imported(adapter, held.num_numbers, max(residuals))


def read_checkpoint(model: nn.Module, folder: Path) -> Checkpoint:
    """Read the files; `model` says in which order PEFT numbered its modules.

    Raises:
        RequestError: they are missing, of another method, or hold more than TinyLoRA's update.
    """
    settings = read_settings(folder)
    tensors = _read_tensors(folder / WEIGHTS)
    names = [key.removesuffix(".tinylora_A") for key in tensors if key.endswith(".tinylora_A")]
    modules = {name.removeprefix(PREFIX): name for name in names}
    order = _in_model_order(model, modules)
    if not modules or len(order) < len(modules):
        lost = next((name for name in modules if name not in order), "any module")
        raise RequestError(
            f"The checkpoint in {folder} adapts {lost}, which {type(model).__name__} does not "
            "have. Name the model that it was trained on with --model."
        )
    groups = peft_groups(len(order), settings["weight_tying"])
    factors = {}
    for place, (name, group) in enumerate(zip(order, groups, strict=True)):
        linear = _linear(model, name)
        A, B = (_needed(tensors, f"{modules[name]}.tinylora_{key}", folder) for key in "AB")
        if A.dim() != 2 or B.dim() != 2 or (B.shape[0], A.shape[1]) != (linear.d_out, linear.d_in):
            raise RequestError(
                f"The checkpoint in {folder} changes {name} as a ({B.shape[0]}, {A.shape[-1]}) "
                f"matrix, but this model's is ({linear.d_out}, {linear.d_in}): it was trained on "
                "a different model. Name that model with --model."
            )
        v = _needed(tensors, f"base_model.tinylora_v.{group}", folder)
        rank, u = A.shape[0], settings["u"]
        if v.shape != (u,) or B.shape[1] != rank:  # before a P of this size is made
            raise RequestError(
                f"The checkpoint in {folder} has a v of shape {tuple(v.shape)} and factors of rank "
                f"{rank} and {B.shape[1]} for {name}, but its u is {u}: it is damaged. Copy it "
                "again."
            )
        P = tensors.get(f"{modules[name]}.tinylora_P")
        if P is None or P.shape != (u, rank, rank):
            P = _drawn(settings["projection_seed"] + place, u, rank)
        R = torch.einsum("i,ijk->jk", v.double(), P.double())
        factors[name] = (B.double(), R, A.double())
    num_numbers = sum(t.numel() for key, t in tensors.items() if ".tinylora_v." in key)
    base = str(settings.get("base_model_name_or_path") or "")
    return Checkpoint(settings["r"], num_numbers, base, factors)


def read_settings(folder: Path) -> dict[str, Any]:
    """`adapter_config.json` of a TinyLoRA, checked.

    Raises:
        RequestError: it is missing, is not JSON, is another method's, or asks for biases or whole
            modules beside the update.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise RequestError(
            f"{folder} does not contain {SETTINGS}. Pass a folder that PEFT's save_pretrained "
            "wrote."
        )
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        kind = settings["peft_type"]
        if kind != "TINYLORA":
            raise RequestError(f"{path} is of type {kind}, but only TINYLORA can be imported.")
        wanted = PeftSettings.model_validate(settings).model_dump()
    except RequestError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        cause = " ".join(str(error).split())
        raise RequestError(
            f"{path} is not a configuration of PEFT's TinyLoRA ({cause}). Pass a folder of "
            "PEFT's TinyLoRA; checkpoints of other methods cannot be imported."
        ) from None
    extra = [key for key in ("bias", "modules_to_save") if settings.get(key) not in (None, "none")]
    if extra:
        raise RequestError(
            f"{path} has {extra[0]} = {settings[extra[0]]}: the checkpoint has trained weights "
            "besides its TinyLoRA parameters, which an adapter file cannot store. Train it again "
            "without them."
        )
    return {**settings, **wanted}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RequestError(
            f"{path} cannot be read as safetensors ({error}). Copy the checkpoint again."
        ) from None


def _needed(tensors: Mapping[str, Tensor], key: str, folder: Path) -> Tensor:
    if key not in tensors:
        raise RequestError(
            f"The checkpoint in {folder} lacks {key}: it is damaged, or of a version of PEFT that "
            "writes other files. Save it again with PEFT 0.21."
        )
    return tensors[key]


def _linear(model: nn.Module, name: str) -> LinearMap:
    modules = {clean_name(key): module for key, module in model.named_modules()}
    if isinstance(modules[name], nn.Embedding):
        raise RequestError(
            f"The checkpoint adapts {name}, an embedding, but a tinylora adapter acts on linear "
            "layers only. Train it again without that module."
        )
    return next(linear for linear in linear_maps(model, (name,)) if linear.name == name)


def _drawn(seed: int, u: int, rank: int) -> Tensor:
    """P as PEFT draws it where its file leaves it out."""
    generator = torch.Generator().manual_seed(seed)
    return torch.normal(mean=0.0, std=1.0 / rank**0.5, size=(u, rank, rank), generator=generator)


def _config(model: nn.Module, held: Checkpoint) -> AdapterConfig:
    """One free core for each module (LoRA-XS), on exactly the modules of the checkpoint."""
    for name, (B, _, _) in held.factors.items():
        if B.shape[1] != held.rank:
            raise RequestError(
                f"The checkpoint has rank {held.rank}, but {name} has rank {B.shape[1]}, and all "
                "modules of a tinylora adapter have the same rank. Train it again with a smaller "
                "r."
            )
    targets, layers = _targets(model, list(held.factors))
    return AdapterConfig(
        u=held.rank**2,
        rank=held.rank,
        num_groups=None,
        projection="identity",
        targets=targets,
        layers=layers,
    )


def _targets(model: nn.Module, names: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Settings that match these modules and no other: last parts and a band, or whole names."""
    ends = {name.rpartition(".")[2] for name in names}
    known = [end for end in SEVEN_MAPS if end in ends]
    targets = (*known, *sorted(ends - set(known)))
    maps = linear_maps(model, targets)
    depths = [linear.layer for linear in maps if linear.name in names]
    band = [layer for layer in depths if layer is not None]
    for layers in ("all", *([f"{min(band)}-{max(band)}"] if band else [])):
        if {linear.name for linear in linear_maps(model, targets, layers)} == set(names):
            return targets, layers
    return tuple(names), "all"


def _take(adapter: TinyLora, held: Checkpoint, name: str) -> float:
    """Give the adapter the module's core; returns the share of the update that it cannot express.

    The nearest core in the least-squares sense: B^+ dW A^+ with our factors.
    """
    delta = held.delta_weight(name)
    size = float(delta.norm())
    if size == 0:
        return 0.0
    if name in adapter.left_out:
        raise RequestError(
            f"The checkpoint changes {name}, but its weights do not separate the last kept "
            "singular direction from the next, so they cannot be rebuilt from the base model. "
            "Serve the checkpoint with PEFT."
        )
    item = adapter.maps[name]
    A, B = item.A.cpu().double(), item.B.cpu().double()
    R = torch.linalg.pinv(B) @ delta @ torch.linalg.pinv(A)
    residual = float((B @ R @ A - delta).norm()) / size
    if not residual <= TOLERANCE:
        raise RequestError(
            f"{residual:.1%} of the checkpoint's update of {name} is outside the leading "
            f"singular directions of this base model (up to {TOLERANCE:.0%} is rounding): it was "
            "trained on a different model, or on other weights of it. Name that model with --model."
        )
    with torch.no_grad():
        adapter.v[item.group] = R.flatten().to(adapter.v)
    return residual
