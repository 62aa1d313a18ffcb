"""An engine whose prompts are shared out over the processes of a run."""

from collections.abc import Sequence

from torch import Tensor

from tinylora import distributed
from tinylora.fsdp import in_step
from tinylora.policy import Policy
from tinylora.rollout.engine import Completion, Engine, Sampling


class ShardedEngine:
    """Every rank samples a part of the prompts with its own engine; all ranks get all completions.

    A prompt's randomness follows from its place among all prompts, so that the number of ranks
    changes nothing.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def previous(self) -> dict[str, Tensor] | None:
        return self.engine.previous

    @property
    def policy(self) -> Policy:
        return self.engine.policy

    def generate(
        self,
        prompts: Sequence[list[int]],
        num_samples: int,
        sampling: Sampling,
        seed: int,
        places: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """As the engine's own."""
        mine, here = self._share(prompts, places)
        with in_step(self.policy.model):
            done = self.engine.generate(mine, num_samples, sampling, seed, here) if mine else []
        return distributed.gather(done)

    def generate_population(
        self,
        prompts: Sequence[list[int]],
        candidates: Tensor,
        sampling: Sampling,
        seed: int,
        places: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """As the engine's own."""
        mine, here = self._share(prompts, places)
        generate = self.engine.generate_population
        with in_step(self.policy.model):
            done = generate(mine, candidates, sampling, seed, here) if mine else []
        return distributed.gather(done)

    def _share(
        self, prompts: Sequence[list[int]], places: Sequence[int] | None
    ) -> tuple[list[list[int]], list[int]]:
        """This rank's prompts and their places."""
        places = range(len(prompts)) if places is None else places
        return distributed.share(prompts), distributed.share(list(places))


def sharded(engine: Engine) -> Engine:
    """The engine, shared out where there are several processes."""
    return ShardedEngine(engine) if distributed.size() > 1 else engine
