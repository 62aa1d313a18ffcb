"""The loop on a tiny random model and a policy that is not TinyLoRA."""

import ast
import inspect
import json
import math
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.standins import (
    END,
    VOCABULARY,
    SteeringPolicy,
    low_token_task,
    run_of,
    tiny_model,
    train_in,
)
from tinylora.algorithms import grpo, losses
from tinylora.algorithms.batching import micro_batches
from tinylora.algorithms.grpo import Batch, make_batch, micro_batch_loss
from tinylora.algorithms.log import PhaseClock
from tinylora.algorithms.loop import Outcome, Run
from tinylora.algorithms.optimizer import clipped_norm, learning_rate_at, make_optimizer
from tinylora.algorithms.rollouts import Rollouts, sample_records
from tinylora.errors import TinyLoraError
from tinylora.rewards.verdict import Verdict
from tinylora.rollout.engine import Completion, Sampling
from tinylora.rollout.transformers import TransformersEngine
from tinylora.settings import Grpo, TrainConfig
from tinylora.tasks.draw import draw_problems
from tinylora.tasks.task import Grade, Problem, Task

SMALL: dict[str, Any] = {
    "steps": 4,
    "prompts_per_step": 6,
    "samples_per_prompt": 4,
    "learning_rate": 5e-2,
    "warmup_steps": 0,
    "schedule": "constant",
    "checkpoint_every": 100,
}
FOUR: dict[str, Any] = {"steps": 1, "prompts_per_step": 1}  # completions in all
RIGHT, WRONG, UNJUDGED = Verdict(1.0), Verdict(0.0), Verdict(None, reason="compiler missing")


def train(
    folder: Path,
    task: Task | None = None,
    engine: Any = None,
    grade: Grade | None = None,
    resume: bool = False,
    **settings: Any,
) -> tuple[SteeringPolicy, Outcome, list[dict[str, float]]]:
    """A small run; returns the policy, how it ended, and its metrics."""
    policy = SteeringPolicy(tiny_model())
    config = TrainConfig(**{**SMALL, **settings})
    task = replace(task or low_token_task(), **({"grade_many": grade} if grade else {}))
    run = run_of(policy, config, task, engine(policy) if engine else None)
    outcome = train_in(folder, run, config, resume=resume)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return policy, outcome, [json.loads(line) for line in lines]


def test_the_loop_learns_what_is_rewarded(tmp_path: Path) -> None:
    settings = {"prompts_per_step": 16, "samples_per_prompt": 8, "learning_rate": 1.0}
    _, outcome, metrics = train(tmp_path, steps=14, **settings)
    assert outcome.steps == 14
    assert outcome.stopped == "steps"
    first, last = metrics[0]["reward"], sum(m["reward"] for m in metrics[-3:]) / 3
    assert first < 0.6
    assert last > 0.75


def test_the_loop_knows_nothing_of_tinylora() -> None:
    tree = ast.parse(inspect.getsource(grpo))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "tinylora.policy" in imported
    assert not any("adapter" in str(name) for name in imported)


