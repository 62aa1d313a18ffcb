"""How good a policy is on a task's problems: greedy and sampled accuracy, with intervals.

Accuracy is the share of wholly right answers (score 1 or more) among those that could be judged;
greedy accuracy is the paper's pass@1. Answers that could not be judged are counted apart.

Not covered yet: pass@k, paired tests.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from tinylora.adapter import TinyLora
from tinylora.config import TaskConfig
from tinylora.errors import TinyLoraError
from tinylora.models import DEFAULTS, Base, encode_problem
from tinylora.rewards.verdict import Verdict
from tinylora.rollout.engine import Engine, Sampling
from tinylora.tasks.task import Grade, Problem, Task
from tinylora.train.rollouts import Text, grade_groups, grader_of

NUM_RANDOM = 10  # random v of the same norm, among the controls
Z_95 = 1.959964


@dataclass(frozen=True)
class Record:
    """One answer and what was said about it."""

    completion: str
    verdict: Verdict
    num_tokens: int
    truncated: bool
    label: str | None


@dataclass(frozen=True)
class Evaluation:
    """The answers to P problems, G to each, and what they add up to."""

    records_P_G: list[list[Record]]

    @cached_property
    def records(self) -> list[Record]:
        return [record for row in self.records_P_G for record in row]

    @property
    def judged(self) -> list[Record]:
        return [record for record in self.records if record.verdict.score is not None]

    @property
    def accuracy(self) -> float:
        return _share_right(self.judged)

    @property
    def interval(self) -> tuple[float, float]:
        """95 %: Wilson's, for as many independent answers as these are worth."""
        return wilson(self.accuracy, self._num_effective())

    @property
    def num_unjudged(self) -> int:
        return len(self.records) - len(self.judged)

    @property
    def mean_length(self) -> float:
        return sum(record.num_tokens for record in self.records) / len(self.records)

    @property
    def truncated_share(self) -> float:
        return sum(record.truncated for record in self.records) / len(self.records)

    @property
    def by_label(self) -> dict[str, dict[str, float]]:
        """Share and accuracy of each kind among the judged answers; empty without kinds."""
        kinds: dict[str, list[Record]] = defaultdict(list)
        for record in self.judged:
            if record.label is not None:
                kinds[record.label].append(record)
        return {
            kind: {
                "share": len(records) / len(self.judged),
                "accuracy": _share_right(records),
            }
            for kind, records in sorted(kinds.items(), key=lambda item: -len(item[1]))
        }

    def summary(self) -> dict[str, Any]:
        """The figures, as JSON holds them."""
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "num_problems": len(self.records_P_G),
            "num_samples": len(self.records_P_G[0]),
            "num_unjudged": self.num_unjudged,
            "mean_length": self.mean_length,
            "truncated_share": self.truncated_share,
            "by_label": self.by_label,
        }

    def _num_effective(self) -> float:
        """Answers to one problem go together: n = p (1 - p) / var(mean over problems)."""
        rows = [
            [r.verdict.is_right for r in row if r.verdict.score is not None]
            for row in self.records_P_G
        ]
        means = torch.tensor([sum(row) / len(row) for row in rows if row], dtype=torch.float64)
        p, num_judged = self.accuracy, len(self.judged)
        if len(means) == num_judged or len(means) < 2 or not 0 < p < 1:
            return len(means)
        variance = float(means.var()) / len(means)
        return min(max(p * (1 - p) / variance, len(means)), num_judged) if variance else num_judged


def evaluate(
    engine: Engine,
    problems: Sequence[Problem],
    task: Task,
    text: Text,
    *,
    temperature: float = 0.0,
    samples: int = 1,
    seed: int = 0,
    max_new_tokens: int | None = None,
    grade: Grade | None = None,
) -> Evaluation:
    """Let the engine answer every problem and grade the answers.

    Args:
        temperature: 0 is greedy.
        samples: answers to each problem.
        max_new_tokens: the completion budget; None: the task's.
        grade: of many answers at once; None: the task's own.

    Raises:
        TinyLoraError: none of the answers could be judged.
    """
    sampling = Sampling(temperature, max_new_tokens or task.max_new_tokens, text.eos_token_ids)
    prompts = [text.encode(problem) for problem in problems]
    completions_P_G = engine.generate(prompts, samples, sampling, seed)
    texts_P_G = [[text.decode(c.token_ids) for c in row] for row in completions_P_G]
    verdicts_P_G = grade_groups(grade or grader_of(task), problems, texts_P_G)
    evaluation = Evaluation(
        [
            [
                Record(
                    answer,
                    verdict,
                    len(completion.token_ids),
                    completion.truncated,
                    task.label(answer) if task.label else None,
                )
                for answer, verdict, completion in zip(*row, strict=True)
            ]
            for row in zip(texts_P_G, verdicts_P_G, completions_P_G, strict=True)
        ]
    )
    if not evaluation.judged:
        reason = Counter(
            record.verdict.reason or "no reason given" for record in evaluation.records
        )
        raise TinyLoraError(
            f"None of {len(evaluation.records)} answers could be judged "
            f"({reason.most_common(1)[0][0]}), so there is no accuracy. Mend the grader."
        )
    return evaluation


def text_of(base: Base, settings: TaskConfig = DEFAULTS) -> Text:
    """How this model's texts become tokens, and back."""
    tokenizer = base.tokenizer

    def decode(token_ids: list[int]) -> str:
        return str(tokenizer.decode(token_ids, skip_special_tokens=True))

    return Text(
        lambda problem: encode_problem(tokenizer, problem, settings), decode, base.eos_token_ids
    )


def controls(
    adapter: TinyLora, measure: Callable[[], float], seed: int, count: int = NUM_RANDOM
) -> dict[str, Any]:
    """What the trained numbers are compared with: zeros, and random numbers of the same norm.

    Args:
        measure: the accuracy with the adapter's present numbers.

    Returns:
        `zero`, and `random`: one accuracy for each draw. The adapter has its numbers back.
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
    return {"zero": zero, "random": random}


def random_values(trained: Tensor, seed: int, count: int) -> list[Tensor]:
    """Random directions, each with the norm of the trained numbers."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(count, *trained.shape, generator=generator).to(trained)
    return [draw * (trained.norm() / draw.norm()) for draw in draws]


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share among `count` independent answers."""
    z2 = Z_95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z_95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _share_right(records: Sequence[Record]) -> float:
    return sum(record.verdict.is_right for record in records) / len(records)


@dataclass(frozen=True)
class UntrainedPolicy:
    """A base model without any adapter, for the engines."""

    model: Any

    def parameters(self) -> list[nn.Parameter]:
        return []

    def reference(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def rollout(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """There is nothing to put back."""

    def metrics(self) -> dict[str, float]:
        return {}
