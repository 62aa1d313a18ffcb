"""Engines that serve another policy than the trained one are found, and told apart."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.standins import SteeringPolicy, low_token_task, run_of, tiny_model, train_in
from tinylora.algorithms.checkpoint import FILE_NAME
from tinylora.algorithms.grpo import GrpoStep
from tinylora.algorithms.served import (
    FP32_TOLERANCE,
    HALF_TOLERANCE,
    SIGMAS,
    holding,
    mean_difference,
    sentence,
    tolerance,
    towards_adapter,
)
from tinylora.errors import TinyLoraError
from tinylora.rewards.verdict import Verdict
from tinylora.rollout.engine import Completion, Sampling
from tinylora.rollout.transformers import TransformersEngine
from tinylora.settings import Grpo, TrainConfig
from tinylora.tasks.task import Task

TRAINED, BEFORE = 2.0, 1.0


class ServingEngine:
    """Serves a copy of the numbers: whatever `serve` makes of the policy's."""

    def __init__(self, policy: SteeringPolicy, serve: Callable[[Tensor], Tensor]) -> None:
        self.policy, self.serve = policy, serve
        self.previous = {"v": torch.full_like(policy.v, BEFORE).detach()}

    def generate(self, *args: Any) -> list[list[Completion]]:
        served = {"v": self.serve(self.policy.v.detach())}
        with holding(self.policy, served):
            return TransformersEngine(self.policy).generate(*args)


def one_step(
    engine: Any, policy: SteeringPolicy, task: Task | None = None, **settings: Any
) -> dict[str, float]:
    config = TrainConfig(**{"prompts_per_step": 6, "samples_per_prompt": 4, **settings})
    assert isinstance(config.learning, Grpo)
    return GrpoStep(run_of(policy, config, task, engine), config.learning)(0)[0]


def trained_policy() -> SteeringPolicy:
    policy = SteeringPolicy(tiny_model())
    with torch.no_grad():
        policy.v.fill_(TRAINED)
    return policy


def random_numbers(v: Tensor) -> Tensor:
    return torch.randn(v.shape, generator=torch.Generator().manual_seed(1)) * TRAINED


SERVED = {
    "the adapter is not applied": torch.zeros_like,
    "a stale version": lambda v: torch.full_like(v, BEFORE),
    "the wrong adapter": random_numbers,
    "precision; the adapter is applied": lambda v: v * 1.05,
}


@pytest.mark.parametrize("cause", SERVED)
def test_the_likely_cause_is_named_and_the_numbers_stay(cause: str) -> None:
    policy = trained_policy()
    with pytest.raises(TinyLoraError, match=rf"differ from .*Likely cause: {cause}.*resume with"):
        one_step(ServingEngine(policy, SERVED[cause]), policy)
    assert torch.equal(policy.v, torch.full_like(policy.v, TRAINED))


def test_the_trained_policy_passes() -> None:
    policy = trained_policy()
    metrics = one_step(ServingEngine(policy, lambda v: v), policy)
    assert 0 < metrics["rollout_difference_mean"] < metrics["rollout_difference_max"] < 1e-3


def test_a_step_that_teaches_nothing_is_looked_at_too() -> None:
    policy = trained_policy()
    task = replace(low_token_task(), grade=lambda gold, completion: Verdict(1.0))
    engine = ServingEngine(policy, torch.zeros_like)
    with pytest.raises(TinyLoraError, match="the adapter is not applied"):
        one_step(engine, policy, task)


def test_another_base_is_told_from_another_adapter() -> None:
    """Numbers at rest move nothing, so what parts the two is not the adapter."""
    policy = SteeringPolicy(tiny_model())
    other: Any = TransformersEngine(SteeringPolicy(tiny_model(seed=1)))
    with pytest.raises(TinyLoraError, match="Likely cause: precision, or a different base model"):
        one_step(other, policy)


def test_logprobs_before_the_temperature_are_told() -> None:
    policy = trained_policy()

    class Raw(ServingEngine):
        def generate(self, prompts: Any, count: int, sampling: Sampling, seed: int) -> Any:
            return super().generate(prompts, count, replace(sampling, temperature=1.0), seed)

    with pytest.raises(TinyLoraError, match="--logprobs-mode processed_logprobs"):
        one_step(Raw(policy, lambda v: v), policy, temperature=0.5)


