"""Log-probabilities and gradients do not depend on how a batch is cut, packed or padded."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from helpers.decoders import decoder_of
from helpers.standins import VOCABULARY, SteeringPolicy, tiny_model
from tinylora.algorithms.batching import (
    Sample,
    best_samples_per_row,
    can_share_prompts,
    check_model,
    collate,
    completion_logprobs,
    head_logprobs,
    pack,
    split_rows,
)
from tinylora.decoders import has_plain_head, head_logits
from tinylora.errors import RequestError

PROMPTS = [[5, 9, 3], [7, 4, 4, 8, 30, 12, 2], [11]]
COMPLETIONS = [[6, 2], [3, 3, 9, 1], [14], [2, 41, 40, 8, 9, 1], [5, 5], [31, 1], [17, 3, 2], [1]]
SAMPLES = [Sample(i % 3, PROMPTS[i % 3], ids) for i, ids in enumerate(COMPLETIONS)]


def slow_logprobs(model: Any, temperature: float) -> Tensor:
    """One completion at a time, through the model's own logits."""
    parts = []
    for sample in SAMPLES:
        ids = torch.tensor([sample.prompt + sample.completion])
        logits = model(input_ids=ids).logits[0, len(sample.prompt) - 1 : -1] / temperature
        chosen = torch.tensor(sample.completion)[:, None]
        parts.append(logits.log_softmax(-1).gather(-1, chosen).squeeze(-1))
    return torch.cat(parts)


def batched_logprobs(model: Any, samples_per_row: int, max_tokens: int, temperature: float) -> Any:
    rows = pack(SAMPLES, samples_per_row)
    logprobs = torch.zeros(sum(map(len, COMPLETIONS)))
    for part in split_rows(rows, max_tokens):
        batch = collate(part, model.device, model.dtype)
        logprobs[batch.tokens] = completion_logprobs(model, batch, temperature)
    return logprobs


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("samples_per_row", "max_tokens"), [(1, 1000), (1, 1), (2, 30), (8, 1000)])
def test_logprobs_equal_those_of_one_completion_at_a_time(
    samples_per_row: int, max_tokens: int, attention: str
) -> None:
    model = tiny_model(attn_implementation=attention)
    ours = batched_logprobs(model, samples_per_row, max_tokens, temperature=0.7)
    torch.testing.assert_close(ours, slow_logprobs(model, 0.7), atol=1e-5, rtol=0)


def test_learned_positions_restart_after_a_shared_prompt() -> None:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3
    )
    model = GPT2LMHeadModel(config).eval()
    ours = batched_logprobs(model, 8, 1000, temperature=1.0)
    torch.testing.assert_close(ours, slow_logprobs(model, 1.0), atol=1e-5, rtol=0)


def gradient(policy: SteeringPolicy, samples_per_row: int, max_tokens: int) -> Tensor:
    weights_T = torch.linspace(-1, 1, sum(map(len, COMPLETIONS)))
    policy.v.grad = None
    for part in split_rows(pack(SAMPLES, samples_per_row), max_tokens):
        batch = collate(part, policy.model.device, policy.model.dtype)
        logprobs = completion_logprobs(policy.model, batch, 1.0)
        (logprobs * weights_T[batch.tokens]).sum().backward()
    return policy.v.grad


def test_one_batch_of_eight_equals_eight_of_one() -> None:
    policy = SteeringPolicy(tiny_model())
    with torch.no_grad():
        policy.v.normal_(generator=torch.Generator().manual_seed(0))
    eight_of_one = gradient(policy, samples_per_row=1, max_tokens=1)
    assert eight_of_one.abs().min() > 1e-3
    for settings in ((1, 1000), (8, 1000), (2, 20)):
        torch.testing.assert_close(gradient(policy, *settings), eight_of_one, atol=1e-5, rtol=1e-5)


def test_rows_hold_every_completion_once() -> None:
    for samples_per_row in (1, 2, 8):
        rows = pack(SAMPLES, samples_per_row)
        placed = {
            first: ids
            for row in rows
            for first, ids in zip(row.first_tokens, row.completions, strict=True)
        }
        assert [placed[first] for first in sorted(placed)] == COMPLETIONS
        assert max(len(row.completions) for row in rows) == min(samples_per_row, 3)


def test_micro_batches_are_sorted_and_within_the_budget() -> None:
    parts = split_rows(pack(SAMPLES, 1), 22)
    assert [[row.length for row in part] for part in parts] == [[11, 9], [9, 8], [6, 5, 3], [2]]


def test_head_chunks_change_neither_value_nor_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(16, 50, bias=False)
    hidden = torch.randn(23, 16, generator=generator)
    targets = torch.randint(50, (23,), generator=generator)
    results = []
    for num_rows in (200, 4, 1):
        inputs = hidden.clone().requires_grad_()
        head.weight.grad = None
        logprobs = head_logprobs(head, inputs, targets, 0.7, num_rows)
        (logprobs * torch.arange(23)).sum().backward()
        results.append((logprobs.detach(), inputs.grad, head.weight.grad))
    for other in results[1:]:
        for ours, expected in zip(other, results[0], strict=True):
            torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-5)


