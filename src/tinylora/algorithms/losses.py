"""GRPO's arithmetic as pure functions on flat tensors.

`_T` counts the completion tokens of a batch, one completion after the other, without padding;
`_P_G` is problem by sample. Tested against TRL on the same tensors: the normalisers `token`,
`sequence` and `constant` are its `dapo`, `grpo` and `dr_grpo`; `gspo_loss` is its
`importance_sampling_level="sequence"`, `cispo_loss` its `cispo`; the baseline `leave-one-out` is
its RLOOTrainer's.

Departures from the paper: (1) a reward that could not be judged (NaN) leaves its group's baseline;
(2) the loss offers three normalisers, where the paper names none.
"""

from typing import Literal

import torch
from torch import Tensor

EPSILON = 1e-4  # beside the standard deviation, as TRL has it
Normalizer = Literal["token", "sequence", "constant"]
Baseline = Literal["group", "leave-one-out"]


def group_advantages(
    rewards_P_G: Tensor, normalize_std: bool, baseline: Baseline = "group"
) -> Tensor:
    """How much better each sample did than its group.

    Source: the paper's section on training, A_i = (r_i - mean) / (std + eps); RLOO's baseline is
    the mean of the *other* samples (2402.14740), which does not depend on the sample itself, so
    that the gradient is unbiased.

    Args:
        rewards_P_G: (problems, samples); NaN where the grader could not judge.
        normalize_std: divide by the group's standard deviation (over n - 1).
        baseline: group: the mean of all of the group; leave-one-out: of its others.

    Returns:
        (problems, samples); 0 where the reward is NaN or the group has no variance.
    """
    _check(rewards_P_G, 2, "rewards_P_G")
    mean_P = rewards_P_G.nanmean(dim=1, keepdim=True)
    centred_P_G = torch.where(has_variance(rewards_P_G)[:, None], rewards_P_G - mean_P, 0.0)
    advantages_P_G = centred_P_G = centred_P_G.nan_to_num(nan=0.0)
    num_judged_P = (~rewards_P_G.isnan()).sum(dim=1, keepdim=True)
    num_others_P = (num_judged_P - 1).clamp(min=1)
    if baseline == "leave-one-out":  # r - mean of the others = (r - mean of all) n / (n - 1)
        advantages_P_G = centred_P_G * num_judged_P / num_others_P
    if not normalize_std:
        return advantages_P_G
    std_P = (centred_P_G.square().sum(dim=1, keepdim=True) / num_others_P).sqrt()
    return advantages_P_G / (std_P + EPSILON)


def has_variance(rewards_P_G: Tensor) -> Tensor:
    """Which groups teach something: their judged rewards differ. (problems,)"""
    low = rewards_P_G.nan_to_num(nan=torch.inf).amin(dim=1)
    high = rewards_P_G.nan_to_num(nan=-torch.inf).amax(dim=1)
    return high > low


def surrogate_loss(
    logprobs_T: Tensor, old_T: Tensor, advantages_T: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """PPO's clipped loss of each token, -min(ratio A, clip(ratio, 1 - low, 1 + high) A).

    Args:
        logprobs_T: of the policy that is trained; carries the gradient.
        old_T: of the policy before this step's first update.
        advantages_T: of the completion a token belongs to.
    """
    _check_equal(logprobs_T, old_T, advantages_T)
    ratio_T = (logprobs_T - old_T).exp()
    clipped_T = ratio_T.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio_T * advantages_T, clipped_T * advantages_T)


