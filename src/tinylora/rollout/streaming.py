"""One answer, token by token, for somebody who reads along.

It draws the tokens that `TransformersEngine` draws for the same prompt and seed. It does **not**
cover: batches, beams, models that keep their past in no cache.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import torch

from tinylora.errors import RequestError
from tinylora.models import check_context, evaluation_mode
from tinylora.rollout.engine import Sampling
from tinylora.rollout.past import OwnCache
from tinylora.rollout.transformers import draw, uniform_noise


def stream(model: Any, prompt: list[int], sampling: Sampling, seed: int) -> Generator[int]:
    """The tokens of an answer as they are drawn, the end token included.

    Raises:
        RequestError: the prompt is empty, or prompt and budget pass the model's context.
    """
    if not prompt:
        raise RequestError("The prompt has 0 tokens, so there is nothing to continue.")
    check_context(model, [prompt], sampling.max_new_tokens)
    ids, past = torch.tensor([prompt], device=model.device), OwnCache(model)  # (1, tokens)
    noise_T = uniform_noise((sampling.max_new_tokens,), seed).to(model.device)
    with evaluation_mode(model):
        for noise in noise_T:
            with torch.no_grad():  # not around the yield, where the reader's own code runs
                output = model(input_ids=ids, use_cache=True, logits_to_keep=1, **past.given())
            past.keep(output)
            token, _ = draw(output.logits[:, -1], noise[None], sampling.temperature)
            yield int(token)
            if int(token) in sampling.eos_token_ids:
                return
            ids = token[:, None]


class Spelling:
    """The text of an answer that grows; a character of several tokens comes with the last one."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self.decode = decode
        self.token_ids: list[int] = []
        self.shown = ""

    def add(self, token_id: int) -> str:
        """What the next token adds."""
        self.token_ids.append(token_id)
        return "" if self.decode(self.token_ids).endswith("\ufffd") else self.rest()

    def rest(self) -> str:
        """What has not been shown yet: at the end, half of a character that was cut off."""
        before, self.shown = self.shown, self.decode(self.token_ids)
        return self.shown[len(before) :]


def pieces(token_ids: Iterable[int], decode: Callable[[list[int]], str]) -> Iterator[str]:
    """What each token adds to the text, where it adds something."""
    spelling = Spelling(decode)
    for token_id in token_ids:
        if piece := spelling.add(token_id):
            yield piece
    if rest := spelling.rest():
        yield rest
