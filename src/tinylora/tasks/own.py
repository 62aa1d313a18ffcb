"""A user's own task: `my_task.py:make`, a function without arguments that returns a `Task`."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from tinylora.errors import RequestError
from tinylora.settings import nearest
from tinylora.tasks.task import Task


def load_own(name: str) -> Task:
    """Run the file and call the function; what either of them raises is the user's to see.

    Raises:
        RequestError: there is no such file or function, or it returned something else.
    """
    file, _, function = name.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise RequestError(
            f"There is no file {path}, which task = {name} names. Give FILE.py:FUNCTION."
        )
    with _importable(path.resolve().parent):
        module = _run(path)
        make = getattr(module, function, None)
        if not callable(make):
            known = [key for key, value in vars(module).items() if callable(value)]
            raise RequestError(f"{path} has no function {function}.{nearest(function, known)}")
        task = make()
    if not isinstance(task, Task):
        raise RequestError(
            f"{name} returned a {type(task).__name__}, but a task is a tinylora.Task. Return "
            "Task(name, train, test, grade)."
        )
    return task


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The file's neighbours can be imported while it runs, as by `python FILE.py`."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _run(path: Path) -> ModuleType:
    name = f"tinylora_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    spec.loader.exec_module(module)
    return module
