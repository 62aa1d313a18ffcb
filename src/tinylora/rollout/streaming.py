"""One answer, token by token, for somebody who reads along.

It draws the tokens that `TransformersEngine` draws for the same prompt and seed. Nothing is padded,
so that models with recurrent layers answer as well. It does **not** cover: batches, beams, models
whose forward pass gives no `past_key_values`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from tinylora.errors import RequestError
from tinylora.models import check_context, evaluation_mode
from tinylora.rollout.engine import Sampling
from tinylora.rollout.transformers import draw, uniform_noise


def stream(model: Any, prompt: list[int], sampling: Sampling, seed: int) -> Iterator[int]:
    """The tokens of an answer as they are drawn, the end token included.

    Raises:
        RequestError: the prompt is empty, or prompt and budget pass the model's context.
    """
    if not prompt:
        raise RequestError("The prompt has 0 tokens, so there is nothing to continue.")
    check_context(model, [prompt], sampling.max_new_tokens)
    ids, cache = torch.tensor([prompt], device=model.device), None  # (1, tokens)
    noise_T = uniform_noise((sampling.max_new_tokens,), seed).to(model.device)
    with evaluation_mode(model):
        for noise in noise_T:
            with torch.no_grad():  # not around the yield, where the reader's own code runs
                output = model(
                    input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1
                )
            cache = output.past_key_values
            token, _ = draw(output.logits[:, -1], noise[None], sampling.temperature)
            yield int(token)
            if int(token) in sampling.eos_token_ids:
                return
            ids = token[:, None]


def pieces(token_ids: Iterable[int], decode: Callable[[list[int]], str]) -> Iterator[str]:
    """What each token adds to the text; a character of several tokens comes with the last one."""
    seen: list[int] = []
    shown = ""
    for token_id in token_ids:
        seen.append(token_id)
        whole = decode(seen)
        if not whole.endswith("\ufffd"):
            yield whole[len(shown) :]
            shown = whole
    if rest := decode(seen)[len(shown) :]:
        yield rest
