"""From samples to micro-batches, and from micro-batches to log-probabilities of their completions.

Samples of one prompt share a row where that is cheaper: the prompt is computed once, its
completions follow one another, each blind to the others and each at the positions it would have
alone. Rows are sorted by length and cut by a token budget; padding is on the right, where a
causal model never looks, so it changes nothing.

Log-probabilities are taken for completion tokens alone, from gathered hidden states and through
the output head in chunks: logits of a whole batch never exist, neither forward nor backward.

Logits are the model's own function of its last hidden states: head, scale, cap. Models that
remember by states, or whose attention does not take a mask of ours, have one completion in a row.

It does not cover: encoder-decoders; models whose logits depend on more than their last hidden state
(`check_model` refuses them).
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tinylora import distributed
from tinylora.decoders import body, has_window, head_logits, takes_any_mask, text_config
from tinylora.errors import RequestError

CHUNK_ELEMENTS = 2**25  # logits in fp32 that exist at once: 128 MiB
ATTENTION_COST = 1.5  # an operation in attention, where one in a linear layer is 1 (measured, CPU)


@dataclass(frozen=True)
class Sample:
    """A completion to train on, and the group (prompt) it belongs to."""

    group: int
    prompt: list[int]
    completion: list[int]


@dataclass(frozen=True)
class Row:
    """A prompt and one or more of its completions.

    Args:
        first_tokens: where each completion begins among the batch's completion tokens (`_T`).
    """

    prompt: list[int]
    completions: tuple[list[int], ...]
    first_tokens: tuple[int, ...]

    @property
    def length(self) -> int:
        return len(self.prompt) + sum(map(len, self.completions))


@dataclass(frozen=True)
class MicroBatch:
    """Rows as tensors. Completion token k is at `targets[k]`, is predicted by the hidden state
    at (`rows[k]`, `positions[k]`), and is the batch's token `tokens[k]`."""

    input_ids: Tensor  # (B, L)
    position_ids: Tensor | None  # (B, L); None: 0, 1, 2, ...
    attention_mask: Tensor | None  # (B, 1, L, L), added to the scores; None: causal
    rows: Tensor  # (n,)
    positions: Tensor  # (n,)
    targets: Tensor  # (n,)
    tokens: Tensor  # (n,)


def pack(
    samples: Sequence[Sample], samples_per_row: int, max_tokens: int | None = None
) -> list[Row]:
    """Rows of up to `samples_per_row` completions of one prompt, in the order of the samples.

    Args:
        max_tokens: a row is closed before it passes so many; one completion may be longer. None:
            rows may be of any length.
    """
    firsts = [0, *accumulate(len(sample.completion) for sample in samples)]
    groups: dict[int, list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault(sample.group, []).append(index)
    rows = []
    for members in groups.values():
        for chosen in _closed(samples, members, samples_per_row, max_tokens):
            rows.append(
                Row(
                    samples[chosen[0]].prompt,
                    tuple(samples[i].completion for i in chosen),
                    tuple(firsts[i] for i in chosen),
                )
            )
    return rows


def _closed(
    samples: Sequence[Sample], members: list[int], samples_per_row: int, max_tokens: int | None
) -> list[list[int]]:
    """The members of one group, cut into rows."""
    rows: list[list[int]] = []
    length = 0
    for index in members:
        grown = length + len(samples[index].completion)
        is_full = rows and (
            len(rows[-1]) == samples_per_row or (max_tokens is not None and grown > max_tokens)
        )
        if not rows or is_full:
            rows.append([])
            grown = len(samples[index].prompt) + len(samples[index].completion)
        rows[-1].append(index)
        length = grown
    return rows


def default_micro_batch_tokens(device: torch.device) -> int:
    """Few on a CPU, whose caches then hold the activations (a third faster); many elsewhere."""
    return 2048 if device.type == "cpu" else 16384


def split_rows(rows: Sequence[Row], max_tokens: int, has_padding: bool = True) -> list[list[Row]]:
    """Rows sorted by length and cut so that each cut, padded, holds at most `max_tokens`.

    A row that is longer than the budget goes alone.

    Args:
        has_padding: False where rows are laid end to end: then only their own tokens count.
    """
    batches: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: -row.length):
        last = batches[-1] if batches else []
        grown = [*last, row]
        filled = len(grown) * grown[0].length if has_padding else sum(r.length for r in grown)
        if last and filled <= max_tokens:
            last.append(row)
        else:
            batches.append([row])
    return batches


