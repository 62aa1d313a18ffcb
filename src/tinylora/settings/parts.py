"""From flat settings to the parts of a `TrainConfig`: adapter, algorithm, engine."""

from collections.abc import Mapping
from typing import Any

from tinylora.errors import RequestError
from tinylora.settings.adapter import PEFT, AdapterConfig
from tinylora.settings.algorithms import ALGORITHMS
from tinylora.settings.base import Settings
from tinylora.settings.passes import Adam
from tinylora.settings.rollout import ENGINES

PARTS: dict[str, tuple[type[Settings], ...]] = {
    "adapter": (AdapterConfig,),
    "learning": tuple(ALGORITHMS.values()),
    "engine": tuple(ENGINES.values()),
}


DEFAULT_RATES = {  # (on pocket: docs/results.md, on other models)
    "tinylora": (5e-2, 2e-4),
    "lora-xs": (3e-2, 2e-4),
    "lora": (4e-3, 1e-5),
    "vera": (4e-2, 1e-4),
    "bias-only": (1e-2, 1e-5),
    "full": (3e-4, 1e-6),
    PEFT: (4e-3, 1e-5),
}


def default_rate(model: str | None, method: str | None = "tinylora") -> float:
    """The learning rate where none is given."""
    kind = PEFT if str(method).startswith("peft:") else method
    on_pocket, elsewhere = DEFAULT_RATES.get(kind or "", DEFAULT_RATES["tinylora"])
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
