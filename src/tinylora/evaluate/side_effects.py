"""Side effects: what an adapter does to a text that has nothing to do with its task.

Both models read the text, paragraph by paragraph; the language-model loss of its tokens is
compared, and their whole distributions (`divergence.py`). Paragraphs are what intervals draw from.

The text that ships was written for this purpose, so no model has been trained on it: 26 paragraphs
of prose, a function, a letter, two other languages. Not covered: abilities. For these, run lm-eval
on the exported model (docs/usage.md).
"""

import math
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinylora.errors import RequestError
from tinylora.evaluate.divergence import Position, compare
from tinylora.evaluate.estimators import Figure, mean, share
from tinylora.models import Base
from tinylora.policy import Policy

SHIPPED = Path(__file__).with_name("side_effects.txt")
MOST_TOKENS = 1024  # of a paragraph; a longer one is read in parts, as is one beyond the context


def side_effects(base: Base, policy: Policy, file: str | None) -> dict[str, Any]:
    """The losses of the text before and after, in nats a token.

    Args:
        file: UTF-8 text with blank lines between paragraphs; None: the text that ships.

    Returns:
        `loss_before`, `loss_after`; `difference`, `kl` and `changed` (another likeliest token) of
        a token, with 95 % intervals over paragraphs.

    Raises:
        RequestError: the file cannot be read, or has no paragraph of two tokens.
    """
    texts = tokens_of(base, paragraphs(file))
    if not texts:
        raise RequestError(
            f"text = {file}, but none of its paragraphs has two tokens. Use a longer text."
        )
    rows = compare(policy, [(ids[:1], ids[1:]) for ids in texts])
    count = sum(map(len, rows))
    before = sum(position.base_loss for row in rows for position in row) / count
    after = sum(position.loss for row in rows for position in row) / count
    return {
        "text": file or "shipped",
        "num_paragraphs": len(rows),
        "num_tokens": count,
        "loss_before": before,
        "loss_after": after,
        "perplexity_before": math.exp(before),
        "perplexity_after": math.exp(after),
        "difference": asdict(of_a_token(rows, lambda p: p.loss - p.base_loss)),
        "kl": asdict(of_a_token(rows, lambda p: p.kl)),
        "changed": asdict(share([[float(p.is_changed) for p in row] for row in rows])),
    }


def paragraphs(file: str | None) -> list[str]:
    """The parts of the text between blank lines.

    Raises:
        RequestError: it cannot be read.
    """
    try:
        text = Path(file or SHIPPED).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            f"text = {file}, which cannot be read ({error}). Name a text file in UTF-8."
        ) from None
    return [part.strip("\n") for part in re.split(r"\n\s*\n", text) if part.strip()]


def tokens_of(base: Base, parts: list[str]) -> list[list[int]]:
    """Each part as the tokenizer reads any text, cut where it is too long to be read at once."""
    context = getattr(base.model.config, "max_position_embeddings", None) or MOST_TOKENS
    most = min(MOST_TOKENS, int(context))
    cut = []
    for part in parts:
        ids = list(base.tokenizer(part)["input_ids"])
        cut += [ids[start : start + most] for start in range(0, len(ids), most)]
    return [ids for ids in cut if len(ids) > 1]


def of_a_token(rows: list[list[Position]], number: Callable[[Position], float]) -> Figure:
    """The mean over all tokens, with the interval of drawing as many paragraphs again."""
    length = sum(map(len, rows)) / len(rows)
    return mean([sum(map(number, row)) / length for row in rows])
