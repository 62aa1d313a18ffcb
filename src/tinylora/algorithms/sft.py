"""Supervised fine-tuning, the paper's comparison: next-token loss on solutions, mean over tokens.

The same problems, batching and optimiser as GRPO; a step reads `prompts_per_step` solutions. They
are the task's own (`references: task`), or right answers that the base model itself gives
(`references: own`: rejection sampling), which takes the style of other authors out of the
comparison.
"""

from collections.abc import Sequence
from typing import Any

import torch

from tinylora import distributed
from tinylora.algorithms.batching import (
    Sample,
    check_model,
    completion_logprobs,
    micro_batches,
    pack,
    split_among_processes,
)
from tinylora.algorithms.log import PhaseClock
from tinylora.algorithms.loop import Run, Samples
from tinylora.algorithms.optimizer import learning_rate_at, make_optimizer, step_clipped
from tinylora.algorithms.recompute import recomputing
from tinylora.algorithms.rollouts import SAMPLES_PER_STEP
from tinylora.errors import RequestError, TinyLoraError
from tinylora.fsdp import in_step
from tinylora.policy import UntrainedPolicy
from tinylora.prompts import Text
from tinylora.rollout.sharded import sharded
from tinylora.rollout.transformers import TransformersEngine
from tinylora.settings import Sft
from tinylora.tasks.draw import derive_seed
from tinylora.tasks.graders import grade_groups
from tinylora.tasks.task import Problem, grader_of

Reference = tuple[Problem, list[int]]  # a problem and the tokens of a right answer to it


class SftStep:
    """One update by the mean next-token loss of `prompts_per_step` solutions."""

    def __init__(self, run: Run, settings: Sft) -> None:
        torch.set_flush_denormal(True)  # as in GRPO
        check_model(run.policy.model)
        self.run, self.settings = run, settings
        self.state = make_optimizer(run.policy, settings)

    def __call__(self, number: int) -> tuple[dict[str, float], Samples]:
        """Take step `number` (from 0).

        Raises:
            RequestError: a problem of the task lacks a solution.
            TinyLoraError: none of the base model's samples is right.
        """
        run, settings, clock = self.run, self.settings, PhaseClock()
        problems = run.problems(number, settings.prompts_per_step)
        with clock("references"):
            if settings.references == "own":
                chosen = own_samples(run, problems, settings.samples_per_prompt, number)
            else:
                chosen = [(problem, solution_ids(problem, run.text)) for problem in problems]
        with clock("learn"):
            learned = learn(run, self.state, chosen, settings, number)
        num_sampled = settings.samples_per_prompt * len(problems) * (settings.references == "own")
        metrics = {"rollouts": num_sampled, **learned, **run.policy.metrics(), **clock.metrics()}
        return metrics, _records(chosen, run.text, number + 1)


def learn(
    run: Run,
    optimizer: torch.optim.Optimizer,
    references: Sequence[Reference],
    settings: Sft,
    step: int,
) -> dict[str, float]:
    """One update by the mean next-token loss of the references."""
    model = run.policy.model
    samples = [
        Sample(i, run.text.encode(problem), ids) for i, (problem, ids) in enumerate(references)
    ]
    num_tokens = sum(len(sample.completion) for sample in samples)
    cuts = split_among_processes(pack(samples, 1), model, settings.micro_batch_tokens)
    optimizer.zero_grad()
    total = torch.zeros(1, device=model.device)
    with recomputing(model, settings), in_step(model, is_learning=True):
        for part in micro_batches(cuts, model):
            logprobs_T = completion_logprobs(model, part, 1.0)
            loss = -logprobs_T.sum() / num_tokens
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
    distributed.add_up(total)
    rate = learning_rate_at(step, run.num_steps, settings)
    return {
        "loss": float(total),
        "num_references": len(samples),
        "completion_length": num_tokens / len(samples),
        **step_clipped(run.policy, optimizer, settings, rate),
    }


def solution_ids(problem: Problem, text: Text) -> list[int]:
    """The tokens of the problem's solution, with an end.

    Raises:
        RequestError: it has none.
    """
    if problem.solution is None:
        raise RequestError(
            f'algorithm = sft, but the problem "{problem.prompt[:60]}" lacks a solution to learn '
            "from. Add the field solution to its row, or use references = own: right samples of "
            "the base model."
        )
    return [*text.tokenize(problem.solution), text.eos_token_ids[0]]


def own_samples(
    run: Run, problems: Sequence[Problem], num_samples: int, step: int
) -> list[Reference]:
    """The first right answer of the base model to each problem, where it gives one.

    Raises:
        TinyLoraError: none of its samples is right.
    """
    prompts = [run.text.encode(problem) for problem in problems]
    seed = derive_seed(run.seed, "references", step)
    with run.policy.reference():
        engine = sharded(TransformersEngine(UntrainedPolicy(run.policy.model)))
        completions = engine.generate(prompts, num_samples, run.sampling, seed)
    texts = [[run.text.decode(c.token_ids) for c in row] for row in completions]
    verdicts = grade_groups(grader_of(run.task), problems, texts)
    found: list[Reference] = []
    for problem, row, judged in zip(problems, completions, verdicts, strict=True):
        right = (c.token_ids for c, v in zip(row, judged, strict=True) if v.is_right)
        ids = next(right, None)
        found += [] if ids is None else [(problem, ids)]
    if not found:
        raise TinyLoraError(
            f"None of the base model's {len(problems) * num_samples} samples of this step is "
            "right, so there is nothing to learn from. Raise samples_per_prompt, or use "
            "references = task."
        )
    return found


def _records(references: Sequence[Reference], text: Text, step: int) -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "prompt": problem.prompt,
            "gold": problem.gold,
            "completion": text.decode(ids),
        }
        for problem, ids in references[:SAMPLES_PER_STEP]
    ]
