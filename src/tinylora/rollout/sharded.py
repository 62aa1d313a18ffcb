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
        """The numbers of the version before, of engines that serve copies."""
        return getattr(self.engine, "previous", None)

    @property
    def policy(self) -> Policy:
        found: Policy = self.engine.policy  # type: ignore[attr-defined]
        return found

    def generate(
        self,
        prompts: Sequence[list[int]],
        num_samples: int,
        sampling: Sampling,
        seed: int,
        places: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """As the engine's own."""
        places = range(len(prompts)) if places is None else places
        mine, here = distributed.share(prompts), distributed.share(list(places))
        with in_step(self.policy.model):
            done = self.engine.generate(mine, num_samples, sampling, seed, here) if mine else []
        return distributed.gather(done)


def sharded(engine: Engine) -> Engine:
    """The engine, shared out where there are several processes."""
    return ShardedEngine(engine) if distributed.size() > 1 else engine
