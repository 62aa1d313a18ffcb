"""One training run: the settings of a run, and a class each for method, algorithm and engine.

In Python, `adapter`, `learning` and `engine` are objects of their own; everything may also be given
flat, as on the command line: `TrainConfig(u=1, num_groups=13, algorithm="sft", references="own")`.
"""

from typing import Any, Self

from pydantic import field_validator, model_validator

from tinylora.errors import RequestError
from tinylora.settings.adapter import AdapterConfig, PeftAdapter, PeftMethod, method_kind
from tinylora.settings.algorithms import Algorithm, Grpo, Npg, Rewarded, Search
from tinylora.settings.base import Settings, nearest
from tinylora.settings.choices import chosen, refuse_unread
from tinylora.settings.groups import FIELDS
from tinylora.settings.parts import (
    PARTS,
    _explicit,
    _made,
    _names_its_class,
    _of,
    _of_method,
    _one_seed,
    _with_rate,
)
from tinylora.settings.passes import Passes
from tinylora.settings.rollout import Engine, TransformersEngineSettings, engine_kind
from tinylora.settings.run import ModelSettings, OutputSettings, RunSettings, SamplingSettings
from tinylora.settings.tasks import TaskConfig

BUDGET_KEYS = ("u", "num_groups", "n_tie")


class _OfTheRun(RunSettings, ModelSettings, SamplingSettings, OutputSettings, TaskConfig):
    """What every run has, whatever it chooses."""


class TrainConfig(_OfTheRun):
    """One training run."""

    adapter: AdapterConfig = AdapterConfig()
    learning: Algorithm = Grpo()
    engine: Engine = TransformersEngineSettings()

    @property
    def has_factors(self) -> bool:
        """Whether the method is TinyLoRA's layer, or LoRA-XS, which is a case of it."""
        return self.method in ("tinylora", "lora-xs")

    @property
    def reward_control(self) -> str | None:
        """The false reward that the run trains under, as a control; None: the true one."""
        return self.learning.reward_control if isinstance(self.learning, Rewarded) else None

    @property
    def passes(self) -> Passes:
        """How the model runs forward and backward; the defaults where it only runs forward."""
        return self.learning if isinstance(self.learning, Passes) else Passes()

    @model_validator(mode="before")
    @classmethod
    def _parts(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Flat settings go to the part that has them; one that no chosen part has is refused."""
        flat = {name: values[name] for name in values if name not in cls.model_fields}
        for name in flat:
            if name not in FIELDS:
                raise RequestError(f"{name} is not a setting.{nearest(name, FIELDS)}")
        rest = {name: values[name] for name in values if name not in flat}
        given = {part: _explicit(part, rest.pop(part, {})) for part in PARTS}
        if isinstance(learning := values.get("learning"), Settings):
            _names_its_class(rest, learning)
        is_of_peft = chosen("method", rest) is PeftMethod
        adapter_class = PeftAdapter if is_of_peft else AdapterConfig
        adapter = {**given["adapter"], **_of(PeftAdapter, flat)}
        nested = {**given["learning"], **given["engine"], **adapter}
        refuse_unread({**nested, **rest, **flat}, [*nested, *flat])
        rest["seed"] = adapter["seed"] = _one_seed(rest, adapter)
        adapter = _of_method(str(rest.get("method")), adapter)
        parts: dict[str, tuple[type[Settings], dict[str, Any]]] = {
            "adapter": (adapter_class, adapter)
        }
        for choice, part in (("algorithm", "learning"), ("rollout", "engine")):
            if (kind := chosen(choice, rest)) is not None:
                parts[part] = (kind, {**given[part], **_of(kind, flat)})
        made = _made(_OfTheRun, rest, parts)
        if "learning" in made:
            made["learning"] = _with_rate(made["learning"], rest)
        return {**rest, **made}

    @field_validator("method")
    @classmethod
    def _names_a_method(cls, method: str) -> str:
        method_kind(method)
        return method

    @field_validator("rollout")
    @classmethod
    def _names_an_engine(cls, rollout: str) -> str:
        engine_kind(rollout)
        return rollout

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.params is not None and self.method != "tinylora":
            raise ValueError(
                f"params = {self.params} with method = {self.method}, whose count follows from "
                "its rank and its linear layers. Leave params out, or use method = tinylora."
            )
        if isinstance(self.learning, Search | Npg) and not self.has_factors:
            raise ValueError(
                f"algorithm = {self.algorithm} runs a different v in every row of a batch, but "
                f"method = {self.method} has no v. Use method = tinylora or lora-xs."
            )
        if self.snapshots and not self.has_factors:
            raise ValueError(
                f"snapshots = true with method = {self.method}, which writes no adapter file. "
                "Leave snapshots out, or use method = tinylora or lora-xs."
            )
        chosen = [name for name in BUDGET_KEYS if name in self.adapter.model_fields_set]
        if self.params is not None and chosen:
            raise ValueError(
                f"params = {self.params} together with {' and '.join(chosen)}, but params picks u "
                "and num_groups itself. Set either params, or u and num_groups."
            )
        return self

    @model_validator(mode="after")
    def _validates_in_time(self) -> Self:
        if self.eval_every is not None and self.eval_every > self.steps:
            raise ValueError(
                f"eval_every = {self.eval_every}, but the run has {self.steps} steps, so it would "
                f"never be validated. Use eval_every <= {self.steps}."
            )
        return self

    @model_validator(mode="after")
    def _can_be_split(self) -> Self:
        if self.fsdp and not self.has_factors:
            raise ValueError(
                "fsdp = true works only with tinylora and lora-xs, whose base weights stay "
                f"frozen; got method = {self.method}."
            )
        if self.fsdp and self.quantize != "none":
            raise ValueError(
                f"fsdp = true with quantize = {self.quantize}, but quantised weights cannot be "
                "split. Leave one of the two out."
            )
        return self

    def with_rate_of(self, model: str) -> "TrainConfig":
        """The settings for another model, whose default learning rate is its own.

        Args:
            model: its name.
        """
        values = {"model": model, "method": self.method}
        return self.model_copy(
            update={"model": model, "learning": _with_rate(self.learning, values)}
        )
