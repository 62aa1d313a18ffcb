"""The flat settings in groups: as help, `config.yaml` and recipes show them."""

from pydantic.fields import FieldInfo

from tinylora.settings.adapter import AdapterConfig
from tinylora.settings.choices import CHOICES, names_of, readers
from tinylora.settings.run import ModelSettings, OutputSettings, RunSettings, SamplingSettings
from tinylora.settings.task import TASK_FIELDS

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
    """The settings of all tasks, of mathematics, and of programs."""
    names = [*TASK_FIELDS]
    programs = names[names.index("sources") : names.index("unsafe_no_sandbox") + 1]
    mathematics = ["prompt_template", "reward_format", "answer_format", "level"]
    others = [name for name in names if name not in (*programs, *mathematics)]
    groups = {"task": others, "task: mathematics": mathematics, "task: programs": programs}
    return {title: {n: TASK_FIELDS[n] for n in members} for title, members in groups.items()}


TASK_GROUPS = _task_groups()
GROUPS: dict[str, Fields] = {
    "run": dict(RunSettings.model_fields),
    "base model": dict(ModelSettings.model_fields),
    "adapter": {name: f for name, f in AdapterConfig.model_fields.items() if name != "seed"},
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
