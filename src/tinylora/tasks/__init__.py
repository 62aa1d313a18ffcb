"""From a name to a `Task`: the embedded one, rows of a file, or a user's own function."""

from pathlib import Path

from tinylora.config import IN_PYTHON, nearest
from tinylora.errors import RequestError
from tinylora.tasks.functions import as_reward, as_row
from tinylora.tasks.task import Problem, Task

__all__ = ["Problem", "Task", "as_reward", "as_row", "load_task"]

KNOWN = ("pocket",)


def load_task(name: str) -> Task:
    """Find a task.

    Args:
        name: `pocket`; `data.jsonl` (fields `prompt` and `answer`, exact match); or
            `my_task.py:make`, a function without arguments that returns a `Task`.

    Raises:
        RequestError: there is no such task, or what is there is none.
    """
    if name == "pocket":
        from tinylora.pocket.task import make

        return make()
    if name.endswith(".jsonl"):
        from tinylora.tasks.rows import load_rows

        return load_rows(Path(name))
    if ".py:" in name:
        from tinylora.tasks.own import load_own

        return load_own(name)
    if name.startswith(IN_PYTHON):
        raise RequestError(
            f"The run was given its task {name.removeprefix(IN_PYTHON)} as an object in Python, "
            "which no name finds again. Evaluate it with --task FILE.py:FUNCTION, or go on with it "
            "in Python: tinylora.train(config, task=..., resume=True)."
        )
    raise RequestError(
        f'task = "{name}" is no task of this version.{nearest(name, KNOWN)} '
        "Use pocket, a file of rows (data.jsonl), or a function of yours (my_task.py:make)."
    )
