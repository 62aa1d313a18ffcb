"""Every setting, its range and its default; where a recipe, the flags and Python meet.

Importing this room imports neither torch nor transformers.
"""

from tinylora.settings.adapter import (
    PEFT,
    SEVEN_MAPS,
    TEXT_PREFIX,
    AdapterConfig,
    PeftAdapter,
    method_kind,
)
from tinylora.settings.algorithms import (
    Algorithm,
    Bayesian,
    CmaEs,
    Grpo,
    Npg,
    RandomSearch,
    Sampled,
    Search,
    Sft,
)
from tinylora.settings.base import nearest
from tinylora.settings.config import BUDGET_KEYS, TrainConfig
from tinylora.settings.groups import FIELDS, GROUPS, TASK_GROUPS, default_text
from tinylora.settings.parts import default_rate
from tinylora.settings.passes import Adam, Passes, Precision
from tinylora.settings.recipe import (
    combine,
    flatten,
    load_recipe,
    recorded,
    settings_yaml,
    unflatten,
    with_budget,
)
from tinylora.settings.rollout import server_addresses
from tinylora.settings.run import IN_PYTHON, OutputSettings, RunSettings
from tinylora.settings.tasks import CHAT_FIELDS, TASK_FIELDS, TASK_HELP, TaskConfig, TestSource

__all__ = [
    "BUDGET_KEYS",
    "CHAT_FIELDS",
    "FIELDS",
    "GROUPS",
    "IN_PYTHON",
    "PEFT",
    "SEVEN_MAPS",
    "TASK_FIELDS",
    "TASK_GROUPS",
    "TASK_HELP",
    "TEXT_PREFIX",
    "Adam",
    "AdapterConfig",
    "Algorithm",
    "Bayesian",
    "CmaEs",
    "Grpo",
    "Npg",
    "OutputSettings",
    "Passes",
    "PeftAdapter",
    "Precision",
    "RandomSearch",
    "RunSettings",
    "Sampled",
    "Search",
    "Sft",
    "TaskConfig",
    "TestSource",
    "TrainConfig",
    "combine",
    "default_rate",
    "default_text",
    "flatten",
    "load_recipe",
    "method_kind",
    "nearest",
    "recorded",
    "server_addresses",
    "settings_yaml",
    "unflatten",
    "with_budget",
]
