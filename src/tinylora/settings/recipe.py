"""Flat settings: as recipes, `config.yaml` and the command line hold them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tinylora.errors import RequestError
from tinylora.settings.adapter import AdapterConfig
from tinylora.settings.base import nearest
from tinylora.settings.train import BUDGET_KEYS, FIELDS, READ_BY_METHOD, TrainConfig


def flatten(config: TrainConfig) -> dict[str, Any]:
    """The settings as one flat mapping, as `config.yaml` and recipes hold them."""
    values = {**config.adapter.model_dump(mode="json"), **config.model_dump(mode="json")}
    unset = set(() if config.params is None else BUDGET_KEYS)
    if (read := READ_BY_METHOD.get(config.method)) is not None:
        unset |= {name for name in AdapterConfig.model_fields if name not in read} | {"params"}
    return {name: values[name] for name in FIELDS if name not in unset}


def unflatten(settings: Mapping[str, Any], source: str = "the settings") -> TrainConfig:
    """Flat settings to a checked `TrainConfig`.

    Args:
        settings: flat names to values, as YAML or the command line give them.
        source: where they stand, for the sentence about an unknown key.

    Raises:
        RequestError: an unknown key (with the nearest spelling), or a value out of its range.
    """
    for name in settings:
        if name not in FIELDS:
            raise RequestError(f"{name} is no setting ({source}).{nearest(name, FIELDS)}")
    adapter = {name: settings[name] for name in settings if name in AdapterConfig.model_fields}
    rest = {name: settings[name] for name in settings if name not in adapter}
    return TrainConfig(adapter=AdapterConfig(**adapter), **rest)


def with_budget(config: TrainConfig, u: int, num_groups: int) -> TrainConfig:
    """The settings with `params` spent as `u` numbers for each of `num_groups` groups."""
    settings = {name: value for name, value in flatten(config).items() if name != "params"}
    return unflatten({**settings, "u": u, "num_groups": num_groups})


def combine(recipe: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags over a recipe; a flag that sets the budget replaces the recipe's whole budget, and one
    of num_groups and n_tie replaces the other."""
    dropped: tuple[str, ...] = ()
    if "params" in flags:
        dropped = BUDGET_KEYS
    elif any(name in flags for name in BUDGET_KEYS):
        is_shared_anew = "num_groups" in flags or "n_tie" in flags
        dropped = ("params", *(("num_groups", "n_tie") if is_shared_anew else ()))
    return {**{name: recipe[name] for name in recipe if name not in dropped}, **flags}


def load_recipe(path: str | Path) -> dict[str, Any]:
    """The flat settings that a YAML file gives.

    Raises:
        RequestError: the file is missing, is not YAML, or holds an unknown key.
    """
    path = Path(path)
    if not path.is_file():
        raise RequestError(
            f"There is no recipe {path}. Give the path of a YAML file, or leave it out and use "
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
            f'{path} holds a {type(settings).__name__}, but a recipe is lines of "setting: value".'
        )
    for name in settings:
        if name not in FIELDS:
            raise RequestError(f"{path}: {name} is no setting.{nearest(str(name), FIELDS)}")
    return settings


def settings_yaml(config: TrainConfig) -> str:
    """All settings as a recipe that gives this very run."""
    return yaml.safe_dump(flatten(config), sort_keys=False, default_flow_style=None, width=100)
