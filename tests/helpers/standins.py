"""A tiny model, a policy that is not TinyLoRA, and a task without words, for tests of the loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from tinylora.algorithms import make_step
from tinylora.algorithms.log import RunLog
from tinylora.algorithms.loop import Loop, Outcome, Run, run_steps
from tinylora.policy import no_lora
from tinylora.prompts import Text
from tinylora.rewards.verdict import Verdict
from tinylora.rollout.engine import Sampling
from tinylora.rollout.transformers import TransformersEngine
from tinylora.settings import TrainConfig
from tinylora.tasks.task import Problem, Task

VOCABULARY = 48
END = 1


def tiny_model(seed: int = 0, **settings: Any) -> Any:
    """A Qwen2 of two blocks with random weights, wide enough in scale to have opinions."""
    torch.manual_seed(seed)
    defaults: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "eos_token_id": END,
        "pad_token_id": 0,
    }
    model = Qwen2ForCausalLM(Qwen2Config(**{**defaults, **settings})).eval()
    return model.requires_grad_(False)


class SteeringPolicy:
    """Numbers v that push the output of every MLP along fixed random directions."""

    def __init__(self, model: Any, u: int = 32, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.model = model
        self.directions = torch.randn(u, model.config.hidden_size, generator=generator)
        self.directions *= u**-0.5
        self.v = nn.Parameter(torch.zeros(u))
        self.is_on = True
        for block in model.model.layers:
            block.mlp.register_forward_hook(self._push)

    def _push(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output + self.v @ self.directions if self.is_on else output

    def parameters(self) -> list[nn.Parameter]:
        return [self.v]

    @contextmanager
    def reference(self) -> Iterator[None]:
        self.is_on = False
        try:
            yield
        finally:
            self.is_on = True

    def rollout(self) -> Any:
        return nullcontext()

    def state_dict(self) -> dict[str, Tensor]:
        return {"v": self.v.detach().clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            self.v.copy_(state["v"])

    def metrics(self) -> dict[str, float]:
        return {"v_norm": float(self.v.detach().norm())}

    adapter = None

    @property
    def num_trainable(self) -> int:
        return self.v.numel()

    def write_lora(self, folder: Path) -> None:
        raise no_lora(self)

    def save(self, folder: Path, store: str) -> int:
        torch.save(self.state_dict(), folder / "v.pt")
        return (folder / "v.pt").stat().st_size

    def detach(self) -> None:
        """The hooks stay: the model is a test's own."""


def text() -> Text:
    """Token ids as words: "7 12 30"."""
    return Text(
        encode=lambda problem: [int(word) for word in problem.prompt.split()],
        tokenize=lambda words: [int(word) for word in words.split()],
        decode=lambda ids: " ".join(str(i) for i in ids),
        eos_token_ids=(END,),
    )


def low_token_task(max_new_tokens: int = 8) -> Task:
    """Right is a completion whose first token lies in the lower half of the vocabulary."""

    def grade(gold: str, completion: str) -> Verdict:
        return Verdict(float(int(completion.split()[0]) < VOCABULARY // 2))

    problems = [
        Problem(" ".join(str(2 + (7 * i + j * j) % 40) for j in range(3 + i % 4)), "low")
        for i in range(20)
    ]
    return Task("low-token", problems, problems[:5], grade, max_new_tokens)


def run_of(policy: Any, config: TrainConfig, task: Task | None = None, engine: Any = None) -> Run:
    """A run of the stand-ins, as `tinylora.run` makes one."""
    task = task or low_token_task()
    budget = config.max_new_tokens or task.max_new_tokens
    return Run(
        policy,
        engine or TransformersEngine(policy),
        task,
        text(),
        Sampling(config.temperature, budget, (END,)),
        config.seed,
        config.steps,
    )


def train_in(folder: Path, run: Run, config: TrainConfig, **loop: Any) -> Outcome:
    """Take the algorithm's steps, with log and checkpoint in `folder`."""
    log = RunLog(folder, config.steps)
    step = make_step(run, config.learning)
    place = folder / "checkpoint"
    return run_steps(run.policy, step, Loop(config, config.checkpoint_every, place, log, **loop))
