"""Supervised fine-tuning, the paper's comparison: next-token loss on solutions, mean over tokens.

The same problems, batching and optimiser as GRPO; a step reads `prompts_per_step` solutions. They
are the task's own (`references: task`), or right answers that the base model itself gives
(`references: own`: rejection sampling), which takes the style of other authors out of the
comparison.
"""

from collections.abc import Sequence
from pathlib import Path
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
from tinylora.algorithms.log import NoLog, PhaseClock, RunLog
from tinylora.algorithms.loop import Outcome, run_steps
from tinylora.algorithms.optimizer import make_optimizer, step_clipped
from tinylora.algorithms.recompute import recomputing
from tinylora.algorithms.rollouts import SAMPLES_PER_STEP
from tinylora.algorithms.validation import Validation
from tinylora.errors import RequestError, TinyLoraError
from tinylora.fsdp import in_step
from tinylora.policy import Policy, UntrainedPolicy
from tinylora.prompts import Text
from tinylora.rollout.engine import Engine, Sampling
from tinylora.rollout.sharded import sharded
from tinylora.rollout.transformers import TransformersEngine
from tinylora.settings import TrainConfig
from tinylora.tasks.draw import derive_seed, draw_problems
from tinylora.tasks.grading import grade_groups
from tinylora.tasks.task import Grade, Problem, Task, grader_of

Reference = tuple[Problem, list[int]]  # a problem and the tokens of a right answer to it


def train_sft(
    policy: Policy,
    engine: Engine,
    task: Task,
    text: Text,
    config: TrainConfig,
    log: RunLog | NoLog,
    *,
    checkpoint_folder: Path,
    resume: bool = False,
    grade: Grade | None = None,
    validation: Validation | None = None,
) -> Outcome:
    """Train the policy's numbers on solutions; arguments and errors as `train_grpo`'s.

    Raises:
        RequestError: a problem of the task has no solution.
    """
    torch.set_flush_denormal(True)  # as in GRPO
    check_model(policy.model)
    optimizer = make_optimizer(policy, config)

    def step(number: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
        clock = PhaseClock()
        problems = draw_problems(task.train, config.prompts_per_step, config.seed, number)
        with clock("references"):
            if config.references == "own":
                chosen = own_samples(policy, problems, task, text, config, number, grade)
            else:
                chosen = [(problem, solution_ids(problem, text)) for problem in problems]
        with clock("learn"):
            learned = sft_step(policy, optimizer, chosen, text, config, number)
        metrics = {**learned, **policy.metrics(), **clock.metrics()}
        return metrics, _records(chosen, text, number + 1)

    return run_steps(
        step,
        policy,
        optimizer,
        config,
        log,
        checkpoint_folder=checkpoint_folder,
        resume=resume,
        validation=validation,
    )


def sft_step(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    references: Sequence[Reference],
    text: Text,
    config: TrainConfig,
    step: int,
) -> dict[str, float]:
    """One update by the mean next-token loss of the references."""
    model = policy.model
    samples = [
        Sample(index, text.encode(problem), ids) for index, (problem, ids) in enumerate(references)
    ]
    num_tokens = sum(len(sample.completion) for sample in samples)
    cuts = split_among_processes(pack(samples, 1), model, config.micro_batch_tokens)
    optimizer.zero_grad()
    total = torch.zeros(1, device=model.device)
    with recomputing(model, config), in_step(model, is_learning=True):
        for part in micro_batches(cuts, model):
            logprobs_T = completion_logprobs(model, part, 1.0)
            loss = -logprobs_T.sum() / num_tokens
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
    distributed.add_up(total)
    return {
        "loss": float(total),
        "num_references": len(samples),
        "completion_length": num_tokens / len(samples),
        **step_clipped(policy, optimizer, config, step),
    }


def solution_ids(problem: Problem, text: Text) -> list[int]:
    """The tokens of the problem's solution, with an end.

    Raises:
        RequestError: it has none.
    """
    if problem.solution is None:
        raise RequestError(
            f'algorithm = sft, but the problem "{problem.prompt[:60]}" has no solution to learn '
            "from. Give its row the field solution, or use references = own: right samples of the "
            "base model."
        )
    return [*text.tokenize(problem.solution), text.eos_token_ids[0]]


def own_samples(
    policy: Policy,
    problems: Sequence[Problem],
    task: Task,
    text: Text,
    config: TrainConfig,
    step: int,
    grade: Grade | None,
) -> list[Reference]:
    """The first right answer of the base model to each problem, where it gives one.

    Raises:
        TinyLoraError: none of its samples is right.
    """
    budget = config.max_new_tokens or task.max_new_tokens
    sampling = Sampling(config.temperature, budget, text.eos_token_ids)
    prompts = [text.encode(problem) for problem in problems]
    seed = derive_seed(config.seed, "references", step)
    with policy.reference():
        engine = sharded(TransformersEngine(UntrainedPolicy(policy.model)))
        completions = engine.generate(prompts, config.samples_per_prompt, sampling, seed)
    texts = [[text.decode(c.token_ids) for c in row] for row in completions]
    verdicts = grade_groups(grade or grader_of(task), problems, texts)
    found: list[Reference] = []
    for problem, row, judged in zip(problems, completions, verdicts, strict=True):
        right = (c.token_ids for c, v in zip(row, judged, strict=True) if v.is_right)
        ids = next(right, None)
        found += [] if ids is None else [(problem, ids)]
    if not found:
        raise TinyLoraError(
            f"None of the base model's {len(problems) * config.samples_per_prompt} samples of this "
            "step is right, so there is nothing to learn from. Raise samples_per_prompt, or use "
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
