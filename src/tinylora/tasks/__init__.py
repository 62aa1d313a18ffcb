"""From a name to a `Task`: a benchmark, a generator, rows of a file, or a user's own function."""

from importlib import import_module
from pathlib import Path

from tinylora.errors import RequestError
from tinylora.settings import CHAT_FIELDS, IN_PYTHON, TaskConfig, nearest
from tinylora.tasks.functions import as_reward, as_row
from tinylora.tasks.task import Problem, Task

__all__ = ["Problem", "Task", "as_reward", "as_row", "load_task"]

MATHEMATICS = ("data", "prompt_template", "reward_format")
PROGRAMS = (
    "data", "sources", "test_sources", "min_tests", "max_tests", "max_test_bytes", "tests_seed",
    "scheme", "factors", "output_compare", "unsafe_no_sandbox",
)  # fmt: skip
READS = {  # task -> which settings it reads, beside those of the chat template
    "pocket": (),
    "gsm8k": MATHEMATICS,
    "math": (*MATHEMATICS, "level"),
    **dict.fromkeys(
        ("math500", "minerva", "olympiadbench", "aime24", "amc23", "gaokao", "collegemath"),
        MATHEMATICS,
    ),
    "code_contests": (*PROGRAMS, "difficulties"),
    "deepcoder": PROGRAMS,
}
OWN_ROWS = ("answer_format", "reward_format")
DEFAULTS = TaskConfig()
KINDS = (
    "rg:NAME (a generator of reasoning-gym), rows of your own (data.jsonl), or a function of "
    "yours (my_task.py:make)"
)


def load_task(name: str, settings: TaskConfig = DEFAULTS) -> Task:
    """Find a task.

    Args:
        name: a task of this version, such as `pocket` or `gsm8k`; `rg:NAME`, a generator of
            reasoning-gym; `data.jsonl` (fields `prompt` and `answer`); or `my_task.py:make`, a
            function without arguments that returns a `Task`.
        settings: how it is read, asked and graded; a `TrainConfig` will do.

    Raises:
        RequestError: there is no such task, what is there is none, or a setting was given that
            this task does not read.
    """
    if name in READS:
        _refuse_unread(name, settings, READS[name])
        make = import_module(f"tinylora.tasks.{name}").make
        task: Task = make(settings) if READS[name] else make()
        return task
    if name.startswith("rg:"):
        from tinylora.tasks.gym import make as make_gym

        _refuse_unread(name, settings, ())
        return make_gym(name)
    if name.endswith(".jsonl"):
        from tinylora.tasks.rows import load_rows

        _refuse_unread(name, settings, OWN_ROWS)
        return load_rows(Path(name), settings)
    if ".py:" in name:
        from tinylora.tasks.own import load_own

        _refuse_unread(name, settings, ())
        return load_own(name)
    if name.startswith(IN_PYTHON):
        raise RequestError(
            f"The run was given its task {name.removeprefix(IN_PYTHON)} as an object in Python, "
            "which no name finds again. Evaluate it with --task FILE.py:FUNCTION, or go on with it "
            "in Python: tinylora.train(config, task=..., resume=True)."
        )
    raise RequestError(
        f'task = "{name}" is no task of this version.{nearest(name, READS)} '
        f"Use {', '.join(READS)}, {KINDS}."
    )


def _refuse_unread(name: str, settings: TaskConfig, read: tuple[str, ...]) -> None:
    """A setting that the task does not read would do nothing, and nobody would notice."""
    for setting in TaskConfig.model_fields:
        value = getattr(settings, setting)
        if setting not in (*read, *CHAT_FIELDS) and value != getattr(DEFAULTS, setting):
            readers = ", ".join(task for task, known in READS.items() if setting in known)
            readers = readers or "rows of your own (data.jsonl)"
            raise RequestError(
                f"{setting} = {value}, but task {name} does not read it: it is for {readers}. "
                "Leave it out, or use another task."
            )
