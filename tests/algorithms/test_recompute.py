"""Less memory and the same gradient; and a backward pass that stops where nothing below trains."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.standins import tiny_model
from tinylora import AdapterConfig, attach
from tinylora.algorithms.batching import (
    Sample,
    collate,
    collate_end_to_end,
    completion_logprobs,
    pack,
    split_rows,
)
from tinylora.algorithms.recompute import recomputed
from tinylora.errors import RequestError

SAMPLES = [
    Sample(0, [3, 4, 5], [6, 7, 8, 1]),
    Sample(0, [3, 4, 5], [9, 1]),
    Sample(1, [6, 7, 8, 9, 10], [11, 12, 1]),
]


def gradient(model: Any, adapter: Any, context: Any) -> tuple[Tensor, int]:
    """Of v, and the bytes that the forward pass keeps."""
    kept = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    adapter.v.grad = None
    batch = collate(pack(SAMPLES, 1), model.device, torch.float32)
    with context, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logprobs = completion_logprobs(model, batch, 1.0)
        num_bytes = sum(kept)
        logprobs.sum().backward()
    return adapter.v.grad.clone(), num_bytes


def test_recomputing_keeps_less_and_changes_no_gradient() -> None:
    model = tiny_model()
    adapter = attach(model, AdapterConfig(u=3, num_groups=4))
    adapter.set_values(torch.full_like(adapter.v, 0.1))
    plain, bytes_plain = gradient(model, adapter, nullcontext())
    again, bytes_again = gradient(model, adapter, recomputed(model))
    assert bool(plain.any())
    assert torch.allclose(plain, again, atol=1e-6)
    assert bytes_again < bytes_plain / 2
    after, bytes_after = gradient(model, adapter, nullcontext())
    assert torch.equal(after, plain)
    assert bytes_after == bytes_plain
    assert not any(module.training for module in model.modules())


def test_a_model_without_blocks_is_refused() -> None:
    with (
        pytest.raises(RequestError, match="cannot recompute the blocks of Linear"),
        recomputed(nn.Linear(2, 2)),
    ):
        pass


@contextmanager
def noted(model: Any) -> Iterator[dict[str, bool]]:
    """Whether each map's output carries a gradient."""
    seen: dict[str, bool] = {}
    handles = [
        module.register_forward_hook(
            lambda m, a, out, name=name: seen.__setitem__(name, out.requires_grad)
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    yield seen
    for handle in handles:
        handle.remove()


def test_the_backward_pass_stops_at_the_lowest_adapted_block() -> None:
    model = tiny_model(num_hidden_layers=4)
    attach(model, AdapterConfig(u=2, layers="2-3"))
    with noted(model) as carries:
        batch = collate(pack(SAMPLES, 1), model.device, torch.float32)
        completion_logprobs(model, batch, 1.0)
    below = {n: c for n, c in carries.items() if ".layers.0." in n or ".layers.1." in n}
    above = {n: c for n, c in carries.items() if ".layers.3." in n}
    assert len(below) == 14
    assert not any(below.values())
    assert all(above.values())


def test_rows_end_to_end_have_the_log_probabilities_of_padded_ones() -> None:
    model = tiny_model()
    rows = pack(SAMPLES, 1)
    padded = collate(rows, model.device, torch.float32)
    packed = collate_end_to_end(rows, model.device)
    assert packed.input_ids.shape == (1, 7 + 5 + 8)
    with torch.no_grad():
        wanted, got = torch.zeros(9), torch.zeros(9)
        wanted[padded.tokens] = completion_logprobs(model, padded, 1.0)
        got[packed.tokens] = completion_logprobs(model, packed, 1.0)
    assert torch.allclose(got, wanted, atol=1e-5)


def test_a_budget_of_tokens_counts_padding_only_where_there_is_some() -> None:
    rows = pack(SAMPLES, 1)  # of 8, 7 and 5 tokens
    assert [len(part) for part in split_rows(rows, 20)] == [2, 1]
    assert [len(part) for part in split_rows(rows, 20, has_padding=False)] == [3]