def split_among_processes(
    rows: Sequence[Row], model: Any, max_tokens: int | None
) -> list[list[Row]]:
    """This process's share of the rows, cut by the token budget (None: the device's default)."""
    mine = distributed.share(sorted(rows, key=lambda row: -row.length))
    budget = max_tokens or default_micro_batch_tokens(model.device)
    return split_rows(mine, budget, has_padding=not lays_end_to_end(model))


def micro_batches(cuts: Sequence[Sequence[Row]], model: Any) -> Iterator[MicroBatch]:
    """The cuts as tensors, one after the other, so that only one is in memory."""
    for rows in cuts:
        if lays_end_to_end(model):
            yield collate_end_to_end(rows, model.device)
        else:
            yield collate(rows, model.device, model.dtype)


def collate(rows: Sequence[Row], device: torch.device, dtype: torch.dtype) -> MicroBatch:
    """Rows, padded on the right, as tensors on the device; `dtype` is that of the mask."""
    length = max(row.length for row in rows)
    input_ids = torch.zeros(len(rows), length, dtype=torch.long)
    position_ids = torch.arange(length).repeat(len(rows), 1)
    segments = torch.zeros(len(rows), length, dtype=torch.long)  # 0: the prompt; k: completion k
    place: list[Tensor] = []  # of (4, tokens): row, position, target, token
    for b, row in enumerate(rows):
        end = len(row.prompt)
        input_ids[b, :end] = torch.tensor(row.prompt)
        for k, (completion, first) in enumerate(
            zip(row.completions, row.first_tokens, strict=True)
        ):
            start, end = end, end + len(completion)
            input_ids[b, start:end] = torch.tensor(completion)
            position_ids[b, start:end] = torch.arange(len(completion)) + len(row.prompt)
            segments[b, start:end] = k + 1
            before = torch.arange(start - 1, end - 1)
            before[0] = len(row.prompt) - 1
            here = torch.full_like(before, b)
            token = torch.arange(first, first + len(completion))
            place.append(torch.stack([here, before, input_ids[b, start:end], token]))
    mask = None
    if any(len(row.completions) > 1 for row in rows):
        mask = _prompt_sharing_mask(segments.to(device), dtype)
    where = torch.cat(place, dim=1).to(device)
    return MicroBatch(
        input_ids.to(device), None if mask is None else position_ids.to(device), mask, *where
    )


def lays_end_to_end(model: Any) -> bool:
    """Whether the model's attention reads rows laid end to end, without padding (flash)."""
    return "flash" in str(model.config._attn_implementation)


def collate_end_to_end(rows: Sequence[Row], device: torch.device) -> MicroBatch:
    """Rows with one completion each, one after the other in a single row of the batch.

    Positions begin anew with each row; from them the attention knows where a row ends.
    """
    texts = [row.prompt + row.completions[0] for row in rows]
    starts = [0, *accumulate(map(len, texts))]
    places = []  # of (4, tokens): row, position, target, token
    for row, start in zip(rows, starts, strict=False):
        count = len(row.completions[0])
        before = torch.arange(count) + start + len(row.prompt) - 1
        token = torch.arange(count) + row.first_tokens[0]
        target = torch.tensor(row.completions[0])
        places.append(torch.stack([torch.zeros_like(before), before, target, token]))
    position_ids = torch.cat([torch.arange(len(text)) for text in texts])
    input_ids = torch.tensor([token for text in texts for token in text])
    where = torch.cat(places, dim=1).to(device)
    return MicroBatch(input_ids[None].to(device), position_ids[None].to(device), None, *where)