def test_logits_of_a_whole_batch_never_exist() -> None:
    """The largest tensor that the chunked head saves or makes stays within a chunk."""
    num_tokens, vocabulary, chunk_rows = 40, 60, 5
    head = nn.Linear(8, vocabulary, bias=False)
    sizes: list[int] = []
    head.register_forward_hook(lambda module, inputs, output: sizes.append(output.numel()))
    hidden = torch.randn(num_tokens, 8, requires_grad=True)

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        targets = torch.zeros(num_tokens, dtype=torch.long)
        logprobs = head_logprobs(head, hidden, targets, 1.0, chunk_rows)
    logprobs.sum().backward()
    num_forward_calls = sum(size == chunk_rows * vocabulary for size in sizes)
    assert num_forward_calls == 2 * num_tokens // chunk_rows  # forward, and again for backward
    assert max(sizes) <= max(chunk_rows * vocabulary, head.weight.numel())


def test_short_completions_share_a_prompt_and_long_ones_stand_alone() -> None:
    model = tiny_model()
    short = [Sample(0, [2] * 50, [3] * 10) for _ in range(8)]
    long = [Sample(0, [2] * 5, [3] * 500) for _ in range(8)]
    assert best_samples_per_row(model, short) > 2
    assert best_samples_per_row(model, long) == 1


def test_windows_forbid_sharing() -> None:
    assert can_share_prompts(tiny_model())
    window = {"use_sliding_window": True, "sliding_window": 6}
    model = tiny_model(**window, layer_types=["sliding_attention", "full_attention"])
    assert not can_share_prompts(model)
    assert best_samples_per_row(model, SAMPLES) == 1
    ours = batched_logprobs(model, 1, 1000, temperature=1.0)
    torch.testing.assert_close(ours, slow_logprobs(model, 1.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["gemma2", "granite", "minicpm3", "falcon_h1", "opt", "llama"])
def test_logits_are_scaled_and_capped_as_the_model_does_it(kind: str) -> None:
    """Also where the head is taken in chunks, and for the gradient."""
    capped = {"final_logit_softcapping": 1.5} if kind == "gemma2" else {}
    model = decoder_of(kind, vocab_size=VOCABULARY, **capped)
    assert has_plain_head(model) == (kind in ("opt", "llama"))
    check_model(model)
    with torch.no_grad():
        ours, expected = batched_logprobs(model, 1, 1000, 0.7), slow_logprobs(model, 0.7)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    ids = torch.tensor([[5, 9, 3, 7, 2]])
    hidden = model.base_model(input_ids=ids).last_hidden_state[0].detach().requires_grad_()
    chunked = head_logprobs(partial(head_logits, model), hidden, ids[0], 1.0, num_rows=2)
    (gradient,) = torch.autograd.grad(chunked.sum(), hidden)
    logits = model(input_ids=ids).logits[0]
    torch.testing.assert_close(head_logits(model, hidden), logits, atol=1e-5, rtol=0)
    whole = head_logits(model, hidden).log_softmax(-1).gather(-1, ids[0, :, None]).sum()
    torch.testing.assert_close(gradient, torch.autograd.grad(whole, hidden)[0])


def test_a_weight_that_is_not_a_number_is_named_as_such() -> None:
    model = tiny_model()
    model.lm_head.weight.data[3, 4] = float("nan")
    with pytest.raises(RequestError, match="a weight is NaN or infinite"):
        check_model(model)


def test_attention_of_its_own_takes_no_mask_of_ours() -> None:
    """GPT-Neo's windows are not in the configuration's usual fields."""
    for kind in ("gpt_neo", "bloom", "falcon-rw-alibi", "lfm2"):
        assert not can_share_prompts(decoder_of(kind))


def test_plain_models_pass_the_check() -> None:
    check_model(tiny_model())
    check_model(tiny_model().to(torch.bfloat16))
    check_model(tiny_model(tie_word_embeddings=True))


def test_a_row_is_closed_at_the_token_budget() -> None:
    """A long answer in a group must not make a micro-batch several times its budget."""
    lengths = [10, 10, 40, 40, 10]
    samples = [Sample(0, [1] * 5, [2] * length) for length in lengths]
    rows = pack(samples, 4, max_tokens=50)
    assert [[len(c) for c in row.completions] for row in rows] == [[10, 10], [40], [40], [10]]
    assert max(row.length for row in rows) <= 50
    assert [row.length for row in pack([Sample(0, [1], [2] * 99)], 4, max_tokens=50)] == [100]
    assert len(pack(samples, 4)) == 2
