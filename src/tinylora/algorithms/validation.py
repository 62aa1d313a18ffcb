"""Validation during training: held-out problems, and the best numbers that they have seen.

Test problems would leak into the choice of the best adapter, so these come from the training split
and are not trained on. They are the same in every run of a task, whatever its seed.

Not covered: twins of a held-out problem that stay among the training problems.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tinylora.errors import RequestError
from tinylora.policy import Policy
from tinylora.settings import OutputSettings
from tinylora.tasks.draw import derive_seed
from tinylora.tasks.task import MadeProblems, Problem, Task

MOST_HELD_OUT = 5  # at most one training problem in five


@dataclass(frozen=True)
class Best:
    """The numbers with the highest validation accuracy so far, and the step that made them."""

    step: int
    accuracy: float
    state: dict[str, Tensor]


class Validation:
    """Measures every so many steps, and keeps the best numbers; of equal ones the earliest.

    Args:
        measure: the accuracy of the policy as it is now.
        every: steps between two measurements.
    """

    def __init__(self, measure: Callable[[], float], every: int) -> None:
        self.measure, self.every = measure, every
        self.best: Best | None = None

    def after(self, step: int, policy: Policy) -> dict[str, float]:
        """What the metrics of step `step` (from 1) gain; nothing where none is due."""
        if step % self.every:
            return {}
        start = time.perf_counter()
        accuracy = self.measure()
        if self.best is None or accuracy > self.best.accuracy:
            state = {name: value.clone() for name, value in policy.state_dict().items()}
            self.best = Best(step, accuracy, state)
        seconds = time.perf_counter() - start
        return {"validation_accuracy": accuracy, "seconds_validation": seconds}

    def state_dict(self) -> dict[str, Any] | None:
        """For a checkpoint."""
        return None if self.best is None else vars(self.best).copy()

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Put back what `state_dict` gave."""
        self.best = None if state is None else Best(**state)


def hold_out(task: Task, settings: OutputSettings) -> tuple[Task, list[Problem]]:
    """The task without its validation problems, and these; nothing changes without `eval_every`.

    Raises:
        RequestError: there are too few training problems to hold any out.
    """
    if settings.eval_every is None:
        return task, []
    size = len(task.train)
    count = min(settings.validation_problems, size // MOST_HELD_OUT)
    if not count:
        raise RequestError(
            f"eval_every = {settings.eval_every}, but the task {task.name} has only {size} "
            f"training problems, and at most one in {MOST_HELD_OUT} can be held out. Add "
            "problems, or leave eval_every out."
        )
    generator = torch.Generator().manual_seed(derive_seed(0, "validation", 0))
    order = torch.randperm(size, generator=generator)
    held_out = [task.train[i] for i in order[:count].sort().values.tolist()]
    kept = order[count:].sort().values
    rest = MadeProblems(lambda i: task.train[int(kept[i])], len(kept))
    return replace(task, train=rest), held_out