def test_every_step_is_recorded_in_full(tmp_path: Path) -> None:
    task = replace(
        low_token_task(), label=lambda completion: "even" if len(completion) % 2 else "odd"
    )
    _, _, metrics = train(tmp_path, task, kl_coef=0.1)
    assert [m["step"] for m in metrics] == [1, 2, 3, 4]
    expected = {
        *("reward", "accuracy", "completion_length", "truncated_share", "zero_variance_share"),
        *("v_norm", "grad_norm", "kl_reference", "kl_rollout", "learning_rate", "num_unjudged"),
        *("importance_mean", "importance_max", "importance_truncated_share"),
        *("rollout_difference_mean", "rollout_difference_max"),
        *("clip_low_share", "clip_high_share", "tokens_per_second", "share_even", "share_odd"),
        *("seconds", "seconds_rollout", "seconds_grade", "seconds_learn"),
    }
    for line in metrics:
        assert expected <= set(line)
        assert all(math.isfinite(value) for value in line.values())
    samples = [json.loads(x) for x in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [s["step"] for s in samples] == [i for i in (1, 2, 3, 4) for _ in range(4)]
    assert set(samples[0]) == {"step", "prompt", "gold", "completion", "reward", "reason"}


def test_a_sample_of_a_program_says_what_stood_around_it() -> None:
    verdicts = [Verdict(1.0, "AC", {"sandbox": "none", "num_passed": 3}), Verdict(0.0, "wrong")]
    problems, texts = [Problem("p", "g")] * 2, [["a"], ["b"]]
    rollouts = Rollouts(problems, [[1]] * 2, [[], []], texts, [[v] for v in verdicts])
    program, answer = sample_records(rollouts, step=5)
    assert (program["reason"], program["sandbox"]) == ("AC", "none")
    assert set(program) - set(answer) == {"sandbox"}


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    runs = [train(tmp_path / str(i), seed=seed)[0].v for i, seed in enumerate((3, 3, 4))]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_micro_batches_do_not_change_the_result(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", micro_batch_tokens=100_000, num_iterations=2)[0].v
    cut = train(tmp_path / "cut", micro_batch_tokens=1, num_iterations=2)[0].v
    torch.testing.assert_close(whole, cut, atol=1e-5, rtol=0)


def rollouts_of(verdicts_P_G: list[list[Verdict]], policy: SteeringPolicy) -> Rollouts:
    """Completions of the stand-in model with verdicts of our choice."""
    prompts_P = [[3, 5, 8], [2, 9], [7, 7, 4, 11]][: len(verdicts_P_G)]
    sampling = Sampling(1.0, 8, (END,))
    completions_P_G = TransformersEngine(policy).generate(
        prompts_P, len(verdicts_P_G[0]), sampling, seed=0
    )
    texts_P_G = [[""] * len(row) for row in verdicts_P_G]
    problems = [Problem("", "")] * len(prompts_P)
    return Rollouts(problems, prompts_P, completions_P_G, texts_P_G, verdicts_P_G)


def loop_gradient(policy: SteeringPolicy, rollouts: Rollouts, **settings: Any) -> Tensor:
    """The gradient that one update of the loop uses at v = 0, before Adam."""
    with torch.no_grad():
        policy.v.zero_()
    run, grpo_settings = run_and_settings(policy, **settings)
    batch = make_batch(rollouts, run, grpo_settings)
    assert batch is not None
    grpo.learn(run, torch.optim.SGD(policy.parameters()), batch, grpo_settings, 0)
    assert policy.v.grad is not None
    return policy.v.grad.clone()


def run_and_settings(policy: SteeringPolicy, **settings: Any) -> tuple[Run, Grpo]:
    """A run whose completions have 8 tokens at most, and the algorithm's settings."""
    config = TrainConfig(**settings)
    assert isinstance(config.learning, Grpo)
    return run_of(policy, config, low_token_task(max_new_tokens=8)), config.learning


def slow_gradient(policy: SteeringPolicy, rollouts: Rollouts, normalizer: str) -> Tensor:
    """REINFORCE with a group baseline, sample by sample: what GRPO is at its first pass."""
    lengths = [len(c.token_ids) for c in rollouts.completions]
    total = torch.zeros(())
    for p, row in enumerate(rollouts.completions_P_G):
        rewards = [v.score for v in rollouts.verdicts_P_G[p] if v.score is not None]
        for g, completion in enumerate(row):
            score = rollouts.verdicts_P_G[p][g].score
            if score is None:
                continue
            ids = torch.tensor([rollouts.prompts_P[p] + completion.token_ids])
            logits = policy.model(input_ids=ids).logits[0, len(rollouts.prompts_P[p]) - 1 : -1]
            chosen = torch.tensor(completion.token_ids)[:, None]
            logprobs_T = logits.log_softmax(-1).gather(-1, chosen)
            divisor = {
                "token": sum(lengths),
                "sequence": len(lengths) * len(completion.token_ids),
                "constant": len(lengths) * 8,
            }[normalizer]
            total = total - (score - sum(rewards) / len(rewards)) * logprobs_T.sum() / divisor
    (gradient,) = torch.autograd.grad(total, policy.v)
    return gradient


@pytest.mark.parametrize("normalizer", ["token", "sequence", "constant"])
def test_the_gradient_is_that_of_the_slow_formula(normalizer: str) -> None:
    """Also: groups without variance are dropped, unjudged samples leave the baseline."""
    policy = SteeringPolicy(tiny_model())
    verdicts = [[RIGHT, WRONG, WRONG, UNJUDGED], [RIGHT] * 4, [RIGHT, RIGHT, RIGHT, WRONG]]
    rollouts = rollouts_of(verdicts, policy)
    settings = {"normalizer": normalizer, "normalize_std": False, "max_grad_norm": 1e9}
    ours = loop_gradient(policy, rollouts, **settings)
    with torch.no_grad():
        policy.v.zero_()
    expected = slow_gradient(policy, rollouts, normalizer)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_the_gradient_is_clipped_and_reported_unclipped() -> None:
    policy = SteeringPolicy(tiny_model())
    rollouts = rollouts_of([[RIGHT, WRONG, WRONG, WRONG]], policy)
    free = loop_gradient(policy, rollouts, max_grad_norm=1e9)
    clipped = loop_gradient(policy, rollouts, max_grad_norm=1e-3)
    torch.testing.assert_close(clipped, free * 1e-3 / free.norm(), atol=1e-7, rtol=1e-3)


def test_a_step_without_variance_leaves_the_numbers(tmp_path: Path) -> None:
    task = replace(low_token_task(), grade=lambda gold, completion: RIGHT)
    policy, _, metrics = train(tmp_path, task)
    assert not policy.v.any()
    assert [m["zero_variance_share"] for m in metrics] == [1.0] * 4


def test_a_step_that_teaches_nothing_is_recorded_as_fully_as_any_other(tmp_path: Path) -> None:
    settings = {"kl_coef": 0.1, "warmup_steps": 2}
    taught = train(tmp_path / "taught", **settings)[2]
    idle_task = replace(low_token_task(), grade=lambda gold, completion: RIGHT)
    idle = train(tmp_path / "idle", idle_task, **settings)[2]
    learning: Any = TrainConfig(**{**SMALL, **settings}).learning
    rates = [learning_rate_at(step, 4, learning) for step in range(4)]
    assert [line["learning_rate"] for line in idle] == rates
    for line in idle:
        assert set(line) == set(taught[0])
        assert 0 < line["rollout_difference_mean"] < line["rollout_difference_max"] < 1e-4
        assert (line["importance_mean"], line["importance_max"]) == pytest.approx((1, 1), abs=1e-4)
        assert line["kl_rollout"] == pytest.approx(0, abs=1e-9)
        zeros = ("grad_norm", "kl_reference", "clip_low_share", "clip_high_share")
        assert [line[name] for name in (*zeros, "importance_truncated_share")] == [0.0] * 5


def test_a_score_above_one_is_as_right_as_its_verdict_says(tmp_path: Path) -> None:
    verdicts = [Verdict(2.0), Verdict(1.0), Verdict(0.5), UNJUDGED]
    _, _, metrics = train(tmp_path, grade=lambda problems, texts: verdicts, **FOUR)
    assert metrics[0]["accuracy"] == pytest.approx(2 / 3)


def test_a_few_unjudged_completions_are_counted_and_left_out(tmp_path: Path) -> None:
    def grade(problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
        return [UNJUDGED, *(Verdict(float(int(t.split()[0]) < 24)) for t in texts[1:])]

    _, _, metrics = train(tmp_path, grade=grade)
    assert [m["num_unjudged"] for m in metrics] == [1] * 4


def test_many_unjudged_completions_stop_the_run_with_the_cause(tmp_path: Path) -> None:
    task = replace(low_token_task(), grade=lambda gold, completion: UNJUDGED)
    with pytest.raises(TinyLoraError, match=r"24 of 24 .* \(24 of them: compiler missing\)"):
        train(tmp_path, task)


def test_one_verdict_for_each_completion_is_demanded(tmp_path: Path) -> None:
    with pytest.raises(TinyLoraError, match="1 scores for 24 completions"):
        train(tmp_path, grade=lambda problems, texts: [RIGHT])


def test_the_grader_sees_each_completion_beside_its_problem(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    def grade(problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
        seen.extend((problem.prompt, t) for problem, t in zip(problems, texts, strict=True))
        return [WRONG] * len(texts)

    train(tmp_path, grade=grade, steps=1)
    prompts = [p.prompt for p in draw_problems(low_token_task().train, 6, 0, 0)]
    assert [prompt for prompt, _ in seen] == [p for p in prompts for _ in range(4)]


class ShiftedEngine:
    """An engine whose arithmetic is off: its log-probabilities are too low by a constant."""

    previous = None

    def __init__(self, policy: SteeringPolicy, shift: float) -> None:
        self.policy, self.inner, self.shift = policy, TransformersEngine(policy), shift

    def generate(self, *args: Any) -> list[list[Completion]]:
        groups = self.inner.generate(*args)
        return [
            [replace(c, logprobs=[x - self.shift for x in c.logprobs]) for c in row]
            for row in groups
        ]


def test_the_mismatch_with_the_engine_is_weighed_and_reported(tmp_path: Path) -> None:
    shifted = {"engine": lambda policy: ShiftedEngine(policy, math.log(3)), "rollout_tolerance": 2}
    _, _, metrics = train(tmp_path, steps=1, **shifted)
    assert metrics[0]["importance_mean"] == pytest.approx(3, rel=1e-4)
    assert metrics[0]["importance_max"] == pytest.approx(3, rel=1e-4)
    assert metrics[0]["importance_truncated_share"] == 1.0
    assert metrics[0]["kl_rollout"] == pytest.approx(3 - 1 - math.log(3), rel=1e-3)


@pytest.mark.parametrize(("cap", "factor"), [(2.0, 2.0), (5.0, 3.0), (None, 1.0)])
def test_the_truncated_weight_multiplies_the_gradient(cap: float | None, factor: float) -> None:
    policy = SteeringPolicy(tiny_model())
    rollouts = rollouts_of([[RIGHT, WRONG, WRONG, WRONG]], policy)
    settings = {"max_grad_norm": 1e9, "importance_cap": cap, "rollout_tolerance": 2}
    plain = loop_gradient(policy, rollouts, **settings)
    shifted = replace(
        rollouts,
        completions_P_G=[
            [replace(c, logprobs=[x - math.log(3) for x in c.logprobs]) for c in row]
            for row in rollouts.completions_P_G
        ],
    )
    torch.testing.assert_close(
        loop_gradient(policy, shifted, **settings), factor * plain, atol=1e-6, rtol=1e-3
    )


def test_the_kl_holds_the_policy_near_its_reference(tmp_path: Path) -> None:
    free = train(tmp_path / "free", steps=8)[0].v.norm()
    held = train(tmp_path / "held", steps=8, kl_coef=10.0)[0].v.norm()
    assert held < 0.7 * free


def test_later_passes_are_clipped_against_the_first() -> None:
    policy = SteeringPolicy(tiny_model())
    rollouts = rollouts_of([[RIGHT, WRONG, WRONG, WRONG]], policy)
    run, settings = run_and_settings(policy, num_iterations=4, learning_rate=0.3, warmup_steps=0)
    batch = make_batch(rollouts, run, settings)
    assert batch is not None
    metrics = grpo.learn(run, make_optimizer(policy, settings), batch, settings, 0)
    assert metrics["clip_low_share"] + metrics["clip_high_share"] > 0.1
    assert not torch.equal(batch.old_T, batch.new_T)
    torch.testing.assert_close(batch.old_T, batch.rollout_T, atol=1e-5, rtol=0)


def test_completions_of_different_lengths_are_weighed_as_they_are_packed() -> None:
    """Each token's advantage and weight belong to the completion that the token stands in."""
    policy = SteeringPolicy(tiny_model())
    rollouts = rollouts_of([[RIGHT, WRONG, WRONG, WRONG], [WRONG, RIGHT, RIGHT, WRONG]], policy)
    run, settings = run_and_settings(policy, normalizer="sequence", micro_batch_tokens=30)
    batch = make_batch(rollouts, run, settings)
    assert isinstance(batch, Batch)
    parts = list(micro_batches(batch.rows, policy.model))
    assert len(parts) > 1
    tokens = torch.cat([part.tokens for part in parts])
    assert sorted(tokens.tolist()) == list(range(len(batch.weights_T)))
    flat = [token for c in rollouts.completions for token in c.token_ids]
    for part in parts:
        assert part.targets.tolist() == [flat[i] for i in part.tokens.tolist()]
    assert float(batch.weights_T.sum()) == pytest.approx(1.0)
    loss = micro_batch_loss(batch.old_T, batch, torch.arange(len(flat)), settings)
    assert torch.isfinite(loss)


def test_a_gradient_that_is_not_finite_stops_the_run() -> None:
    policy = SteeringPolicy(tiny_model())
    policy.v.grad = torch.full_like(policy.v, math.nan)
    with pytest.raises(TinyLoraError, match="norm nan"):
        clipped_norm(policy, 1.0)


def test_learning_rates_by_hand() -> None:
    def rates(schedule: str) -> list[float]:
        settings = Grpo(warmup_steps=2, learning_rate=3.0, schedule=schedule)
        return [round(learning_rate_at(step, 6, settings), 6) for step in range(6)]

    assert rates("constant") == [1.0, 2.0, 3.0, 3.0, 3.0, 3.0]
    assert rates("linear") == [1.0, 2.0, 3.0, 2.25, 1.5, 0.75]
    cosine = [3 * 0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(4)]
    assert rates("cosine") == [1.0, 2.0, *(round(rate, 6) for rate in cosine)]


def test_an_epoch_visits_every_problem_once_in_an_order_of_its_own() -> None:
    problems = [Problem(str(i), "") for i in range(10)]
    drawn = [p.prompt for step in range(5) for p in draw_problems(problems, 4, 0, step)]
    first, second = drawn[:10], drawn[10:]
    assert sorted(first, key=int) == sorted(second, key=int) == [str(i) for i in range(10)]
    assert first != second
    assert drawn[:4] != [p.prompt for p in draw_problems(problems, 4, 1, 0)]


def test_the_time_limit_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    _, outcome, _ = train(tmp_path, steps=10_000, max_minutes=0.5 / 60)
    assert outcome.stopped == "time"
    assert 1 <= outcome.steps < 10_000
    policy, resumed, _ = train(tmp_path, steps=outcome.steps, resume=True)
    assert resumed.steps == outcome.steps
    assert policy.v.any()


def test_however_short_the_time_one_step_is_taken(tmp_path: Path) -> None:
    for steps_so_far in (1, 2):
        _, outcome, metrics = train(tmp_path, max_minutes=1e-9, resume=True)
        assert outcome.stopped == "time"
        assert outcome.steps == len(metrics) == steps_so_far


def test_ctrl_c_finishes_the_step_and_leaves_a_checkpoint(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []

    def grade(problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return [Verdict(float(int(t.split()[0]) < VOCABULARY // 2)) for t in texts]

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", grade=grade)
    assert signal.getsignal(signal.SIGINT) is before
    assert "Finishing this step" in capfd.readouterr().err
    assert len((tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()) == 2
    resumed = train(tmp_path / "stopped", resume=True)[0].v
    assert torch.equal(resumed, train(tmp_path / "whole")[0].v)


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    def grade(problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return [WRONG] * len(texts)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs may be deaf to it
    try:
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, grade=grade)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_truncated_completions_are_left_out_on_demand() -> None:
    policy = SteeringPolicy(tiny_model())
    rollouts = rollouts_of([[RIGHT, WRONG, WRONG, WRONG], [WRONG, RIGHT, RIGHT, WRONG]], policy)
    cut = grpo.truncated(rollouts)
    assert 0 < cut.sum() < cut.numel()
    run, settings = run_and_settings(policy, mask_truncated=True, normalizer="token")
    batch = make_batch(rollouts, run, settings)
    assert batch is not None
    lengths = [len(c.token_ids) for c in rollouts.completions if not c.truncated]
    assert len(batch.weights_T) == sum(lengths)
    torch.testing.assert_close(batch.weights_T, torch.full((sum(lengths),), 1 / sum(lengths)))


def test_dynamic_sampling_draws_until_enough_groups_have_variance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Groups by draw: one of two tells something, then none, then both."""
    policy = SteeringPolicy(tiny_model())
    telling, equal = [RIGHT, WRONG, WRONG], [WRONG, WRONG, WRONG]
    drawn = [[equal, telling], [equal, equal], [telling, telling]]
    places: list[int] = []

    def fake(run: Run, place: int, *_: Any) -> Rollouts:
        places.append(place)
        return rollouts_of(drawn[len(places) - 1], policy)

    monkeypatch.setattr(grpo, "roll_out", fake)
    run, settings = run_and_settings(
        policy, dynamic_sampling=4, prompts_per_step=2, samples_per_prompt=3
    )
    step = grpo.GrpoStep(run, settings)
    rollouts = step.draw(7, PhaseClock())
    assert places == [7, 1_000_007, 2_000_007]
    assert len(rollouts.problems_P) == 6
    chosen = grpo.most_telling(rollouts, 2)
    assert losses.has_variance(chosen.rewards_P_G).tolist() == [True, True]
    assert chosen.completions_P_G == [rollouts.completions_P_G[p] for p in (1, 4)]

    places.clear()
    run, settings = run_and_settings(
        policy, dynamic_sampling=2, prompts_per_step=2, samples_per_prompt=3
    )
    rollouts = grpo.GrpoStep(run, settings).draw(7, PhaseClock())
    assert len(places) == 2
    assert losses.has_variance(grpo.most_telling(rollouts, 2).rewards_P_G).tolist() == [True, False]
