"""Ask a policy a task's problems, greedy and sampled, and grade the answers; the controls.

`records.py` has what the answers add up to.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from tinylora.adapter import TinyLora
from tinylora.errors import TinyLoraError
from tinylora.evaluate.records import Evaluation, Record
from tinylora.prompts import Text
from tinylora.rewards.verdict import Verdict
from tinylora.rollout.engine import Completion, Engine, Sampling
from tinylora.tasks.draw import derive_seed
from tinylora.tasks.graders import grade_groups
from tinylora.tasks.task import Problem, Task, grader_of

NUM_RANDOM = 10  # random v of the same norm, among the controls
Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Exam:
    """What every policy that is compared gets: the same problems, budget and seeds.

    Args:
        temperature, samples: of the sampled answers.
        max_new_tokens: the completion budget; None: the task's.

    Raises:
        TinyLoraError: on asking, where none of the answers could be judged.
    """

    task: Task
    text: Text
    problems: Sequence[Problem]
    temperature: float = 1.0
    samples: int = 1
    seed: int = 0
    max_new_tokens: int | None = None

    def greedy(self, engine: Engine) -> Evaluation:
        """The likeliest answer to each problem."""
        return self._evaluate(engine, 0.0, 1)

    def sampled(self, engine: Engine) -> Evaluation:
        """`samples` answers to each problem."""
        return self._evaluate(engine, self.temperature, self.samples)

    def both(self, engine: Engine) -> dict[str, Evaluation]:
        """Greedy and sampled answers, by these names."""
        return {"greedy": self.greedy(engine), "sampled": self.sampled(engine)}

    def _evaluate(self, engine: Engine, temperature: float, samples: int) -> Evaluation:
        """Let the engine answer every problem and grade the answers."""
        budget = self.max_new_tokens or self.task.max_new_tokens
        sampling = Sampling(temperature, budget, self.text.eos_token_ids)
        prompts = [self.text.encode(problem) for problem in self.problems]
        seed = derive_seed(self.seed, "evaluate", 0)
        completions_P_G = engine.generate(prompts, samples, sampling, seed)
        texts_P_G = [[self.text.decode(c.token_ids) for c in row] for row in completions_P_G]
        verdicts_P_G = grade_groups(grader_of(self.task), self.problems, texts_P_G)
        rows = zip(texts_P_G, verdicts_P_G, completions_P_G, strict=True)
        records = [[self._record(*answer) for answer in zip(*row, strict=True)] for row in rows]
        return _checked(Evaluation(records))

    def _record(self, answer: str, verdict: Verdict, completion: Completion) -> Record:
        label = self.task.label(answer) if self.task.label else None
        num_tokens = len(completion.token_ids)
        return Record(answer, verdict, num_tokens, completion.truncated, label)


def _checked(evaluation: Evaluation) -> Evaluation:
    if not evaluation.judged:
        cause = Counter(record.verdict.cause for record in evaluation.records)
        raise TinyLoraError(
            f"None of {len(evaluation.records)} answers could be judged "
            f"({cause.most_common(1)[0][0]}), so the accuracy is unknown. Fix the grader."
        )
    return evaluation


def summaries(evaluations: dict[str, Evaluation]) -> dict[str, dict[str, Any]]:
    """The figures of each, as JSON holds them."""
    return {name: evaluation.summary() for name, evaluation in evaluations.items()}


def controls(
    adapter: TinyLora, measure: Callable[[], Measured], seed: int, count: int = NUM_RANDOM
) -> tuple[Measured, list[Measured]]:
    """What the trained v is compared with: zeros, and random values of the same norm.

    Args:
        measure: whatever is measured with the adapter's present v.

    Returns:
        The measure of zeros, and one for each random draw. The adapter has its own v back.
    """
    trained = adapter.v.detach().clone()
    try:
        adapter.zero()
        zero = measure()
        random = []
        for values in random_values(trained, seed, count):
            adapter.set_values(values)
            random.append(measure())
    finally:
        adapter.set_values(trained)
    return zero, random


def random_values(trained: Tensor, seed: int, count: int) -> list[Tensor]:
    """Random directions, each with the norm of the trained v."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(count, *trained.shape, generator=generator).to(trained)
    return [draw * (trained.norm() / draw.norm()) for draw in draws]
