"""What is trained: how many numbers, where they act, and what they are multiplied with."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tinylora.errors import RequestError
from tinylora.settings.base import CommaList, OrNone, Settings, YamlMapping, none_word

SEVEN_MAPS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LAYER_BANDS = ("all", "early", "middle", "late")
PEFT = "peft:NAME"
METHOD_NAMES = ("tinylora", "lora", "lora-xs", "vera", "bias-only", "full", PEFT)
TEXT_PREFIX = "tl1:"  # of an adapter as one line of text


class Placement(Settings):
    """Which linear layers are adapted; every method reads it."""

    targets: Annotated[tuple[str, ...], CommaList] = Field(
        default=SEVEN_MAPS,
        min_length=1,
        description="names of the linear layers that are adapted (a model without those of the "
        "default: all linear layers of its blocks)",
    )
    layers: str = Field(
        default="all",
        description="which blocks are adapted: all, early, middle, late, or a-b (from 0)",
    )
    seed: int = Field(default=0, ge=0, description="the seed of the run and of the projections P")

    @model_validator(mode="after")
    def _layers_are_a_band(self) -> Self:
        _check_layers(self.layers)
        return self


class PeftMethod(Placement):
    """What peft:NAME reads."""

    peft_settings: Annotated[dict[str, Any], YamlMapping] = Field(
        default={},
        title="YAML",
        description="settings of the PEFT method, as PEFT names them: {r: 8}, or a YAML file",
    )


class LowRank(Placement):
    """What lora and vera read."""

    rank: int = Field(
        default=2, ge=1, description="how many singular directions of each module are kept"
    )


class LoraXs(LowRank):
    """What lora-xs reads: TinyLoRA's layer with one parameter for each place in R."""

    num_groups: Annotated[int | None, OrNone] = Field(
        default=13,
        ge=1,
        description=(
            "how many groups of near-equal size share their parameters (1: all tied; none: no "
            "sharing, which is also the default on a model with fewer modules than groups)"
        ),
    )
    n_tie: Annotated[int | None, OrNone] = Field(
        default=None,
        ge=1,
        description="instead of num_groups: exactly how many modules share; the last group has "
        "the remainder (none: num_groups decides)",
    )
    sharing: Literal["tiled", "structured"] = Field(
        default="tiled",
        description="groups run along depth (tiled), or by type, then depth (structured)",
    )
    scale: bool = Field(default=True, description="U S R V^T (true) or U R V^T (false)")
    basis: Literal["svd", "random"] = Field(
        default="svd", description="U and V from the weights' SVD, or random orthonormal columns"
    )
    subspace: Literal["top", "middle"] = Field(
        default="top", description="which singular directions are kept"
    )


class AdapterConfig(LoraXs):
    """What TinyLoRA trains: how many parameters, where they act, and what multiplies them."""

    u: int = Field(default=1, ge=1, description="how many parameters each group of modules trains")
    projection: Literal["gaussian", "diagonal", "shared", "identity"] = Field(
        default="gaussian",
        description="P random for each module, the same with a diagonal R, one random P shared by "
        "all modules, or the unit matrices (with u = rank^2: LoRA-XS)",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_way_to_share(cls, values: dict[str, Any]) -> dict[str, Any]:
        n_tie, num_groups = (none_word(values.get(name)) for name in ("n_tie", "num_groups"))
        if n_tie is None:
            return values
        if num_groups is not None:
            raise ValueError(
                f"num_groups = {num_groups} together with n_tie = {n_tie}, but each of them "
                "decides which modules share. Set only one of them."
            )
        return {**values, "num_groups": None}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.projection == "identity" and self.u != self.rank**2:
            raise ValueError(
                f'u = {self.u} with projection = "identity", but there is one unit matrix for each '
                f"of the rank^2 = {self.rank**2} places in R. Use u = {self.rank**2}."
            )
        if self.basis == "random" and self.subspace != "top":
            raise ValueError(
                f'subspace = "{self.subspace}" with basis = "random": random columns are not '
                'ordered. Use basis = "svd", or leave subspace out.'
            )
        return self


class PeftAdapter(AdapterConfig, PeftMethod):
    """The adapter's settings with those of a method of PEFT's beside them."""


def method_kind(method: str) -> str:
    """The method as the table of methods has it: peft:NAME stands for all of PEFT's.

    Raises:
        RequestError: there is no such method.
    """
    kind = PEFT if re.fullmatch(r"peft:[a-z0-9_]+", method) else method
    if kind in METHOD_NAMES:
        return kind
    raise RequestError(
        f'method = "{method}" is not a method. Use {", ".join(METHOD_NAMES)} '
        "(the name of one of PEFT's methods in lower case, such as peft:randlora)."
    )


def _check_layers(layers: str) -> None:
    band = re.fullmatch(r"(\d+)-(\d+)", layers)
    if layers in LAYER_BANDS or (band and int(band[1]) <= int(band[2])):
        return
    raise ValueError(
        f'layers = "{layers}" names no blocks. Use all, early, middle, late (thirds), or a range '
        "such as 4-7: first and last block, counted from 0."
    )
