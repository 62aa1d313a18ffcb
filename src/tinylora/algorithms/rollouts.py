"""The first half of a step: problems are drawn, completions sampled and graded.

Everything random is a function of (seed, step), so that a run can continue anywhere.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from tinylora.algorithms.log import PhaseClock
from tinylora.algorithms.loop import Run
from tinylora.algorithms.losses import has_variance
from tinylora.errors import TinyLoraError
from tinylora.rewards.verdict import Verdict
from tinylora.rollout.engine import Completion
from tinylora.tasks.draw import derive_seed
from tinylora.tasks.graders import grade_groups
from tinylora.tasks.task import Problem, Task, grader_of

MAX_UNJUDGED_SHARE = 0.05  # of a step's completions; beyond it the grader is broken, not the model
STAMPS = ("sandbox", "control")  # of a verdict's details: what a program ran in, a false reward
FURTHER = 1_000_000  # steps between a step's draws
SAMPLES_PER_STEP = 4  # completions of each step that samples.jsonl keeps


@dataclass(frozen=True)
class Rollouts:
    """What was sampled in a step, and what the grader said; P problems by G samples."""

    problems_P: list[Problem]
    prompts_P: list[list[int]]
    completions_P_G: list[list[Completion]]
    texts_P_G: list[list[str]]
    verdicts_P_G: list[list[Verdict]]

    @property
    def rewards_P_G(self) -> Tensor:
        """(P, G); NaN where the grader could not judge."""
        nan = math.nan
        return torch.tensor(
            [[nan if v.score is None else v.score for v in row] for row in self.verdicts_P_G]
        )

    @property
    def completions(self) -> list[Completion]:
        return [completion for row in self.completions_P_G for completion in row]

    @property
    def num_tokens(self) -> int:
        return sum(len(completion.token_ids) for completion in self.completions)

    def select(self, places: Sequence[int]) -> "Rollouts":
        """Some of the problems with all that was sampled of them."""
        return Rollouts(*([getattr(self, f.name)[p] for p in places] for f in fields(self)))


def joined(parts: Sequence[Rollouts]) -> Rollouts:
    """The rollouts of several draws as those of one."""
    names = [field.name for field in fields(Rollouts)]
    return Rollouts(*(list(chain(*(getattr(part, name) for part in parts))) for name in names))


def further_draw(step: int, draw: int) -> int:
    """The place of a step's draws, from 0: the first is the step's own.

    Further draws are those of steps that no run has, so that nobody else takes them.
    """
    return step + draw * FURTHER


def roll_out(
    run: Run, step: int, num_problems: int, samples: int | Tensor, clock: PhaseClock
) -> Rollouts:
    """Draw the step's problems, sample completions, and grade them.

    Args:
        samples: how many of each prompt, from the policy; or candidates (C, num_groups, u), each
            of which answers every prompt and counts as a sample.
    """
    problems_P = run.problems(step, num_problems)
    prompts_P = [run.text.encode(problem) for problem in problems_P]
    seed = derive_seed(run.seed, "rollout", step)
    with clock("rollout"):
        if isinstance(samples, Tensor):
            generate = run.engine.generate_population
            completions_P_G = generate(prompts_P, samples, run.sampling, seed)
        else:
            completions_P_G = run.engine.generate(prompts_P, samples, run.sampling, seed)
    with clock("grade"):
        return graded(run, problems_P, prompts_P, completions_P_G)


def graded(
    run: Run,
    problems_P: list[Problem],
    prompts_P: list[list[int]],
    completions_P_G: list[list[Completion]],
) -> Rollouts:
    """The step's completions with their verdicts.

    Raises:
        TinyLoraError: too many could not be judged.
    """
    texts_P_G = [[run.text.decode(c.token_ids) for c in row] for row in completions_P_G]
    verdicts_P_G = grade_groups(grader_of(run.task), problems_P, texts_P_G)
    rollouts = Rollouts(problems_P, prompts_P, completions_P_G, texts_P_G, verdicts_P_G)
    check_judged(rollouts)
    return rollouts


def check_judged(rollouts: Rollouts) -> None:
    """Stop where more than a few completions could not be judged: the grader needs fixing."""
    verdicts = [verdict for row in rollouts.verdicts_P_G for verdict in row]
    unjudged = [verdict for verdict in verdicts if verdict.score is None]
    allowed = max(1, MAX_UNJUDGED_SHARE * len(verdicts))
    if len(unjudged) <= allowed and len(unjudged) < len(verdicts):
        return
    reason, count = Counter(v.cause for v in unjudged).most_common(1)[0]
    raise TinyLoraError(
        f"{len(unjudged)} of {len(verdicts)} completions of this step could not be judged "
        f"({count} of them: {reason}), and training on the rest would follow the grader's "
        "failures. Fix the grader or the gold answers, and resume."
    )


def rollout_metrics(rollouts: Rollouts, task: Task) -> dict[str, float]:
    """What the step's completions were like."""
    rewards_P_G = rollouts.rewards_P_G
    judged = rewards_P_G[~rewards_P_G.isnan()]
    num_right = sum(verdict.is_right for row in rollouts.verdicts_P_G for verdict in row)
    completions = rollouts.completions
    metrics = {
        "rollouts": len(completions),
        "reward": float(judged.mean()),
        "accuracy": num_right / len(judged),
        "completion_length": rollouts.num_tokens / len(completions),
        "truncated_share": sum(c.truncated for c in completions) / len(completions),
        "zero_variance_share": 1 - float(has_variance(rewards_P_G).float().mean()),
        "num_unjudged": rewards_P_G.numel() - len(judged),
    }
    if (true := true_rewards(rollouts)) is not None:
        metrics["true_reward"] = true
    if task.label is not None:
        kinds = Counter(task.label(text) for row in rollouts.texts_P_G for text in row)
        metrics |= {f"share_{kind}": n / len(completions) for kind, n in sorted(kinds.items())}
    return metrics


def true_rewards(rollouts: Rollouts) -> float | None:
    """The mean true reward of completions that a control rewarded; None: there is no control."""
    details = [verdict.details for row in rollouts.verdicts_P_G for verdict in row]
    held = [detail["true_score"] for detail in details if "true_score" in detail]
    judged = [score for score in held if score is not None]
    return sum(judged) / len(judged) if judged else None


def sample_records(rollouts: Rollouts, step: int) -> list[dict[str, Any]]:
    """The first completion of the step's first problems, for people to read.

    Of programs each says whether the sandbox was on.
    """
    shown = zip(rollouts.problems_P, rollouts.texts_P_G, rollouts.verdicts_P_G, strict=True)
    return [
        {
            "step": step,
            "prompt": problem.prompt,
            "gold": problem.gold,
            "completion": texts[0],
            "reward": verdicts[0].score,
            "reason": verdicts[0].reason,
            **{k: v for k, v in verdicts[0].details.items() if k in STAMPS},
        }
        for problem, texts, verdicts in list(shown)[:SAMPLES_PER_STEP]
    ]
