"""Three settings choose a class each: who reads a setting follows from the classes alone.

method      what is trained     METHODS
algorithm   how it is trained   ALGORITHMS
rollout     what samples        ENGINES
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tinylora.errors import RequestError
from tinylora.settings.adapter import (
    PEFT,
    AdapterConfig,
    LoraXs,
    LowRank,
    PeftMethod,
    Placement,
    method_kind,
)
from tinylora.settings.algorithms import ALGORITHMS
from tinylora.settings.base import Settings
from tinylora.settings.rollout import ENGINES, engine_kind

METHODS: dict[str, type[Placement]] = {
    "tinylora": AdapterConfig,
    "lora-xs": LoraXs,
    "lora": LowRank,
    "vera": LowRank,
    "bias-only": Placement,
    "full": Placement,
    PEFT: PeftMethod,
}
CHOICES: dict[str, Mapping[str, type[Settings]]] = {
    "method": METHODS,
    "algorithm": ALGORITHMS,
    "rollout": ENGINES,
}
KINDS = {"method": method_kind, "rollout": engine_kind}  # values that stand for a whole class
FIRST = {"method": "tinylora", "algorithm": "grpo", "rollout": "transformers"}


def chosen(choice: str, settings: Mapping[str, Any]) -> type[Settings] | None:
    """The class that these settings choose; None for a value that is none of the choices."""
    value = str(settings.get(choice, FIRST[choice]))
    try:
        return CHOICES[choice].get(KINDS.get(choice, str)(value))
    except RequestError:
        return None


def readers(choice: str, name: str) -> list[str]:
    """The values of a choice whose class has this setting."""
    return [value for value, kind in CHOICES[choice].items() if name in kind.model_fields]


def names_of(choice: str) -> list[str]:
    """All settings that some value of the choice reads, each once."""
    kinds = CHOICES[choice].values()
    return list(dict.fromkeys(name for kind in kinds for name in kind.model_fields))


def unread(settings: Mapping[str, Any], names: Iterable[str]) -> list[tuple[str, str]]:
    """Those names that the chosen classes do not have, each with its choice."""
    found = []
    for choice in CHOICES:
        kind = chosen(choice, settings)
        if kind is not None:
            known = [name for name in names if readers(choice, name)]
            found += [(name, choice) for name in known if name not in kind.model_fields]
    return found


def refuse_unread(settings: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse a setting that nothing would read.

    Raises:
        RequestError: with the choices that read it.
    """
    for name, choice in unread(settings, names):
        value = settings.get(choice, FIRST[choice])
        if value == "lora-xs" and name in ("u", "projection"):
            continue  # fixed by the rank there; a value that agrees is checked with it
        who = readers(choice, name)
        raise RequestError(
            f"{name} = {settings[name]} with {choice} = {value}, which does not read it: it is a "
            f"setting of {choice} = {', '.join(who)}. Leave {name} out, or choose one of them."
        )
