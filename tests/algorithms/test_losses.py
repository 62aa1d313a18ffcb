"""GRPO's arithmetic: hand-made numbers, and TRL's own code on the same tensors."""

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tinylora.algorithms import losses
from tinylora.algorithms.grpo import Batch, micro_batch_loss
from tinylora.settings import Grpo

NAN = math.nan
BUDGET = 9


def test_advantages_by_hand() -> None:
    rewards_P_G = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    plain = losses.group_advantages(rewards_P_G, normalize_std=False)
    assert plain.tolist() == [[0.75, -0.25, -0.25, -0.25], [0.0, 0.0, 0.0, 0.0]]
    scaled = losses.group_advantages(rewards_P_G, normalize_std=True)
    torch.testing.assert_close(scaled[0], plain[0] / (0.5 + 1e-4))  # std = sqrt(0.75 / 3) = 0.5
    assert scaled[1].tolist() == [0.0] * 4


def test_a_reward_that_could_not_be_judged_leaves_the_baseline() -> None:
    rewards_P_G = torch.tensor([[1.0, NAN, 0.0, NAN], [NAN, NAN, NAN, 1.0], [NAN, NAN, NAN, NAN]])
    advantages = losses.group_advantages(rewards_P_G, normalize_std=False)
    assert advantages.tolist() == [[0.5, 0.0, -0.5, 0.0], [0.0] * 4, [0.0] * 4]
    assert losses.has_variance(rewards_P_G).tolist() == [True, False, False]


def test_advantages_against_the_rest_of_the_group() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0], [1.0, NAN, 0.5], [NAN, NAN, 1.0], [1.0, 1.0, 1.0]])
    wanted = torch.tensor([[1.0, -0.5, -0.5], [0.5, 0.0, -0.5], [0.0] * 3, [0.0] * 3])
    ours = losses.group_advantages(rewards, normalize_std=False, baseline="leave-one-out")
    torch.testing.assert_close(ours, wanted)


def test_equal_rewards_have_no_variance_though_their_mean_rounds() -> None:
    rewards_P_G = torch.full((1, 7), 0.1)
    assert not losses.has_variance(rewards_P_G).any()
    assert not losses.group_advantages(rewards_P_G, normalize_std=True).any()


def test_advantages_agree_with_trl() -> None:
    from trl.trainer.utils import nanstd

    rewards_P_G = torch.rand(6, 5, generator=torch.Generator().manual_seed(0))
    rewards_P_G[2, 3] = NAN
    mean = rewards_P_G.nanmean(dim=1, keepdim=True)
    theirs = (rewards_P_G - mean) / (nanstd(rewards_P_G, dim=1, keepdim=True) + 1e-4)
    ours = losses.group_advantages(rewards_P_G, normalize_std=True)
    torch.testing.assert_close(ours, theirs.nan_to_num(nan=0.0), atol=1e-6, rtol=0)


def test_cispo_keeps_the_gradient_of_a_capped_token() -> None:
    ratio = torch.tensor([1.5, 1.1])
    logprobs = ratio.log().requires_grad_()
    losses.cispo_loss(logprobs, torch.zeros(2), torch.ones(2), clip_high=0.2).sum().backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([-1.2, -1.1]))


def test_clipping_stops_the_gradient_on_the_side_that_has_gone_too_far() -> None:
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.25])
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    logprobs = ratio.log().requires_grad_()
    loss = losses.surrogate_loss(logprobs, torch.zeros(5), advantages, clip_low=0.2, clip_high=0.3)
    torch.testing.assert_close(loss, torch.tensor([-1.3, 1.5, -0.5, 0.8, -1.25]))
    loss.sum().backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([0.0, 1.5, -0.5, 0.0, -1.25]))


def test_k3_is_zero_at_agreement_and_positive_elsewhere() -> None:
    logprobs, reference = torch.tensor([-1.0, -1.0, -2.0]), torch.tensor([-1.0, -2.0, -1.0])
    expected = torch.tensor([0.0, math.exp(-1) + 1 - 1, math.e - 1 - 1])
    torch.testing.assert_close(losses.kl_k3(logprobs, reference), expected)


def test_k3_is_an_unbiased_estimate_of_the_kl() -> None:
    generator = torch.Generator().manual_seed(0)
    policy, reference = torch.randn(2, 6, generator=generator).log_softmax(-1)
    kl = (policy.exp() * (policy - reference)).sum()
    estimate = (policy.exp() * losses.kl_k3(policy, reference)).sum()
    torch.testing.assert_close(estimate, kl)


def test_importance_weights_are_truncated_for_each_token() -> None:
    train, rollout = torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([-1.0, -1.5, -3.0])
    weights = losses.importance_weights(train, rollout, cap=2.0)
    torch.testing.assert_close(weights, torch.tensor([1.0, math.exp(0.5), 2.0]))
    assert losses.importance_weights(train, rollout, cap=None).tolist() == [1.0, 1.0, 1.0]


