"""Flat settings: as recipes, `config.yaml` and the command line hold them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tinylora.errors import RequestError
from tinylora.settings.base import nearest, none_word
from tinylora.settings.choices import CHOICES, chosen, unread
from tinylora.settings.config import BUDGET_KEYS, TrainConfig
from tinylora.settings.groups import FIELDS
from tinylora.settings.run import OutputSettings, RunSettings

SWITCHES = {*CHOICES, "references", "snr", "eval_every"}  # they decide what else is read


def flatten(config: TrainConfig) -> dict[str, Any]:
    """The settings that the run reads, flat: as `config.yaml` and recipes hold them."""
    parts = (config, config.adapter, config.learning, config.engine)
    values = {name: value for part in parts for name, value in part.model_dump(mode="json").items()}
    unset = {name for name, _ in unread(values, FIELDS)}
    if config.params is not None:
        unset |= {*BUDGET_KEYS}
    if config.method != "tinylora":
        unset |= {"params"}
    unset |= {name for part in parts for name in part.idle()}
    return {name: values[name] for name in FIELDS if name not in unset}


def unflatten(settings: Mapping[str, Any], source: str = "the settings") -> TrainConfig:
    """Flat settings to a checked `TrainConfig`.

    Args:
        settings: flat names to values, as YAML or the command line give them.
        source: where they are, for the sentence about an unknown key.

    Raises:
        RequestError: an unknown key (with the nearest spelling), one that nothing would read, or a
            value out of its range.
    """
    for name in settings:
        if name not in FIELDS:
            raise RequestError(f"{name} is not a setting ({source}).{nearest(name, FIELDS)}")
    return TrainConfig(**settings)


def with_budget(config: TrainConfig, u: int, num_groups: int) -> TrainConfig:
    """The settings with `params` spent as `u` parameters for each of `num_groups` groups."""
    settings = {name: value for name, value in flatten(config).items() if name != "params"}
    return unflatten({**settings, "u": u, "num_groups": num_groups})


def combine(recipe: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags over a recipe.

    A flag that sets the budget replaces the recipe's whole budget, and one of num_groups and n_tie
    replaces the other. What the recipe says for a method, an algorithm or an engine that a flag
    replaces, or for a setting that a flag turns off, is left behind.
    """
    merged = {**recipe, **flags}
    dropped = _without_reader(merged) if SWITCHES & flags.keys() else set()
    if none_word(flags.get("params")) is not None:
        dropped |= {*BUDGET_KEYS}
    elif (
        any(name in flags for name in BUDGET_KEYS) or merged.get("method", "tinylora") != "tinylora"
    ):
        dropped |= {"params"}
    if "num_groups" in flags or "n_tie" in flags:
        dropped |= {"num_groups", "n_tie"}
    return {**{name: recipe[name] for name in recipe if name not in dropped}, **flags}


def recorded(path: str | Path) -> dict[str, Any]:
    """The settings of a run's `config.yaml`; what the run did not read is left out.

    Older runs recorded every setting.
    """
    settings = load_recipe(path)
    dropped = _without_reader(settings)
    return {name: settings[name] for name in settings if name not in dropped}


def _without_reader(settings: Mapping[str, Any]) -> set[str]:
    """Those that the chosen classes do not have, or that other values leave idle."""
    values = {name: none_word(value) for name, value in settings.items()}
    found = {name for name, _ in unread(values, values)}
    for kind in (chosen("algorithm", values), RunSettings, OutputSettings):
        found |= set(kind.model_construct(None, **values).idle()) if kind else set()
    return found & {*settings}


def load_recipe(path: str | Path) -> dict[str, Any]:
    """The flat settings that a YAML file gives.

    Raises:
        RequestError: the file is missing, is not YAML, or holds an unknown key.
    """
    path = Path(path)
    if not path.is_file():
        raise RequestError(
            f"The recipe {path} does not exist. Pass the path of a YAML file, or leave it out and "
            "use "
            'options ("tinylora train --help").'
        )
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise RequestError(
            f"{path} contains a {type(settings).__name__}, but a recipe consists of lines of "
            '"setting: value".'
        )
    for name in settings:
        if name not in FIELDS:
            raise RequestError(f"{path}: {name} is not a setting.{nearest(str(name), FIELDS)}")
    return settings


def settings_yaml(settings: Mapping[str, Any]) -> str:
    """All settings as a recipe that gives this very run."""
    return yaml.safe_dump(dict(settings), sort_keys=False, default_flow_style=None, width=100)