def _prompt_sharing_mask(segments: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a token may look (back, at the prompt or its own completion), else the lowest."""
    query, key = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(query.shape[1], query.shape[1], dtype=torch.bool, device=segments.device)
    is_visible = causal.tril() & ((key == 0) | (key == query))  # (B, L, L)
    mask = torch.zeros(is_visible.shape, dtype=dtype, device=segments.device)
    return mask.masked_fill_(~is_visible, torch.finfo(dtype).min)[:, None]


def completion_logprobs(model: Any, batch: MicroBatch, temperature: float) -> Tensor:
    """Log-probability of each completion token under logits / temperature. (n,), fp32."""
    places = {"position_ids": batch.position_ids, "attention_mask": batch.attention_mask}
    given = {name: value for name, value in places.items() if value is not None}
    hidden = body(model)(input_ids=batch.input_ids, use_cache=False, **given).last_hidden_state
    hidden = hidden[batch.rows, batch.positions]  # (n, d)
    size = int(model.get_output_embeddings().weight.shape[0])
    head = partial(head_logits, model)
    return head_logprobs(head, hidden, batch.targets, temperature, max(1, CHUNK_ELEMENTS // size))


def head_logprobs(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    targets: Tensor,
    temperature: float,
    num_rows: int,
) -> Tensor:
    """Log-probabilities of `targets` through the output head, a chunk of tokens at a time.

    Where there is more than one chunk, the backward pass computes each chunk's logits again
    instead of keeping them.

    Args:
        head: hidden states (rows, d) to logits (rows, vocabulary).
        hidden: (n, d), the last hidden states.
        targets: (n,) token ids.
        num_rows: the most tokens whose logits exist at once.

    Returns:
        (n,), fp32.
    """
    if len(hidden) <= num_rows:
        return _chunk_logprobs(head, hidden, targets, temperature)
    chunks = [
        checkpoint(_chunk_logprobs, head, h, t, temperature, use_reentrant=False)
        for h, t in zip(torch.split(hidden, num_rows), torch.split(targets, num_rows), strict=True)
    ]
    return torch.cat(chunks)


def _chunk_logprobs(
    head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, temperature: float
) -> Tensor:
    logits = head(hidden).float() / temperature  # (rows, vocabulary)
    return -nn.functional.cross_entropy(logits, targets, reduction="none")


def best_samples_per_row(model: Any, samples: Sequence[Sample]) -> int:
    """How many completions should share a prompt, by arithmetic alone.

    Sharing saves the prompt's share of the linear layers and pays with attention scores between
    completions that are then masked: short completions share, long ones stand alone.
    """
    if not samples or not can_share_prompts(model):
        return 1
    most = max(Counter(sample.group for sample in samples).values())
    prompt = sum(len(s.prompt) for s in samples) / len(samples)
    completion = sum(len(s.completion) for s in samples) / len(samples)
    embeddings = {
        id(module.weight)
        for module in (model.get_input_embeddings(), model.get_output_embeddings())
    }
    linear: int = 2 * sum(p.numel() for p in model.parameters() if id(p) not in embeddings)
    config = text_config(model)
    attention: int = 4 * config.num_hidden_layers * config.hidden_size

    def cost(num_rows: int) -> float:
        length = prompt + completion * most / num_rows
        share = 0.5 if num_rows == most else 1.0  # of the scores: without a mask, half are skipped
        return num_rows * (linear * length + ATTENTION_COST * share * attention * length**2)

    return math.ceil(most / min(range(1, most + 1), key=cost))


def can_share_prompts(model: Any) -> bool:
    """Whether the model takes a mask of our own: plain attention, no windows."""
    is_plain = takes_any_mask(model) and not has_window(model)
    return is_plain and model.config._attn_implementation in ("sdpa", "eager")


@torch.no_grad()
def check_model(model: Any) -> None:
    """Refuse a model whose log-probabilities this file would get wrong.

    Two completions of one prompt, through the model's own logits and through this file's way.

    Raises:
        RequestError: logits depend on more than the last hidden state, the mask is not obeyed, or
            a weight is not finite.
    """
    prompt, completions = [1, 2, 3], ([2, 1], [3, 1, 2])
    samples = [Sample(0, prompt, ids) for ids in completions]
    rows = pack(samples, 2 if can_share_prompts(model) else 1)
    batches = [collate([row], model.device, model.dtype) for row in rows]
    ours = torch.cat([completion_logprobs(model, batch, 1.0) for batch in batches])
    theirs = torch.cat([_plain_logprobs(model, prompt, ids) for ids in completions])
    if not bool(theirs.isfinite().all()):
        raise RequestError(
            f"{type(model).__name__}: its log-probabilities are not finite, so a weight is NaN or "
            "infinite. Download or convert the model again."
        )
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.5  # half-precision logits are coarse
    error = float((ours - theirs).abs().max())
    if not error <= tolerance:
        raise RequestError(
            f"{type(model).__name__}: log-probabilities from its last hidden states differ by "
            f"{error:.2g} from those of its logits (they depend on more than those states, or a "
            "mask is not obeyed), so training would follow a different policy. Use another model."
        )


def _plain_logprobs(model: Any, prompt: list[int], completion: list[int]) -> Tensor:
    ids = torch.tensor([prompt + completion], device=model.device)
    logits: Tensor = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    logprobs = logits.float().log_softmax(-1)
    return logprobs.gather(-1, ids[0, len(prompt) :, None]).squeeze(-1)