def test_normalisers_by_hand() -> None:
    lengths_B = torch.tensor([1, 3])
    settings = {"num_sequences": 4, "num_tokens": 10, "budget": 5}
    expected = {
        "token": [0.1] * 4,
        "sequence": [1 / 4, 1 / 12, 1 / 12, 1 / 12],
        "constant": [1 / 20] * 4,
    }
    for name, weights in expected.items():
        ours = losses.token_weights(lengths_B, name, **settings)
        torch.testing.assert_close(ours, torch.tensor(weights))


def test_a_tensor_of_the_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"rewards_P_G has shape \(3,\)"):
        losses.group_advantages(torch.zeros(3), normalize_std=True)
    with pytest.raises(ValueError, match="One value per completion token"):
        losses.kl_k3(torch.zeros(3), torch.zeros(2))


def trl_loss(
    logprobs_B_T: Tensor, inputs: dict[str, Tensor], loss_type: str, kl_coef: float, level: str
) -> Tensor:
    """`GRPOTrainer._compute_loss`, TRL's own code, on tensors of ours.

    The stand-in is what that method reads of its trainer; the log-probabilities are given where it
    would run the model.
    """
    from trl import GRPOTrainer

    identity = SimpleNamespace(
        num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x, sync_gradients=True
    )
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (
            logprobs_B_T,
            torch.zeros_like(logprobs_B_T),
            None,
        ),
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        accelerator=identity,
        model=SimpleNamespace(training=True),
        loss_type=loss_type,
        importance_sampling_level=level,
        beta=kl_coef,
        epsilon_low=0.1,
        epsilon_high=1.3 if loss_type == "cispo" else 0.3,  # there it is the bound itself
        use_vllm=True,
        vllm_importance_sampling_correction=True,
        max_completion_length=BUDGET,
        current_gradient_accumulation_steps=1,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
    )
    return GRPOTrainer._compute_loss(trainer, None, inputs)


@pytest.mark.parametrize("kl_coef", [0.0, 0.05])
@pytest.mark.parametrize(
    ("loss", "normalizer", "theirs"),
    [
        ("ppo", "token", "dapo"),
        ("ppo", "sequence", "grpo"),
        ("ppo", "constant", "dr_grpo"),
        ("gspo", "sequence", "grpo"),
        ("gspo", "constant", "dr_grpo"),
        ("cispo", "token", "cispo"),
    ],
)
def test_loss_and_gradient_agree_with_trl(
    loss: str, normalizer: str, theirs: str, kl_coef: float
) -> None:
    generator = torch.Generator().manual_seed(3)
    lengths_B = torch.tensor([5, 9, 1, 7, 3, 8])
    is_completion = torch.arange(BUDGET) < lengths_B[:, None]  # (B, T)
    shape = is_completion.shape
    logprobs, old, rollout, reference = (
        -2 + 0.4 * torch.randn(4, *shape, generator=generator)
    ).unbind()
    advantages_B = torch.randn(len(lengths_B), generator=generator)
    importance = (old - rollout).exp().clamp(max=2.0)

    theirs_in = logprobs.clone().requires_grad_()
    inputs = {
        "prompt_ids": torch.zeros(len(lengths_B), 2, dtype=torch.long),
        "prompt_mask": torch.ones(len(lengths_B), 2, dtype=torch.long),
        "completion_ids": torch.zeros(shape, dtype=torch.long),
        "completion_mask": is_completion.long(),
        "advantages": advantages_B,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "importance_sampling_ratio": importance,
        "num_items_in_batch": is_completion.sum(),
    }
    level = "sequence" if loss == "gspo" else "token"
    expected = trl_loss(theirs_in, inputs, theirs, kl_coef, level)
    expected.backward()

    ours_in = logprobs.clone().requires_grad_()
    batch = Batch(
        rows=[],
        owners_T=torch.arange(len(lengths_B)).repeat_interleave(lengths_B),
        advantages_T=advantages_B.repeat_interleave(lengths_B),
        rollout_T=rollout[is_completion],
        weights_T=losses.token_weights(
            lengths_B, normalizer, len(lengths_B), int(lengths_B.sum()), BUDGET
        ),
        old_T=old[is_completion],
        new_T=old[is_completion],
        reference_T=reference[is_completion],
    )
    clip = {"clip_high": 0.3} if loss == "cispo" else {"clip_low": 0.1, "clip_high": 0.3}
    config = Grpo(loss=loss, kl_coef=kl_coef, importance_cap=2.0, **clip)
    halves = torch.arange(int(lengths_B.sum())).split([22, 11])  # between two completions
    flat = ours_in[is_completion]
    ours = sum(micro_batch_loss(flat[tokens], batch, tokens, config) for tokens in halves)
    ours.backward()

    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours_in.grad, theirs_in.grad, atol=1e-6, rtol=0)
    assert theirs_in.grad.abs().max() > 1e-3
