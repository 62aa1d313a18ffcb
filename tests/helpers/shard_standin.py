"""What a rank holds of a sharded model, and what it computes beside ranks with other work.

Run by torchrun; rank 0 computes it all alone too, on a model of its own, and compares.
"""

import gc
import json
import sys
import weakref
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from helpers.standins import tiny_model
from tinylora import AdapterConfig, attach, distributed
from tinylora.algorithms.batching import Sample, collate, completion_logprobs, pack
from tinylora.algorithms.recompute import recomputed
from tinylora.fsdp import blocks_of, in_step, is_sharded, shard

SAMPLES = [Sample(i, [3, 4, 5 + i], [6, 7, 8 + i, 1]) for i in range(5)]


def main(output: Path) -> None:
    with distributed.joined():
        whole, split = make(), make()
        blocks = blocks_of(split.model)
        count = sum(p.numel() for block in blocks for p in block.parameters())
        before = [weakref.ref(p) for block in blocks for p in block.parameters()]
        shard(split, torch.device("cpu"))
        gc.collect()
        found = {
            "weights": count,
            "held": held(blocks),
            "alive": sum(reference() is not None for reference in before),
            "is_sharded": [is_sharded(split.model), is_sharded(whole.model)],
            "can_fold": split.can_fold,
            "gradient": float(learned(whole, SAMPLES, False)[1].norm()),
            "errors": [error(whole, split, again) for again in (False, True)],
            "after": held(blocks),
        }
        everything = distributed.gather([found])
        if distributed.is_main():
            output.write_text(json.dumps(everything), encoding="utf-8")


def make():
    """A model of four blocks, of which the upper three are adapted, with numbers."""
    model = tiny_model(num_hidden_layers=4).requires_grad_(True)  # as from_pretrained leaves it
    adapter = attach(model, AdapterConfig(u=3, layers="1-3"))
    adapter.set_values(torch.full_like(adapter.v, 0.1))
    return adapter


def held(blocks) -> int:
    """The numbers that this rank keeps of the blocks' weights."""
    parts = [p.to_local() for block in blocks for p in block.parameters() if isinstance(p, DTensor)]
    return sum(part.untyped_storage().nbytes() // part.element_size() for part in parts)


def error(whole, split, again: bool) -> list[float]:
    """How far log-probabilities and gradient are from those of the whole model."""
    wanted, wanted_gradient = learned(whole, SAMPLES, again)
    mine = SAMPLES[:4] if distributed.is_main() else SAMPLES[4:]  # four passes here, one there
    got, gradient = learned(split, mine, again)
    distributed.add_up(gradient)
    place = slice(0, 16) if distributed.is_main() else slice(16, 20)
    return [float((got - wanted[place]).abs().max()), float((gradient - wanted_gradient).norm())]


def learned(adapter, samples: list[Sample], again: bool) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the samples, one pass each, and the gradient of v of their sum."""
    model, parts = adapter.model, []
    adapter.v.grad = None
    with recomputed(model) if again else nullcontext(), in_step(model, is_learning=True):
        for sample in samples:
            batch = collate(pack([sample], 1), model.device, torch.float32)
            logprobs = completion_logprobs(model, batch, 1.0)
            logprobs.sum().backward()
            parts.append(logprobs.detach())
    return torch.cat(parts), adapter.v.grad.clone()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
