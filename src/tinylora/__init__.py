"""Teach a language model to reason by training as few numbers as you like.

The public names load when they are used, so that `import tinylora` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinylora.adapter import TinyLora, attach, load
    from tinylora.errors import RequestError, TinyLoraError
    from tinylora.rewards.verdict import Verdict
    from tinylora.run.training import train
    from tinylora.settings import AdapterConfig, TrainConfig
    from tinylora.tasks import Problem, Task, load_task

    __version__: str

__all__ = [
    "AdapterConfig",
    "Problem",
    "RequestError",
    "Task",
    "TinyLora",
    "TinyLoraError",
    "TrainConfig",
    "Verdict",
    "__version__",
    "attach",
    "load",
    "load_task",
    "train",
]

_HOMES = {
    "AdapterConfig": "tinylora.settings",
    "Problem": "tinylora.tasks",
    "RequestError": "tinylora.errors",
    "Task": "tinylora.tasks",
    "TinyLora": "tinylora.adapter",
    "TinyLoraError": "tinylora.errors",
    "TrainConfig": "tinylora.settings",
    "Verdict": "tinylora.rewards.verdict",
    "attach": "tinylora.adapter",
    "load": "tinylora.adapter",
    "load_task": "tinylora.tasks",
    "train": "tinylora.run.training",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("tinylora")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module tinylora has no attribute {name}")


def __dir__() -> list[str]:
    return __all__