def test_the_tolerance_is_a_setting() -> None:
    policy = trained_policy()
    engine = ServingEngine(policy, torch.zeros_like)
    metrics = one_step(engine, policy, rollout_tolerance=50)
    assert metrics["rollout_difference_mean"] > FP32_TOLERANCE


def test_half_precision_is_allowed_more() -> None:
    assert tolerance(tiny_model(), None) == FP32_TOLERANCE
    half = tiny_model().bfloat16()
    assert tolerance(half, None) == HALF_TOLERANCE
    assert tolerance(half, 0.3) == 0.3


def test_a_run_that_is_stopped_keeps_its_last_checkpoint(tmp_path: Path) -> None:
    policy = SteeringPolicy(tiny_model())
    stops = iter([False, False, True])
    engine = ServingEngine(policy, lambda v: v + 3.0 * next(stops))
    config = TrainConfig(steps=5, prompts_per_step=6, samples_per_prompt=4, checkpoint_every=1)
    with pytest.raises(TinyLoraError, match="Likely cause"):
        train_in(tmp_path, run_of(policy, config, engine=engine), config)
    assert torch.load(tmp_path / "checkpoint" / FILE_NAME)["step"] == 2
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("distances", "effect", "said"),
    [
        ({"the current parameters": 0.5, "no adapter": 0.001}, 0.5, "not applied"),
        ({"the current parameters": 0.5, "no adapter": 0.4}, 0.6, "wrong adapter"),
        ({"the current parameters": 0.02, "no adapter": 0.4}, 0.4, "precision; the adapter is"),
        (
            {"the current parameters": 0.3, "no adapter": 0.3},
            0.002,
            "moves log-probabilities by 0.002",
        ),
        (
            {"the current parameters": 0.3, "no adapter": 0.004, "the previous parameters": 0.002},
            0.3,
            "a stale version",
        ),
    ],
)
def test_verdicts_by_hand(distances: dict[str, float], effect: float, said: str) -> None:
    assert said in sentence(distances, effect, allowed=0.01)


def bf16_served(
    effect: float, serves_adapter: bool, seed: int, num_tokens: int = 16_000
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of an engine and of the trainer with and without an adapter of this effect
    (root mean square, nats), each with the rounding of bf16: noise of 0.01 nats."""
    generator = torch.Generator().manual_seed(seed)
    noise = 0.01 * torch.randn(3, num_tokens, generator=generator)
    base = -torch.rand(num_tokens, generator=generator)
    trained = base + effect * torch.randn(num_tokens, generator=generator)
    served = trained if serves_adapter else base
    engine, with_it, without = (
        values + part for values, part in zip((served, trained, base), noise, strict=True)
    )
    return engine, with_it, without


def test_a_base_in_place_of_a_small_adapter_is_noticed_in_half_precision() -> None:
    for seed in range(20):
        engine, trained, base = bf16_served(0.01, serves_adapter=False, seed=seed)
        assert mean_difference(engine, trained) < HALF_TOLERANCE / 5  # which sees nothing
        assert towards_adapter(engine, trained, base) < -SIGMAS


@pytest.mark.parametrize("effect", [0.0, 1e-4, 0.001, 0.01, 0.1])
def test_an_engine_that_serves_the_adapter_is_never_stopped(effect: float) -> None:
    found = [towards_adapter(*bf16_served(effect, True, seed)) for seed in range(200)]
    assert min(found) > -SIGMAS + 1
    assert effect < 0.01 or min(found) > SIGMAS


def test_a_base_that_differs_by_less_than_the_tolerance_stops_the_run() -> None:
    def step_of(serve: Callable[[Tensor], Tensor], **settings: Any) -> dict[str, float]:
        policy = SteeringPolicy(tiny_model())
        with torch.no_grad():
            policy.v.fill_(0.005)
        return one_step(ServingEngine(policy, serve), policy, prompts_per_step=100, **settings)

    assert step_of(lambda v: v)["rollout_difference_mean"] < 1e-4
    with pytest.raises(TinyLoraError, match=r"nearer to the base model's .* is not applied, or"):
        step_of(torch.zeros_like)
    assert step_of(torch.zeros_like, rollout_tolerance=0.05)["rollout_difference_mean"] > 1e-4
