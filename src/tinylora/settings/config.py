"""One training run: the settings of a run, and a class each for method, algorithm and engine.

In Python, `adapter`, `learning` and `engine` are objects of their own; everything may also be given
flat, as on the command line: `TrainConfig(u=1, num_groups=13, algorithm="sft", references="own")`.
"""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import field_validator, model_validator

from tinylora.errors import RequestError
from tinylora.settings.adapter import AdapterConfig
from tinylora.settings.algorithms import (
    ALGORITHMS,
    Adam,
    Algorithm,
    Grpo,
    Npg,
    Passes,
    Rewarded,
    Search,
)
from tinylora.settings.base import Settings, nearest
from tinylora.settings.choices import chosen, refuse_unread
from tinylora.settings.groups import FIELDS
from tinylora.settings.rollout import ENGINES, Engine, TransformersEngineSettings, engine_kind
from tinylora.settings.run import ModelSettings, OutputSettings, RunSettings, SamplingSettings
from tinylora.settings.tasks import TaskConfig

BUDGET_KEYS = ("u", "num_groups", "n_tie")
DEFAULT_RATES = {  # (on pocket: docs/results.md, on other models)
    "tinylora": (5e-2, 2e-4),
    "lora-xs": (3e-2, 2e-4),
    "lora": (4e-3, 1e-5),
    "vera": (4e-2, 1e-4),
    "bias-only": (1e-2, 1e-5),
    "full": (3e-4, 1e-6),
}


class _OfTheRun(RunSettings, ModelSettings, SamplingSettings, OutputSettings, TaskConfig):
    """What every run has, whatever it chooses."""


PARTS: dict[str, tuple[type[Settings], ...]] = {
    "adapter": (AdapterConfig,),
    "learning": tuple(ALGORITHMS.values()),
    "engine": tuple(ENGINES.values()),
}


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
        adapter = {**given["adapter"], **_of(AdapterConfig, flat)}
        nested = {**given["learning"], **given["engine"], **adapter}
        refuse_unread({**nested, **rest, **flat}, [*nested, *flat])
        rest["seed"] = adapter["seed"] = _one_seed(rest, adapter)
        adapter = _of_method(str(rest.get("method")), adapter)
        parts: dict[str, tuple[type[Settings], dict[str, Any]]] = {
            "adapter": (AdapterConfig, adapter)
        }
        for choice, part in (("algorithm", "learning"), ("rollout", "engine")):
            if (kind := chosen(choice, rest)) is not None:
                parts[part] = (kind, {**given[part], **_of(kind, flat)})
        made = _made(_OfTheRun, rest, parts)
        if "learning" in made:
            made["learning"] = _with_rate(made["learning"], rest)
        return {**rest, **made}

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
        """The settings for a model of this name, whose default learning rate is its own."""
        values = {"model": model, "method": self.method}
        return self.model_copy(
            update={"model": model, "learning": _with_rate(self.learning, values)}
        )


def default_rate(model: str | None, method: str | None = "tinylora") -> float:
    """The learning rate where none is given."""
    on_pocket, elsewhere = DEFAULT_RATES.get(method or "", DEFAULT_RATES["tinylora"])
    return on_pocket if model == "pocket" else elsewhere


def _made(
    whole: type[Settings],
    rest: dict[str, Any],
    parts: Mapping[str, tuple[type[Settings], dict[str, Any]]],
) -> dict[str, Settings]:
    """The parts as objects; what is wrong with any of them, or with the rest, is said at once."""
    made, wrong = {}, []
    for name, (kind, values) in parts.items():
        try:
            made[name] = kind(**values)
        except RequestError as error:
            wrong.append(str(error))
    if wrong:
        try:
            whole(**rest)
        except RequestError as error:
            wrong.insert(0, str(error))
        raise RequestError("\n".join(wrong))
    return made


def _with_rate(learning: Any, values: Mapping[str, Any]) -> Any:
    """The algorithm's settings with the default learning rate, where none was given."""
    is_given = "learning_rate" in learning.model_fields_set and learning.learning_rate is not None
    if not isinstance(learning, Adam) or is_given:
        return learning
    rate = default_rate(values.get("model", "pocket"), values.get("method", "tinylora"))
    filled = learning.model_copy(update={"learning_rate": rate})
    filled.model_fields_set.discard("learning_rate")  # a default is not a choice
    return filled


def _explicit(part: str, value: Any) -> dict[str, Any]:
    """What was set of a part, given as an object or as a mapping."""
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, PARTS[part]):
        kinds = ", ".join(kind.__name__ for kind in PARTS[part])
        raise RequestError(f"{part} = {value!r}, but it must be one of {kinds}, or a mapping.")
    return {name: getattr(value, name) for name in value.model_fields_set}


def _names_its_class(run: dict[str, Any], learning: Settings) -> None:
    """The algorithm of settings that were given as an object; refuses another one beside it."""
    own = next(name for name, kind in ALGORITHMS.items() if type(learning) is kind)
    if run.setdefault("algorithm", own) != own:
        raise RequestError(
            f"algorithm = {run['algorithm']} beside learning = {type(learning).__name__}(...), "
            f"which is for {own}. Give one of the two."
        )


def _of(kind: type[Settings], flat: Mapping[str, Any]) -> dict[str, Any]:
    return {name: flat[name] for name in flat if name in kind.model_fields}


def _one_seed(run: Mapping[str, Any], adapter: Mapping[str, Any]) -> int:
    """One seed serves the run and the projections, wherever it was given."""
    held = [part["seed"] for part in (run, adapter) if "seed" in part]
    seeds = [AdapterConfig(seed=seed).seed for seed in held]
    if len(set(seeds)) > 1:
        raise RequestError(
            f"seed = {seeds[0]} together with adapter.seed = {seeds[1]}, but one seed serves the "
            "run and its projections. Set only one of them."
        )
    return seeds[0] if seeds else 0


def _of_method(method: str, adapter: dict[str, Any]) -> dict[str, Any]:
    """LoRA-XS is TinyLoRA's layer with identity P, u = rank^2 and nothing shared."""
    if method != "lora-xs":
        return adapter
    rank = AdapterConfig(**{name: adapter[name] for name in ("rank",) if name in adapter}).rank
    fixed = {"u": rank**2, "projection": "identity"}
    for name, value in fixed.items():
        if str(adapter.get(name, value)) != str(value):
            raise RequestError(
                f"{name} = {adapter[name]} with method = lora-xs, which fixes {name} = {value}. "
                f"Leave {name} out, or use method = tinylora."
            )
    return {"num_groups": None, **adapter, **fixed}
