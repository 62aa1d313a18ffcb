"""What every rollout engine takes and gives.

An engine answers token ids with token ids and the log-probabilities under which it drew them; it
knows nothing of texts, rewards or training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from tinylora.policy import Policy


@dataclass(frozen=True)
class Sampling:
    """How to draw completions.

    Args:
        temperature: logits are divided by it; 0 takes the likeliest token.
        max_new_tokens: a completion that reaches this length without an end is truncated.
        eos_token_ids: each of them ends a completion.
    """

    temperature: float
    max_new_tokens: int
    eos_token_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(
                f"temperature = {self.temperature}, but logits are divided by it. Use 0 (greedy) "
                "or more."
            )
        if self.max_new_tokens < 1:
            raise ValueError(
                f"max_new_tokens = {self.max_new_tokens}: a completion has at least one token."
            )


@dataclass(frozen=True)
class Completion:
    """One sampled answer.

    Args:
        token_ids: with the end token, where one was drawn.
        logprobs: of each token, under the distribution it was drawn from (temperature applied);
            greedy completions have theirs at temperature 1.
        truncated: the budget ran out before an end token.
    """

    token_ids: list[int]
    logprobs: list[float]
    truncated: bool


class Engine(Protocol):
    """Samples from the policy as it is now."""

    @property
    def policy(self) -> Policy:
        """What it samples from."""

    @property
    def previous(self) -> dict[str, Tensor] | None:
        """The parameters of the version before, of an engine that serves copies; else None."""

    def generate(
        self,
        prompts: Sequence[list[int]],
        num_samples: int,
        sampling: Sampling,
        seed: int,
        places: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """`num_samples` completions of each prompt; the same seed gives the same ones.

        Args:
            prompts: token ids of each.
            num_samples: completions of each prompt.
            sampling: temperature, budget and end tokens.
            seed: of all randomness.
            places: of these prompts among all that share the seed; a prompt's randomness follows
                from its place. None: 0, 1, 2, ...
        """

    def generate_population(
        self,
        prompts: Sequence[list[int]],
        candidates: Tensor,
        sampling: Sampling,
        seed: int,
        places: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """A completion of each prompt by each candidate (P by C).

        Candidates share the randomness of a prompt, so that they differ by what they are alone.

        Args:
            prompts: token ids of each.
            candidates: values of an adapter, (C, num_groups, u).
            sampling: temperature, budget and end tokens.
            seed: of all randomness.
            places: as in `generate`.

        Raises:
            RequestError: the policy has no adapter.
        """
