"""The flat settings in groups: as help, `config.yaml` and recipes show them."""

from pydantic.fields import FieldInfo

from tinylora.settings.adapter import PeftAdapter
from tinylora.settings.choices import CHOICES, names_of, readers
from tinylora.settings.run import ModelSettings, OutputSettings, RunSettings, SamplingSettings
from tinylora.settings.tasks import TASK_GROUPS as KINDS_OF_TASKS

Fields = dict[str, FieldInfo]


def _of_choice(choice: str) -> dict[str, Fields]:
    """The settings of a choice's classes, grouped by who reads them."""
    kinds = CHOICES[choice]
    groups: dict[str, Fields] = {}
    for name in names_of(choice):
        who = readers(choice, name)
        title = f"every {choice}" if len(who) == len(kinds) else f"{choice} {', '.join(who)}"
        groups.setdefault(title, {})[name] = kinds[who[0]].model_fields[name]
    return groups


def _task_groups() -> dict[str, Fields]:
    """The settings of tasks; what two groups have, the first one shows."""
    groups: dict[str, Fields] = {}
    seen: set[str] = set()
    for title, kind in KINDS_OF_TASKS.items():
        fields = kind.model_fields
        groups[title] = {name: field for name, field in fields.items() if name not in seen}
        seen |= {*fields}
    return groups


TASK_GROUPS = _task_groups()
GROUPS: dict[str, Fields] = {
    "run": dict(RunSettings.model_fields),
    "base model": dict(ModelSettings.model_fields),
    "adapter": {name: f for name, f in PeftAdapter.model_fields.items() if name != "seed"},
    **_of_choice("algorithm"),
    "rollout": dict(SamplingSettings.model_fields),
    **_of_choice("rollout"),
    **TASK_GROUPS,
    "evaluation and output": dict(OutputSettings.model_fields),
}
FIELDS: Fields = {name: field for group in GROUPS.values() for name, field in group.items()}


def default_text(field: FieldInfo) -> str:
    """What help shows as a default; "" where there is none, or where the description says it."""
    default = None if field.is_required() else field.get_default()
    if default is None or default is False or default == ():
        return ""
    return ",".join(default) if isinstance(default, tuple) else str(default).lower()
