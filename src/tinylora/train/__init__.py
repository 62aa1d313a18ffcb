"""Learning: `grpo.py` is the paper's loop; its parts are `losses.py` (arithmetic), `batching.py`
(log-probabilities), `checkpoint.py` and `metrics.py`. `run.py` is a whole run, `prepare.py` what it
needs.

`tinylora.train` is both this room and the function that trains, so the room can be called.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from tinylora.config import TrainConfig
    from tinylora.tasks.functions import RewardFunction
    from tinylora.tasks.task import Task


class _Callable(ModuleType):
    def __call__(
        self,
        config: "TrainConfig | None" = None,
        *,
        model: Any = None,
        tokenizer: Any = None,
        task: "Task | str | None" = None,
        reward: "RewardFunction | None" = None,
        resume: bool = False,
        console: "Console | None" = None,
        base: "Mapping[str, Any] | None" = None,
    ) -> dict[str, Any]:
        """Train and write a run folder: `tinylora.train.run.train`, which see.

        Args:
            config: the settings; None: all defaults (the pocket model on the pocket task).
            model: a name, or a Transformers model that is already loaded; None: `config.model`.
            tokenizer: of a loaded model; None: the one that belongs to it.
            task: a name or a `Task`; None: `config.task`.
            reward: any function with TRL's signature; it then replaces the task's grader.
            resume: go on with the run in `config.output`.
            console: where progress and the table go.
            base: accuracies of the base model that are known, which are then not measured again.

        Returns:
            What `summary.json` holds. `tinylora.load(model, summary["output"])` puts the adapter
            on.
        """
        from tinylora.train.run import train

        return train(
            config,
            model=model,
            tokenizer=tokenizer,
            task=task,
            reward=reward,
            resume=resume,
            console=console,
            base=base,
        )


sys.modules[__name__].__class__ = _Callable
