"""Rollouts by a server of adapters: every version of the numbers is an adapter of its own.

A server with our plugin (`vllm_plugin`) is given the numbers themselves, as text. Any other is
given a LoRA: the policy writes its parameters in a new folder, under a new name; the server loads
it, answers under it, and forgets the one before. Nothing is merged, and nothing is overwritten: a
prefix cache is keyed by name and path, and would serve keys and values of an older version.

Where the numbers are zero the adapter is written and served anyway, because LoRA kernels
change the base model's outputs a little: what is compared runs through the same arithmetic.
"""

import hashlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from tinylora.errors import RequestError
from tinylora.models import check_context
from tinylora.policy import Policy, adapter_of
from tinylora.rollout.engine import Completion, Sampling

SHARED_MEMORY = Path("/dev/shm")
Version = Path | str  # of an adapter: the folder of its LoRA, or its text


class LoraServer(Protocol):
    """What serves the adapters: vLLM in this process, or servers anywhere."""

    def takes(self, line: str) -> bool:
        """Whether it serves adapters by their texts, such as this one.

        Raises:
            TinyLoraError: it would, but refuses this one.
        """

    def load(self, version: Version) -> None:
        """Serve this adapter from now on, under the name that `name_of` gives it."""

    def unload(self, version: Version) -> None:
        """Forget it; its files are removed afterwards."""

    def generate(
        self, prompts: Sequence[list[int]], num_samples: int, sampling: Sampling, seeds: list[int]
    ) -> list[list[Completion]]:
        """Completions under the adapter loaded last; `seeds` has one for each prompt."""

    def generate_each(
        self,
        prompts: Sequence[list[int]],
        sampling: Sampling,
        seeds: list[int],
        adapters: Sequence[Version],
    ) -> list[Completion]:
        """A completion of each prompt under its own adapter, all at once; the
        adapters are forgotten afterwards, and the one loaded last is served on."""


class LoraEngine:
    """Samples from the policy as it is now, through a server of its LoRA.

    Args:
        policy: one that has an adapter, or `write_lora`.
        folder: where LoRAs are written; a server that takes no texts has to see it under the same
            path.
        numbers: of the versions; engines of one folder share them.
    """

    def __init__(
        self, policy: Policy, server: LoraServer, folder: Path, numbers: Iterator[int]
    ) -> None:
        self.policy = policy
        self.server, self.folder, self.numbers = server, folder, numbers
        self.previous: dict[str, Tensor] | None = None  # the numbers of the version before
        self._served: dict[str, Tensor] | None = None
        self._version: Version | None = None
        self._has_texts: bool | None = None  # unknown, until the server is asked

    def generate(
        self,
        prompts: Sequence[list[int]],
        num_samples: int,
        sampling: Sampling,
        seed: int,
        places: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """`num_samples` completions of each prompt; the same seed gives the same ones.

        Raises:
            RequestError: a prompt is empty, or prompt and budget pass the model's context.
            TinyLoraError: the server failed.
        """
        self._check(prompts, sampling)
        self.publish()
        num_drawn = num_samples if sampling.temperature > 0 else 1
        seeds = [seed_of(seed, place) for place in places or range(len(prompts))]
        answers = self.server.generate(prompts, num_drawn, sampling, seeds)
        return [row * (num_samples // num_drawn) for row in answers]

    def generate_population(
        self,
        prompts: Sequence[list[int]],
        candidates: Tensor,
        sampling: Sampling,
        seed: int,
        places: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """A completion of each prompt by each candidate (P by C), each an adapter of its own.

        Candidates share the seed of a prompt, so that they differ by what they are alone.

        Args:
            candidates: values of an adapter, (C, num_groups, u).

        Raises:
            RequestError, TinyLoraError: as `generate`.
        """
        self._check(prompts, sampling)
        adapter = adapter_of(self.policy, "A population")
        present = adapter.v.detach().clone()
        versions: list[Version] = []
        try:
            for values in candidates:
                adapter.set_values(values)
                versions.append(self._new_version())
            seeds = [seed_of(seed, place) for place in places or range(len(prompts))]
            count = len(versions)
            answers = self.server.generate_each(
                [prompt for prompt in prompts for _ in versions],
                sampling,
                [value for value in seeds for _ in versions],
                versions * len(prompts),
            )
        finally:
            adapter.set_values(present)
            for version in versions:
                _remove(version)
        return [answers[i : i + count] for i in range(0, len(answers), count)]

    def publish(self) -> None:
        """Serve the current parameters, unless they are served already."""
        state = self.policy.state_dict()
        if self._served is not None and same(state, self._served):
            return
        new, old = self._new_version(), self._version
        self.server.load(new)
        self.previous, self._served, self._version = self._served, state, new
        if old is not None:
            self._forget(old)

    def close(self) -> None:
        """Take the last version from the server."""
        if self._version is not None:
            self._forget(self._version)
        self._served = self._version = None

    def _check(self, prompts: Sequence[list[int]], sampling: Sampling) -> None:
        if any(not prompt for prompt in prompts):
            raise RequestError("A prompt has 0 tokens, so there is nothing to continue.")
        check_context(self.policy.model, prompts, sampling.max_new_tokens)

    def _new_version(self) -> Version:
        """The policy as it is now: its text where the server takes it, else a LoRA's folder."""
        adapter = self.policy.adapter
        if adapter is not None and self._has_texts is not False:
            line = adapter.to_text("fp32")
            if self._has_texts is None:
                self._has_texts = self.server.takes(line)
            if self._has_texts:
                return line
        place = self.folder / f"{self.folder.name}-v{next(self.numbers)}"
        self.policy.write_lora(place)
        return place

    def _forget(self, version: Version) -> None:
        self.server.unload(version)
        _remove(version)


def name_of(version: Version) -> str:
    """What requests call it: a text names itself."""
    return version.name if isinstance(version, Path) else version


def _remove(version: Version) -> None:
    if isinstance(version, Path):
        shutil.rmtree(version)


def same(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two states hold the same bits."""
    return state.keys() == other.keys() and all(torch.equal(state[k], other[k]) for k in state)


def version_folder(parent: str | None) -> Path:
    """A new folder for the versions of one engine, under a name that no other run has.

    Args:
        parent: None: the machine's shared memory, where there is some.

    Raises:
        RequestError: there is no such folder.
    """
    default = SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
    place = default if parent is None else Path(parent).absolute()
    if not place.is_dir():
        raise RequestError(
            f"adapter_dir = {parent} is not a folder, so adapters cannot be handed to the rollout "
            "engine there. Create it, or name one that the trainer and the servers both see."
        )
    folder = place / f"tinylora-{uuid.uuid4().hex[:12]}"
    folder.mkdir()
    return folder


def seed_of(seed: int, place: int) -> int:
    """A seed for each prompt, far from the others: its samples take the numbers from there on."""
    digest = hashlib.sha256(f"{seed}/prompt/{place}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2
