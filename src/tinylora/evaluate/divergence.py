"""Two models of one policy, token by token: how far what was trained is from the base.

Both read the same tokens, and their whole next-token distributions are compared at temperature 1.

    KL          sum of p (log p - log q), p the trained distribution and q the base's, in nats
    promoted    the token whose probability rose most, p - q
    changed     the likeliest token is another one than the base's

Logits of one batch, of both models, are in memory at once: twice rows x length x vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tinylora.policy import Policy

MAX_LOGITS = 2**25  # of one batch, unless a single row has more
CHUNK = 256  # positions whose distributions exist in fp32 at once
NUM_TOP = 5  # of the likeliest tokens that a position keeps

Choices = list[tuple[int, float]]  # token and probability, the likeliest first


@dataclass(frozen=True)
class Position:
    """One token, and what both models say of its place."""

    token: int  # which was there
    loss: float  # of that token under the trained model, in nats
    base_loss: float
    kl: float
    promoted: int
    promoted_rank: int  # among the base's tokens, from 1
    choices: Choices  # of the trained model
    base_choices: Choices

    @property
    def is_changed(self) -> bool:
        """Whether the likeliest token is another one than the base's."""
        return self.choices[0][0] != self.base_choices[0][0]


@torch.no_grad()
def compare(policy: Policy, texts: Sequence[tuple[list[int], list[int]]]) -> list[list[Position]]:
    """The positions of each text, whatever else is in its batch.

    Args:
        texts: pairs (what is given, what follows) of token ids; each given part has a token or
            more, and positions are those of what follows.
    """
    found: dict[int, list[Position]] = {}
    model = policy.model
    for batch in _batches(texts, int(model.config.get_text_config().vocab_size)):
        rows = [texts[i][0] + texts[i][1] for i in batch]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for row, tokens in zip(ids, rows, strict=True):  # padding is where no token looks
            row[: len(tokens)] = torch.tensor(tokens)
        ids = ids.to(model.device)
        trained = model(input_ids=ids, use_cache=False).logits
        with policy.reference():
            base = model(input_ids=ids, use_cache=False).logits
        for k, i in enumerate(batch):
            given, following = texts[i]
            place = slice(len(given) - 1, len(given) - 1 + len(following))
            found[i] = _positions(trained[k, place], base[k, place], following)
    return [found[i] for i in range(len(texts))]


def _batches(texts: Sequence[tuple[list[int], list[int]]], vocabulary: int) -> Iterator[list[int]]:
    """Places of texts of about one length, up to `MAX_LOGITS` a batch."""
    lengths = [len(given) + len(following) for given, following in texts]
    batch: list[int] = []
    for i in sorted(range(len(texts)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] * vocabulary > MAX_LOGITS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _positions(trained: Tensor, base: Tensor, tokens: list[int]) -> list[Position]:
    """Args: logits of both, (T, vocabulary), and the T tokens that were there."""
    found: list[Position] = []
    for start in range(0, len(tokens), CHUNK):
        here = slice(start, start + CHUNK)
        found += _chunk(trained[here].float(), base[here].float(), tokens[here])
    return found


def _chunk(trained: Tensor, base: Tensor, tokens: list[int]) -> list[Position]:
    p, q = trained.log_softmax(-1), base.log_softmax(-1)  # (T, vocabulary)
    kl_T = (p.exp() * (p - q)).sum(-1).clamp(min=0)
    promoted_T = (p.exp() - q.exp()).argmax(-1)
    rank_T = 1 + (q > q.gather(-1, promoted_T[:, None])).sum(-1)
    token_T = torch.tensor(tokens, device=p.device)[:, None]
    columns: list[Any] = [
        tokens,
        (-p.gather(-1, token_T)).flatten().tolist(),
        (-q.gather(-1, token_T)).flatten().tolist(),
        kl_T.tolist(),
        promoted_T.tolist(),
        rank_T.tolist(),
        _choices(p),
        _choices(q),
    ]
    return [Position(*row) for row in zip(*columns, strict=True)]


def _choices(logprobs: Tensor) -> list[Choices]:
    """The likeliest tokens of each position."""
    top = logprobs.topk(min(NUM_TOP, logprobs.shape[-1]))
    pairs = zip(top.indices.tolist(), top.values.exp().tolist(), strict=True)
    return [list(zip(*pair, strict=True)) for pair in pairs]