def gspo_loss(
    logprobs_T: Tensor,
    old_T: Tensor,
    advantages_T: Tensor,
    owners_T: Tensor,
    clip_low: float,
    clip_high: float,
) -> Tensor:
    """GSPO's loss of each token: one ratio for a whole completion, clipped as PPO's is.

        ratio = exp(mean over the completion of log pi - log pi_old)

    Source: Group Sequence Policy Optimization (2507.18071), equations 5 and 7. Its clipping range
    is far narrower than PPO's (about 3e-4), because the mean of many log ratios is small.

    Args:
        owners_T: which completion a token belongs to; all tokens of a completion are here.
    """
    _check_equal(logprobs_T, old_T, advantages_T, owners_T)
    mean_T = sequence_mean(logprobs_T - old_T, owners_T)
    return surrogate_loss(mean_T, torch.zeros_like(mean_T), advantages_T, clip_low, clip_high)


def sequence_mean(values_T: Tensor, owners_T: Tensor) -> Tensor:
    """At each token the mean over the completion it belongs to. (T,)"""
    num = int(owners_T.max()) + 1
    zeros_B = torch.zeros(num, dtype=values_T.dtype, device=values_T.device)
    sums_B = zeros_B.index_add(0, owners_T, values_T)
    lengths_B = torch.bincount(owners_T, minlength=num).clamp(min=1)
    return (sums_B / lengths_B)[owners_T]


def cispo_loss(logprobs_T: Tensor, old_T: Tensor, advantages_T: Tensor, clip_high: float) -> Tensor:
    """CISPO's loss of each token, -min(ratio, 1 + high) A log pi, the ratio without a gradient.

    A token whose ratio is capped still has a gradient, which PPO's clipping takes away. There is
    no lower bound.

    Source: MiniMax-M1 (2506.13585), equation 4; TRL's `epsilon_high` is 1 + clip_high.
    """
    _check_equal(logprobs_T, old_T, advantages_T)
    ratio_T = (logprobs_T - old_T).exp().clamp(max=1 + clip_high).detach()
    return -ratio_T * advantages_T * logprobs_T


def kl_k3(logprobs_T: Tensor, reference_T: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(policy || reference) at each token: never negative."""
    _check_equal(logprobs_T, reference_T)
    log_ratio_T = reference_T - logprobs_T
    return log_ratio_T.expm1() - log_ratio_T


def importance_weights(train_T: Tensor, rollout_T: Tensor, cap: float | None) -> Tensor:
    """min(pi_train / pi_rollout, cap): what the engine's other arithmetic did to each token.

    Source: truncated importance sampling, named in the paper's section on training. Cap None
    leaves every token its weight 1 (no correction).
    """
    _check_equal(train_T, rollout_T)
    if cap is None:
        return torch.ones_like(train_T)
    return (train_T - rollout_T).exp().clamp(max=cap)


def token_weights(
    lengths_B: Tensor, normalizer: Normalizer, num_sequences: int, num_tokens: int, budget: int
) -> Tensor:
    """What each token's loss is multiplied with, so that a batch's loss is a plain sum.

    A sum needs no second look at how the batch was cut: micro-batches add up exactly.

    Args:
        lengths_B: tokens of each completion that is trained on.
        normalizer: token: every token alike; sequence: every completion alike, long or short;
            constant: by the budget, so that length plays no part.
        num_sequences, num_tokens: of all completions sampled in the step. Those that were left
            out because they teach nothing count, so leaving them out changes no gradient.
        budget: the most tokens a completion can have.

    Returns:
        (sum of lengths,)
    """
    _check(lengths_B, 1, "lengths_B")
    per_sequence = {
        "token": torch.full_like(lengths_B, 1 / num_tokens, dtype=torch.float32),
        "sequence": 1 / (num_sequences * lengths_B.float()),
        "constant": torch.full_like(lengths_B, 1 / (num_sequences * budget), dtype=torch.float32),
    }
    return per_sequence[normalizer].repeat_interleave(lengths_B)


def _check(tensor: Tensor, num_dims: int, name: str) -> None:
    if tensor.dim() != num_dims:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, but {num_dims} axes are expected."
        )


def _check_equal(*tensors: Tensor) -> None:
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) != 1 or tensors[0].dim() != 1:
        raise ValueError(
            f"One value per completion token is expected, but the shapes are {shapes}."
        )
