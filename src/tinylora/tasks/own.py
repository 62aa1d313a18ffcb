"""A user's own task: `my_task.py:make`, a function without arguments that returns a `Task`."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from tinylora.errors import RequestError
from tinylora.settings import nearest
from tinylora.tasks.task import Task, check_task
from tinylora.tasks.theirs import described, place_of, their_code


def load_own(name: str) -> Task:
    """Run the file and call the function.

    Raises:
        RequestError: there is no such file or function, one of them raised an exception (with the
            file and line), or it returned something that is not a task.
    """
    file, _, function = name.rpartition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        raise RequestError(
            f"task = {name}, but the file {path} does not exist. Use FILE.py:FUNCTION."
        )
    with _importable(path.resolve().parent), _without_exit(name):
        with their_code(str(path), RequestError):
            module = _run(path)
        make = getattr(module, function, None)
        if not callable(make):
            known = [key for key, value in vars(module).items() if callable(value)]
            raise RequestError(f"{path} does not define {function}.{nearest(function, known)}")
        with their_code(name, RequestError):
            task = make()
    return check_task(task, name)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The file's neighbours come first while it runs, as by `python FILE.py`, and last from then
    on: a grader may import them when it is called."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


@contextmanager
def _without_exit(name: str) -> Iterator[None]:
    try:
        yield
    except SystemExit as stop:
        place = place_of(stop) or name
        raise RequestError(
            f"{name} ended the program ({described(stop)}; {place}). Return a Task, or raise an "
            "exception that says what is wrong."
        ) from None


def _run(path: Path) -> ModuleType:
    name = f"tinylora_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
