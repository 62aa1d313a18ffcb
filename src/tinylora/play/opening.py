"""Open what the playground shows: a model, an adapter on it, and the path of its training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinylora.adapter import TinyLora, attach, load
from tinylora.adapter.contents import AdapterFile, smallest_store
from tinylora.adapter.files import read
from tinylora.adapter.loading import base_problem
from tinylora.adapter.text import encode, is_text
from tinylora.algorithms.snapshots import found
from tinylora.errors import RequestError
from tinylora.evaluate.measure import load_base, make_exam
from tinylora.models import Base
from tinylora.play.boxes import DEFAULT_BOX, boxed_texts
from tinylora.play.instructions import Instruction, Tried, best
from tinylora.play.messages import MAX_NUMBERS
from tinylora.play.steering import Steering
from tinylora.settings import AdapterConfig
from tinylora.settings.evaluate import SNAPSHOTS, EvalConfig, run_folder
from tinylora.tasks import load_task
from tinylora.tasks.task import Problem

NO_PROMPT = Instruction("no prompt")


@dataclass(frozen=True)
class Playground:
    """Everything that the page shows.

    Args:
        steering: answers and measures.
        contents: the adapter as a file holds it; its v is the trained one, or zero.
        path: v after steps of its training, by their number; empty where none was kept.
        problems, train: those of the gauge, and others, on which prompts are tried.
    """

    base: Base
    steering: Steering
    contents: AdapterFile
    path: Mapping[int, Tensor]
    problems: Sequence[Problem]
    train: Sequence[Problem]

    @cached_property
    def prompts(self) -> list[Tried]:
        """The prompts that were tried on training problems, the best one first (seconds)."""
        return best(self.steering, self.train)

    def instruction(self, prompted: bool) -> Instruction:
        return self.prompts[0].instruction if prompted else NO_PROMPT

    def text(self, values: Tensor) -> str:
        """The adapter with these values, as one line in as few bits as lose nothing."""
        return encode(replace(self.contents, v=values), smallest_store(values))

    def values_of(self, text: str) -> list[float]:
        """v of a text, if its adapter differs from this one by v alone.

        Raises:
            RequestError: the text is damaged, of another base, or of an adapter of other settings.
        """
        return _row(_same_but_v(read(text), self.contents, self.steering.adapter, text[:40]))

    def about(self) -> dict[str, Any]:
        """What the page needs to know before anything is asked."""
        return {
            "model": self.base.name,
            "task": self.steering.task.name,
            "budget": self.steering.budget,
            "problems": [{"prompt": p.prompt, "gold": p.gold[:200]} for p in self.problems],
            "spaces": [space(self.contents, self.path, self.steering.adapter)],
        }


def space(contents: AdapterFile, path: Mapping[int, Tensor], adapter: TinyLora) -> dict[str, Any]:
    """The sliders of an adapter, and the points that are marked on them."""
    trained = contents.v.float()
    points = [trained, *path.values()]
    return {
        "shape": list(trained.shape),
        "groups": [_group_name(names) for names in adapter.modules_by_group],
        "trained": _row(trained) if bool(trained.any()) else None,
        "path": [{"step": step, "values": _row(v)} for step, v in path.items()],
        "limit": round_up(1.5 * (max(float(v.abs().max()) for v in points) or 1.0)),
    }


def round_up(x: float) -> float:
    """Up to 1, 1.5, 2, 3, 4, 5, 6, 8 or 10 times a power of ten: where sliders end."""
    unit = 10.0 ** math.floor(math.log10(x))
    return next(m * unit for m in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if m * unit >= x * (1 - 1e-9))


def open_adapter(source: str, config: EvalConfig, num_problems: int) -> Playground:
    """An adapter in any of its forms, on its base model."""
    base = load_base(config.model, [source], config.dtype, config.device, config.quantize)
    adapter = load(base.model, source, force=config.force)
    contents = read(source)
    files = {} if is_text(source) else found(Path(run_folder(source)) / SNAPSHOTS)
    held = {step: read(file) for step, file in files.items()}
    return _playground(base, adapter, contents, held, config, num_problems)


def open_model(
    name: str, placed: AdapterConfig | None, config: EvalConfig, num_problems: int
) -> Playground:
    """A base model with v = 0; the embedded one has runs that came with it.

    Args:
        placed: how it is adapted; None: as in the run that came with it, else the defaults.
    """
    held = boxed(DEFAULT_BOX) if name == "pocket" and placed is None else {}
    base = load_base(name, [], config.dtype, config.device, config.quantize)
    if held:
        contents = held[max(held)]
        adapter = load(base.model, encode(contents, "fp32"))
    else:
        adapter = attach(base.model, placed)
        contents = read(adapter.to_text())
    return _playground(base, adapter, contents, held, config, num_problems)


def boxed(name: str) -> dict[int, AdapterFile]:
    """The snapshots of a run that comes with the embedded model, by their step."""
    return {step: read(text) for step, text in boxed_texts(name).items()}


def _playground(
    base: Base,
    adapter: TinyLora,
    contents: AdapterFile,
    held: Mapping[int, AdapterFile],
    config: EvalConfig,
    num_problems: int,
) -> Playground:
    if adapter.num_trainable > MAX_NUMBERS:
        raise RequestError(
            f"This adapter has {adapter.num_trainable:,} numbers, but a page can hold at most "
            f"{MAX_NUMBERS:,} sliders. Play with an adapter of fewer."
        )
    adapter.zero()  # v is another one at each request
    task = load_task(config.task, config)
    exam = make_exam(base, task, config.model_copy(update={"eval_problems": num_problems}))
    steering = Steering(adapter, task, exam.text, exam.max_new_tokens or task.max_new_tokens)
    path = {
        step: _same_but_v(snapshot, contents, adapter, f"The snapshot of step {step}")
        for step, snapshot in held.items()
    }
    return Playground(base, steering, contents, path, exam.problems, task.train)


def _same_but_v(other: AdapterFile, contents: AdapterFile, adapter: TinyLora, name: str) -> Tensor:
    """v of an adapter that has the sliders of this one.

    Raises:
        RequestError: it was trained on another base, or its numbers mean something else.
    """
    if problem := base_problem(adapter.model, other):
        raise RequestError(f"{name} was not trained on this model's weights: {problem}")
    if other.config != contents.config or other.v.shape != contents.v.shape:
        raise RequestError(
            f"{name} is an adapter of {other.v.numel()} numbers with other settings than the one "
            f"shown here, which has {contents.v.numel()}: its numbers would mean something else. "
            'Open it by itself: "tinylora play" with it as the argument.'
        )
    return other.v.float()


def _row(values: Tensor) -> list[float]:
    return [float(x) for x in values.flatten().to(torch.float64)]


def _group_name(names: Sequence[str]) -> str:
    """The modules of a group in a few words: the first one, or the first and the last."""
    short = [
        name.removeprefix("model.layers.").replace("self_attn.", "").replace("mlp.", "")
        for name in names
    ]
    return short[0] if len(short) == 1 else f"{short[0]} to {short[-1]}"
