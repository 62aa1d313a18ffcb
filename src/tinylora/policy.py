"""The seam between what is trained and everything that trains it or samples from it.

The loop and the engines see a `Policy` and nothing of TinyLoRA: trainable parameters, the
reference policy, the way an engine generates, state to save. Another method (LoRA, bias-only, full
fine-tuning) takes part by being another `Policy`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from tinylora.adapter.files import Store
from tinylora.errors import RequestError

if TYPE_CHECKING:
    from tinylora.adapter import TinyLora


class Policy(Protocol):
    """A language model with some trainable parameters."""

    @property
    def adapter(self) -> TinyLora | None:
        """The layer whose v can differ from row to row of a batch; None: the method has none."""

    @property
    def model(self) -> Any:
        """The Transformers model; calling it answers as the policy that is trained."""

    def parameters(self) -> list[nn.Parameter]:
        """What the optimiser steps on, in fp32."""

    def reference(self) -> AbstractContextManager[Any]:
        """Inside, the model answers as the policy before training (for the KL term)."""

    def rollout(self) -> AbstractContextManager[Any]:
        """Inside, the model answers as the trained policy, in the fastest way that is exact."""

    def state_dict(self) -> dict[str, Tensor]:
        """The trained numbers, for a checkpoint."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put back what `state_dict` gave.

        Args:
            state: names to tensors, as it gave them.
        """

    def metrics(self) -> dict[str, float]:
        """How far the policy has moved, for the step's metrics."""

    @property
    def num_trainable(self) -> int:
        """How many parameters are trained."""

    def write_lora(self, folder: Path) -> None:
        """Write the present parameters as a LoRA into a new folder, for engines that serve LoRA.

        Args:
            folder: which is made, and must not be there yet.

        Raises:
            RequestError: the method is not a LoRA.
        """

    def save(self, folder: Path, store: Store) -> int:
        """Write what was trained into a run folder; returns the bytes of its files.

        Args:
            folder: of the run, or its `best/`.
            store: the precision of the numbers in the files, fp32, bf16 or fp16.
        """

    def detach(self) -> None:
        """Make the model what it was before."""


def adapter_of(policy: Policy, user: str) -> TinyLora:
    """The policy's adapter, for what gives every row of a batch a v of its own.

    Args:
        user: what needs it, as the beginning of a sentence.

    Raises:
        RequestError: the policy has none.
    """
    if policy.adapter is None:
        raise RequestError(
            f"{user} runs a different v in every row of a batch, but a {type(policy).__name__} has "
            "no v. Use method = tinylora or lora-xs."
        )
    return policy.adapter


def no_lora(policy: Policy) -> RequestError:
    """What to say where a policy cannot be written as a LoRA."""
    return RequestError(
        f"A {type(policy).__name__} cannot be written as a LoRA, which is what vLLM serves. Use "
        "rollout = transformers with this method."
    )


@dataclass(frozen=True)
class UntrainedPolicy:
    """A base model without any adapter, for the engines."""

    model: Any
    adapter: None = None
    num_trainable: int = 0

    def parameters(self) -> list[nn.Parameter]:
        return []

    def reference(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def rollout(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """There is nothing to put back."""

    def metrics(self) -> dict[str, float]:
        return {}

    def write_lora(self, folder: Path) -> None:
        raise no_lora(self)

    def save(self, folder: Path, store: Store) -> int:
        """Nothing was trained, so there is nothing to write."""
        return 0

    def detach(self) -> None:
        """Nothing is attached."""
