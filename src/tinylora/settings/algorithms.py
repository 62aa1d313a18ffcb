"""How parameters are trained: a class of settings for each algorithm, which has only what it reads.

On the command line and in recipes these settings are flat, beside `algorithm`, which picks the
class. A setting of another algorithm is refused, because the chosen class does not have it.
"""

from typing import Annotated, Literal

from pydantic import Field

from tinylora.settings.base import OrNone, Settings
from tinylora.settings.passes import Adam, Passes, Scheduled, StepSettings


class Rewarded(Settings):
    """What rewards the completions."""

    reward_control: Annotated[
        Literal["random", "format", "incorrect", "shuffled", "majority"] | None, OrNone
    ] = Field(
        default=None,
        description=(
            "train with a control reward, which carries different information from the true one, "
            "or none (none: the task's own reward); accuracies are measured with the true one"
        ),
    )


class Sampled(Rewarded):
    """Groups of completions sampled from the policy, and how far they may be from it."""

    samples_per_prompt: int = Field(
        default=8,
        ge=2,
        description="completions of each problem; their mean reward is the baseline",
    )
    kl_coef: float = Field(default=0.0, ge=0, description="weight of the KL to the base model")
    importance_cap: Annotated[float | None, OrNone] = Field(
        default=2.0,
        gt=0,
        description="upper bound on the importance weight pi_trainer / pi_engine (none: no "
        "correction)",
    )
    rollout_tolerance: Annotated[float | None, OrNone] = Field(
        default=None,
        gt=0,
        description="mean difference between the engine's log-probabilities and the trainer's at "
        "which a run stops (none: 0.01 in fp32, 0.1 in half precision)",
    )
    num_iterations: int = Field(
        default=1, ge=1, description="optimiser passes over each batch of rollouts"
    )


class Grpo(Adam, Sampled):
    """GRPO, the paper's algorithm."""

    loss: Literal["ppo", "gspo", "cispo"] = Field(
        default="ppo",
        description="ppo: each token's ratio clipped; gspo: one ratio for a whole completion; "
        "cispo: the ratio capped, and tokens beyond it kept",
    )
    baseline: Literal["group", "leave-one-out"] = Field(
        default="group",
        description="what a reward is compared with: the mean of its group, or of the others "
        "(RLOO)",
    )
    normalize_std: bool = Field(
        default=True, description="divide advantages by the standard deviation of their group"
    )
    clip_low: float = Field(
        default=0.2, ge=0, lt=1, description="the importance ratio is clipped at 1 - this"
    )
    clip_high: float = Field(
        default=0.2, ge=0, description="the importance ratio is clipped at 1 + this"
    )
    normalizer: Literal["token", "sequence", "constant"] = Field(
        default="constant",
        description="what divides the loss: tokens, completions (each alike), or the budget",
    )
    mask_truncated: bool = Field(
        default=False,
        description="leave completions that the token budget cut off out of the loss",
    )
    dynamic_sampling: int = Field(
        default=1,
        ge=1,
        description="while fewer than prompts_per_step groups have variance, a step samples more "
        "problems, at most so many times in all (1: no dynamic sampling)",
    )

    def idle(self) -> dict[str, str]:
        reason = "with loss = cispo, which has no lower bound. Leave it out, or use "
        return {"clip_low": reason + "loss = ppo or gspo."} if self.loss == "cispo" else {}


class Npg(Passes, Sampled, Scheduled):
    """The natural policy gradient: steps in nats of the policy, and no learning rate."""

    step_kl: float = Field(
        default=0.1, gt=0, description="KL that a step may cost, in nats of a whole completion"
    )
    damping: float = Field(
        default=0.05,
        ge=0,
        description="how much of the size of dW is added to the Fisher matrix, as a share of its "
        "mean eigenvalue",
    )
    momentum: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="share of the earlier steps' gradient and Fisher matrix that a step keeps",
    )
    snr: Annotated[float | None, OrNone] = Field(
        default=None,
        gt=0,
        description="sample more for a step until its signal-to-noise ratio is this (none: never)",
    )
    max_draws: int = Field(
        default=4, ge=2, description="with snr: at most how many times a step samples"
    )

    def idle(self) -> dict[str, str]:
        reason = "without snr, so every step samples once. Set snr, or leave max_draws out."
        return {"max_draws": reason} if self.snr is None else {}


class Sft(Adam):
    """Supervised fine-tuning on solutions."""

    references: Literal["task", "own"] = Field(
        default="task",
        description="what SFT learns: the task's solutions, or the base model's own right samples",
    )
    samples_per_prompt: int = Field(
        default=8, ge=2, description="own: samples of the base model for each problem"
    )

    def idle(self) -> dict[str, str]:
        reason = "with references = task, which samples nothing. Leave it out, or use "
        own = "references = own."
        return {"samples_per_prompt": reason + own} if self.references == "task" else {}


class Search(StepSettings, Rewarded):
    """Candidates drawn at random, and scored by forward passes alone."""

    population: Annotated[int | None, OrNone] = Field(
        default=None, ge=2, description="candidates in a step (none: 4 + 3 ln n)"
    )
    sigma: float = Field(default=0.5, gt=0, description="spread of the first candidates")


class CmaEs(Search):
    """CMA-ES."""

    restarts: int = Field(default=0, ge=0, description="restarts with twice the population")


class Bayesian(Search):
    """Bayesian optimisation in a trust region."""


class RandomSearch(Search):
    """The best of many draws: a control for every optimiser."""


Algorithm = Grpo | Npg | Sft | CmaEs | Bayesian | RandomSearch
ALGORITHMS: dict[str, type[Algorithm]] = {
    "grpo": Grpo,
    "npg": Npg,
    "sft": Sft,
    "cma-es": CmaEs,
    "bayes": Bayesian,
    "random-search": RandomSearch,
}
