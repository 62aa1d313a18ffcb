"""From a name to a `Task`: a benchmark, a generator, rows of a file, or a user's own function."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from tinylora.errors import RequestError
from tinylora.settings import CHAT_FIELDS, IN_PYTHON, TASK_FIELDS, TaskConfig, nearest
from tinylora.settings.base import Settings
from tinylora.settings.tasks import (
    ChainSettings,
    ContestSettings,
    FormatSettings,
    MathematicsSettings,
    ProgramSettings,
    QuestionSettings,
    RowSettings,
)
from tinylora.tasks import (
    benchmarks,
    chains,
    code_contests,
    deepcoder,
    gym,
    own,
    pocket,
    rows,
    tables,
)
from tinylora.tasks.data import is_rows
from tinylora.tasks.functions import as_reward, as_row
from tinylora.tasks.program_answers import program_in
from tinylora.tasks.task import Problem, Task
from tinylora.tasks.twins import with_twins

__all__ = ["KINDS", "Problem", "Task", "as_reward", "as_row", "load_task"]

Group = TypeVar("Group", bound=Settings)


@dataclass(frozen=True)
class Kind(Generic[Group]):
    """A kind of task: the settings that it reads, beside the chat's, and how it is made of them.

    The type of `make` says the same as `reads`, so that a type checker sees a setting that is read
    and not declared.
    """

    reads: type[Group]
    make: Callable[[str, Group], Task]


def _programs(make: Callable[[TaskConfig], Task]) -> Callable[[str, Any], Task]:
    return lambda name, settings: replace(make(settings), answer_of=program_in)


BUILT_IN: dict[str, Kind[Any]] = {
    "pocket": Kind(Settings, lambda name, settings: pocket.make()),
    "tables": Kind(FormatSettings, lambda name, settings: tables.make(settings)),
    "chains": Kind(ChainSettings, lambda name, settings: chains.make(settings)),
    **{name: Kind(QuestionSettings, benchmarks.make) for name in benchmarks.BENCHMARKS},
    "math": Kind(MathematicsSettings, benchmarks.make_math),
    "code_contests": Kind(ContestSettings, _programs(code_contests.make)),
    "deepcoder": Kind(ProgramSettings, _programs(deepcoder.make)),
}
GENERATOR, ROWS, OWN = "rg:NAME", "rows of your own (data.jsonl)", "my_task.py:make"
KINDS: dict[str, Kind[Any]] = {
    **BUILT_IN,
    GENERATOR: Kind(Settings, lambda name, settings: gym.make(name)),
    ROWS: Kind(RowSettings, lambda name, settings: rows.load_rows(Path(name), settings)),
    OWN: Kind(Settings, lambda name, settings: own.load_own(name)),
}
DEFAULTS = TaskConfig()


def load_task(name: str, settings: TaskConfig = DEFAULTS) -> Task:
    """Find a task.

    Args:
        name: a task of this version, such as `pocket` or `gsm8k`; `rg:NAME`, a generator of
            reasoning-gym; `data.jsonl` (fields `prompt` and `answer`); or `my_task.py:make`, a
            function without arguments that returns a `Task`.
        settings: how it is read, asked and graded; a `TrainConfig` will do.

    Raises:
        RequestError: there is no such task, what is there is not one, or a setting was given that
            this task does not read.
    """
    kind = KINDS[kind_of(name)]
    _refuse_unread(name, kind, settings)
    return with_twins(kind.make(name, settings))


def kind_of(name: str) -> str:
    """The key in `KINDS` of a task's name.

    Raises:
        RequestError: no kind of task is called so.
    """
    if name in BUILT_IN:
        return name
    if name.startswith(gym.PREFIX):
        return GENERATOR
    if ".py:" in name:
        return OWN
    if name.startswith(IN_PYTHON):
        raise RequestError(
            f"The run was given its task {name.removeprefix(IN_PYTHON)} as an object in Python, so "
            "it cannot be found by name. Evaluate it with --task FILE.py:FUNCTION, or resume it "
            "in Python: tinylora.train(config, task=..., resume=True)."
        )
    if is_rows(name):
        return ROWS
    raise RequestError(
        f'task = "{name}" is not a task of this version.{nearest(name, BUILT_IN)} Use '
        f"{', '.join(BUILT_IN)}, rg:NAME (a generator of reasoning-gym), {ROWS}, or a function of "
        f"your own ({OWN})."
    )


def _refuse_unread(name: str, kind: Kind[Any], settings: TaskConfig) -> None:
    """A setting that the task does not read would do nothing, and nobody would notice."""
    read = (*kind.reads.model_fields, *CHAT_FIELDS)
    for setting in TASK_FIELDS:
        value = getattr(settings, setting)
        if setting not in read and value != getattr(DEFAULTS, setting):
            shown = ",".join(value) if isinstance(value, tuple) else value
            readers = [known for known in KINDS if setting in KINDS[known].reads.model_fields]
            raise RequestError(
                f"{setting} = {shown}, but task {name} does not read it: it is for "
                f"{', '.join(readers)}. Leave it out, or use another task."
            )
