"""The natural gradient on a tiny model: its scores, its step, and the loop around it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.standins import SteeringPolicy, low_token_task, run_of, tiny_model, train_in
from tinylora.adapter import AdapterConfig, attach
from tinylora.algorithms import make_step, natural, npg
from tinylora.algorithms.log import PhaseClock
from tinylora.algorithms.loop import Outcome, Run
from tinylora.algorithms.npg import NpgStep, draw_of, scores, weight_metric
from tinylora.algorithms.rollouts import Rollouts, roll_out
from tinylora.errors import RequestError
from tinylora.rewards.verdict import Verdict
from tinylora.settings import TrainConfig

SHAPE: dict[str, Any] = {"u": 2, "num_groups": 3}
SMALL: dict[str, Any] = {
    "algorithm": "npg",
    "steps": 4,
    "prompts_per_step": 6,
    "samples_per_prompt": 4,
    "checkpoint_every": 100,
    **SHAPE,
}


def config_of(**settings: Any) -> TrainConfig:
    return TrainConfig(**{**SMALL, **settings})


def new_run(config: TrainConfig, num_problems: int = 20) -> Run:
    task = low_token_task(2 if num_problems == 2 else 8)
    task = replace(task, train=task.train[:num_problems])
    return run_of(attach(tiny_model(), config.adapter), config, task)


def train(folder: Path, **settings: Any) -> tuple[Tensor, Outcome, list[dict[str, float]]]:
    """A small run: v, how it ended, and its metrics."""
    loop = {name: settings.pop(name) for name in ("resume",) if name in settings}
    num_problems = settings.pop("num_problems", 20)
    config = config_of(**settings)
    run = new_run(config, num_problems)
    outcome = train_in(folder, run, config, **loop)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return run.policy.state_dict()["v"], outcome, [json.loads(line) for line in lines]


def sampled(run: Run) -> Rollouts:
    return roll_out(run, 0, 6, 4, PhaseClock())


def test_scores_are_the_gradient_of_each_completion_alone() -> None:
    config = config_of(micro_batch_tokens=40)
    run = new_run(config)
    adapter = run.policy.adapter
    assert adapter is not None
    adapter.set_values(0.1 * torch.ones_like(adapter.v))
    draw = draw_of(sampled(run), run.policy.model, 40)
    assert len(draw.rows) > 1
    logprobs_T, scores_N = scores(run, adapter, draw, config.learning)
    prompts = [p for p in draw.rollouts.prompts_P for _ in range(4)]
    for i, completion in enumerate(draw.rollouts.completions):
        ids = torch.tensor([prompts[i] + completion.token_ids])
        logits = run.policy.model(input_ids=ids).logits[0, len(prompts[i]) - 1 : -1]
        chosen = ids[0, len(prompts[i]) :, None]
        total = logits.log_softmax(-1).gather(-1, chosen).sum()
        (alone,) = torch.autograd.grad(total, adapter.v)
        torch.testing.assert_close(scores_N[i].float(), alone.flatten(), atol=2e-5, rtol=1e-4)
        assert float(draw.sums(logprobs_T)[i]) == pytest.approx(float(total.detach()), abs=1e-4)


@pytest.mark.parametrize(
    "shape",
    [{"u": 3, "num_groups": 4}, {"u": 4, "num_groups": 14, "projection": "identity"}, {"rank": 1}],
)
def test_metric_is_the_norm_of_the_update(shape: dict[str, Any]) -> None:
    adapter = attach(tiny_model(), AdapterConfig(**shape))
    generator = torch.Generator().manual_seed(0)
    adapter.set_values(torch.randn(adapter.v.shape, generator=generator))
    v = adapter.v.detach().double().flatten()
    norm = sum(float(adapter.delta_weight(name).square().sum()) for name in adapter.maps)
    assert float(v @ weight_metric(adapter) @ v) == pytest.approx(norm, rel=1e-5)


def test_measured_kl_is_the_predicted_one_for_small_steps(tmp_path: Path) -> None:
    errors = []
    for step_kl in (1e-1, 1e-2, 1e-3):
        _, _, metrics = train(tmp_path / str(step_kl), steps=1, step_kl=step_kl, damping=0.0)
        assert metrics[0]["step_scale"] == 1
        assert metrics[0]["step_kl"] == pytest.approx(step_kl, rel=1e-6)
        errors.append(abs(metrics[0]["step_kl_measured"] / step_kl - 1))
    assert errors[0] > errors[2]
    assert errors[2] < 0.05


def test_it_learns_what_is_rewarded_without_a_rate(tmp_path: Path) -> None:
    wide = {"u": 4, "num_groups": 14, "prompts_per_step": 8, "samples_per_prompt": 16}
    _, outcome, metrics = train(tmp_path, steps=12, num_problems=2, **wide)
    assert (outcome.steps, outcome.stopped) == (12, "steps")
    assert metrics[0]["reward"] < 0.65
    assert sum(m["reward"] for m in metrics[-3:]) / 3 > 0.72
    assert {"snr", "step_kl", "step_kl_measured", "rollouts"} <= set(metrics[0])
    assert metrics[0]["rollout_difference_mean"] < 1e-5


@pytest.mark.parametrize("how", [{}, {"momentum": 0.8, "snr": 1e9, "max_draws": 2}])
def test_a_resumed_run_has_the_same_bits(tmp_path: Path, how: dict[str, Any]) -> None:
    whole, _, metrics = train(tmp_path / "whole", **how)
    train(tmp_path / "parts", **{**how, "steps": 4, "max_minutes": 1e-9, "checkpoint_every": 1})
    resumed, outcome, again = train(tmp_path / "parts", resume=True, **how)
    assert outcome.steps == 4
    assert torch.equal(whole, resumed)
    names = ("snr", "step_kl", "step_kl_measured", "rollouts")
    assert [[m[n] for n in names] for m in again] == [[m[n] for n in names] for m in metrics]


def test_a_weak_signal_draws_more_samples_up_to_the_cap(tmp_path: Path) -> None:
    _, _, plain = train(tmp_path / "plain", steps=1)
    _, _, more = train(tmp_path / "more", steps=1, snr=1e9, max_draws=3)
    _, _, enough = train(tmp_path / "enough", steps=1, snr=1e-9)
    counts = [metrics[0]["rollouts"] for metrics in (plain, more, enough)]
    assert counts == [24, 72, 24]
    assert more[0]["snr"] != plain[0]["snr"]


def test_several_iterations_share_the_kl(tmp_path: Path) -> None:
    v_one, _, one = train(tmp_path / "one", steps=1)
    v_three, _, three = train(tmp_path / "three", steps=1, num_iterations=3)
    assert not torch.equal(v_one, v_three)
    assert three[0]["step_kl"] <= 0.1 * (1 + 1e-6)
    assert three[0]["snr"] == one[0]["snr"]


def test_a_large_kl_coefficient_keeps_the_policy_at_the_base(tmp_path: Path) -> None:
    _, _, free = train(tmp_path / "free", steps=6, kl_coef=1e-6)
    _, _, held = train(tmp_path / "held", steps=6, kl_coef=100.0)
    assert held[-1]["kl_reference"] < free[-1]["kl_reference"] / 2


def test_equal_rewards_leave_v_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(steps=1)
    equal = replace(low_token_task(), grade=lambda gold, completion: Verdict(1.0))
    run = run_of(attach(tiny_model(), config.adapter), config, equal)
    monkeypatch.setattr(natural, "line_search", None)  # no pass is spent on it
    metrics, _ = NpgStep(run, config.learning)(0)
    assert not run.policy.state_dict()["v"].any()
    assert (metrics["snr"], metrics["step_kl"]) == (0, 0)


def test_lora_xs_takes_natural_steps() -> None:
    config = TrainConfig(algorithm="npg", method="lora-xs", rank=2, steps=1, prompts_per_step=4)
    run = new_run(config)
    metrics, _ = make_step(run, config.learning)(0)
    assert run.policy.num_trainable == 14 * 4
    assert run.policy.state_dict()["v"].any()
    assert 0 < metrics["step_kl_measured"] <= 0.2


def test_precision_rounds_what_is_measured(tmp_path: Path) -> None:
    v, _, _ = train(tmp_path, precision="bf16", steps=2)
    assert v.any()
    assert torch.equal(v, v.bfloat16().float())


def test_other_methods_are_refused() -> None:
    config = config_of()
    run = run_of(SteeringPolicy(tiny_model()), config)
    with pytest.raises(RequestError, match="The natural gradient runs a different v"):
        make_step(run, config.learning)


def test_too_many_parameters_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of()
    monkeypatch.setattr(npg, "MOST_PARAMETERS", 5)
    with pytest.raises(RequestError, match="npg with 6 parameters"):
        make_step(new_run(config), config.learning)


def test_draws_need_an_snr() -> None:
    with pytest.raises(ValueError, match="max_draws = 3 without snr"):
        config_of(max_draws=3)
    with pytest.raises(RequestError, match="learning_rate"):
        config_of(learning_rate=1e-3)
