"""Every setting, its range and its default; where a recipe, the flags and Python meet.

Importing this room imports neither torch nor transformers.
"""

from tinylora.settings.adapter import SEVEN_MAPS, TEXT_PREFIX, AdapterConfig
from tinylora.settings.base import nearest
from tinylora.settings.recipe import (
    combine,
    flatten,
    load_recipe,
    settings_yaml,
    unflatten,
    with_budget,
)
from tinylora.settings.task import CHAT_FIELDS, TASK_FIELDS, TASK_HELP, TaskConfig, TestSource
from tinylora.settings.train import (
    BUDGET_KEYS,
    FIELDS,
    IN_PYTHON,
    TrainConfig,
    default_rate,
    server_addresses,
)

__all__ = [
    "BUDGET_KEYS",
    "CHAT_FIELDS",
    "FIELDS",
    "IN_PYTHON",
    "SEVEN_MAPS",
    "TASK_FIELDS",
    "TASK_HELP",
    "TEXT_PREFIX",
    "AdapterConfig",
    "TaskConfig",
    "TestSource",
    "TrainConfig",
    "combine",
    "default_rate",
    "flatten",
    "load_recipe",
    "nearest",
    "server_addresses",
    "settings_yaml",
    "unflatten",
    "with_budget",
]
