"""Rollouts by the Transformers model that is trained: no second copy, no server.

Each prompt is read once and its keys and values are spread to its samples; keys and values are
written in place into buffers; finished rows leave the batch, so that one long answer does not hold
up the others. A sample's randomness is fixed before the first token, by its place among all
samples, so that neither the batching nor the end of a neighbour changes what is drawn.

A model that remembers by states (Mamba, linear attention, hybrids) samples prompts of one length
together, because padding would go into its states.

It does not cover: beams, encoder-decoders, models without a cache of Transformers (RWKV).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tinylora.decoders import has_window, is_recurrent, takes_any_mask, takes_positions
from tinylora.errors import RequestError
from tinylora.models import check_context, evaluation_mode
from tinylora.policy import Policy, adapter_of
from tinylora.rollout.engine import Completion, Sampling
from tinylora.rollout.past import Buffers, check_past, past_of

MAX_CACHE_TOKENS = 2**17  # rows times length


class TransformersEngine:
    """Samples from `policy.model` inside `policy.rollout()`.

    Args:
        policy: whose model answers.
        autocast: compute in this type (torch.bfloat16); None: in the model's own. Then the policy
            is not folded, because the cast would round folded weights.
        max_cache_tokens: rows times length whose keys and values are held at once; more prompts
            than fit are served in turn.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        autocast: torch.dtype | None = None,
        max_cache_tokens: int = MAX_CACHE_TOKENS,
    ) -> None:
        check_past(policy.model)
        self.policy = policy
        self.previous = None  # it samples from the policy itself
        self.autocast = autocast
        self.max_cache_tokens = max_cache_tokens

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[list[int]],
        num_samples: int,
        sampling: Sampling,
        seed: int,
        places: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """`num_samples` completions of each prompt; the same seed gives the same ones.

        Raises:
            RequestError: a prompt is empty, or prompt and budget pass the model's context.
        """
        self._check_lengths(prompts, sampling)
        shape = (num_samples, sampling.max_new_tokens)
        noise_P_G_T = noise_of_places(places or range(len(prompts)), shape, seed)
        answers: dict[int, list[Completion]] = {}
        with self._policy(), evaluation_mode(self.policy.model):
            for chunk in self._chunks(prompts, num_samples, sampling):
                chosen = [prompts[i] for i in chunk]
                batch = _Batch(self.policy.model, chosen, num_samples, sampling)
                completions = batch.run(noise_P_G_T[chunk].flatten(0, 1))
                for k, i in enumerate(chunk):
                    answers[i] = completions[k * num_samples : (k + 1) * num_samples]
        return [answers[i] for i in range(len(prompts))]

    @torch.no_grad()
    def generate_population(
        self,
        prompts: Sequence[list[int]],
        candidates: Tensor,
        sampling: Sampling,
        seed: int,
        places: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """A completion of each prompt by each candidate, all in one batch (P by C).

        Candidates share the randomness of a prompt, so that they differ by what they are alone.

        Args:
            candidates: values of an adapter, (C, num_groups, u).

        Raises:
            RequestError: as `generate`, or the policy has no adapter that runs by row.
        """
        self._check_lengths(prompts, sampling)
        adapter, count = adapter_of(self.policy, "A population"), len(candidates)
        repeated = [prompt for prompt in prompts for _ in range(count)]
        shape = (sampling.max_new_tokens,)
        noise_P_T = noise_of_places(places or range(len(prompts)), shape, seed)
        answers: dict[int, Completion] = {}
        with evaluation_mode(self.policy.model):
            for chunk in self._chunks(repeated, 1, sampling):
                rows = torch.tensor(chunk)
                with adapter.per_row(candidates[rows % count].to(adapter.v)) as select:
                    chosen = [repeated[i] for i in chunk]
                    batch = _Batch(self.policy.model, chosen, 1, sampling, select)
                    completions = batch.run(noise_P_T[rows // count])
                answers |= zip(chunk, completions, strict=True)
        ordered = [answers[i] for i in range(len(repeated))]
        return [ordered[i : i + count] for i in range(0, len(ordered), count)]

    def _policy(self) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return self.policy.rollout()
        return torch.autocast(self.policy.model.device.type, dtype=self.autocast)

    def _chunks(
        self, prompts: Sequence[list[int]], num_samples: int, sampling: Sampling
    ) -> Iterator[list[int]]:
        """Places of prompts that are served together: near in length, within the cache budget.

        They are of one length where padding would go into the model's states.
        """
        places = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        while places:
            longest = len(prompts[places[0]])
            count = max(
                1, self.max_cache_tokens // ((longest + sampling.max_new_tokens) * num_samples)
            )
            if is_recurrent(self.policy.model):
                count = min(count, sum(len(prompts[i]) == longest for i in places))
            yield places[:count]
            places = places[count:]

    def _check_lengths(self, prompts: Sequence[list[int]], sampling: Sampling) -> None:
        if any(not prompt for prompt in prompts):
            raise RequestError("A prompt has 0 tokens, so there is nothing to continue.")
        check_context(self.policy.model, prompts, sampling.max_new_tokens)


Select = Callable[[Tensor], None]


@dataclass
class _Rows:
    """The samples still being written; `index` says which of all samples a row is."""

    index: Tensor  # (rows,)
    next_position: Tensor  # (rows,)
    padding: Tensor | None  # (rows, ..., capacity), as `_Batch._padding` makes it

    def select(self, rows: Tensor) -> "_Rows":
        padding = None if self.padding is None else self.padding[rows]
        return _Rows(self.index[rows], self.next_position[rows], padding)


class _Batch:
    """Some prompts, all their samples, from the first token to the last."""

    def __init__(
        self,
        model: Any,
        prompts: list[list[int]],
        num_samples: int,
        sampling: Sampling,
        select: Select | None = None,
    ) -> None:
        self.model, self.prompts, self.sampling = model, prompts, sampling
        self.select = select  # told which samples are left, where rows run adapters of their own
        self.num_samples = num_samples
        self.device = model.device
        self.longest = self.length = max(len(prompt) for prompt in prompts)
        self.capacity = self.longest + sampling.max_new_tokens
        self.past = past_of(model)
        self.takes_positions = takes_positions(model)
        self.eos = torch.tensor(sampling.eos_token_ids, dtype=torch.long, device=self.device)

    def run(self, noise_B_T: Tensor) -> list[Completion]:
        """Every completion, in the order prompt by prompt."""
        budget = self.sampling.max_new_tokens
        noise_B_T = noise_B_T.to(self.device)
        tokens_B_T = torch.zeros(len(noise_B_T), budget, dtype=torch.long, device=self.device)
        logprobs_B_T = torch.zeros(len(noise_B_T), budget, device=self.device)
        lengths_B = torch.full((len(noise_B_T),), budget, device=self.device)
        logits, rows = self._read_prompts()
        for t in range(budget):
            tokens, logprobs = draw(logits, noise_B_T[rows.index, t], self.sampling.temperature)
            tokens_B_T[rows.index, t] = tokens
            logprobs_B_T[rows.index, t] = logprobs
            is_end = torch.isin(tokens, self.eos)
            lengths_B[rows.index[is_end]] = t + 1
            tokens, rows = self._drop(is_end, tokens, rows)
            if not len(tokens) or t + 1 == budget:
                break
            logits = self._forward(tokens, rows)
        return self._completions(tokens_B_T, logprobs_B_T, lengths_B)

    def _read_prompts(self) -> tuple[Tensor, _Rows]:
        """Prefill: each prompt once, padded on the left; then as many rows as samples."""
        lengths = torch.tensor([len(prompt) for prompt in self.prompts], device=self.device)
        padded = [[0] * (self.longest - len(prompt)) + prompt for prompt in self.prompts]
        is_token = torch.arange(self.longest, device=self.device) >= self.longest - lengths[:, None]
        has_padding = not bool(is_token.all())
        places = {}
        if has_padding:
            positions = (is_token.long().cumsum(1) - 1).clamp(min=0)
            places = {"attention_mask": is_token.long(), "position_ids": positions}
        output = self._call(torch.tensor(padded, device=self.device), **places, logits_to_keep=1)
        self.past.expand(self.num_samples, self.capacity)
        copies = torch.arange(len(lengths), device=self.device).repeat_interleave(self.num_samples)
        rows = _Rows(
            index=torch.arange(len(copies), device=self.device),
            next_position=lengths[copies],
            padding=self._padding(is_token)[copies] if has_padding else None,
        )
        return output.logits[:, -1][copies], rows

    def _padding(self, is_token: Tensor) -> Tensor:
        """What hides the padding: added to the scores, or a mask of tokens (True: seen) where
        windows slide, or the attention (a flash kernel, the model's own) takes no other.

        The first spares Transformers the making of a mask at every token; it has no windows.
        """
        is_flash = "flash" in str(self.model.config._attn_implementation)
        if has_window(self.model) or is_flash or not takes_any_mask(self.model):
            return torch.nn.functional.pad(is_token, (0, self.sampling.max_new_tokens), value=True)
        assert isinstance(self.past, Buffers)  # nothing else is padded
        dtype = self.past.layers[0].keys.dtype
        padding = torch.zeros(len(is_token), 1, 1, self.capacity, dtype=dtype, device=self.device)
        padding[:, 0, 0, : self.longest].masked_fill_(~is_token, torch.finfo(dtype).min)
        return padding

    def _forward(self, tokens: Tensor, rows: _Rows) -> Tensor:
        """Logits after one more token in each row."""
        self.length += 1
        places = {}
        if rows.padding is not None:
            places["attention_mask"] = rows.padding[..., : self.length]
        if self.takes_positions:
            places["position_ids"] = rows.next_position[:, None]
        output = self._call(tokens[:, None], **places)
        rows.next_position += 1
        logits: Tensor = output.logits[:, -1]  # (rows, vocabulary)
        return logits

    def _call(self, input_ids: Tensor, **places: Any) -> Any:
        """A forward pass that goes on from the past, and adds to it."""
        output = self.model(input_ids=input_ids, use_cache=True, **self.past.given(), **places)
        self.past.keep(output)
        return output

    def _drop(self, is_end: Tensor, tokens: Tensor, rows: _Rows) -> tuple[Tensor, _Rows]:
        """Fill the places of finished rows with rows from the end, and cut the end off.

        Only as many rows are copied as have finished; their order is no matter, `index` knows it.
        """
        num_left = len(tokens) - int(is_end.sum())
        if num_left == len(tokens):
            return tokens, rows
        target = is_end[:num_left].nonzero().squeeze(1)
        source = num_left + (~is_end[num_left:]).nonzero().squeeze(1)
        self.past.move(source, target, num_left)
        order = torch.arange(num_left, device=self.device)
        order[target] = source
        rows = rows.select(order)
        if self.select is not None:
            self.select(rows.index)
        return tokens[order], rows

    def _completions(
        self, tokens_B_T: Tensor, logprobs_B_T: Tensor, lengths_B: Tensor
    ) -> list[Completion]:
        tokens, logprobs = tokens_B_T.tolist(), logprobs_B_T.tolist()
        ends = set(self.sampling.eos_token_ids)
        return [
            Completion(ids[:n], values[:n], truncated=ids[n - 1] not in ends)
            for ids, values, n in zip(tokens, logprobs, lengths_B.tolist(), strict=True)
        ]


def draw(logits: Tensor, noise: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """One token for each row, and its log-probability under the distribution it came from.

    Args:
        logits: (rows, vocabulary), any float type.
        noise: (rows,) float64 in [0, 1), the place on the cumulative distribution.
        temperature: 0 takes the likeliest token (and gives log-probabilities at 1).

    Returns:
        tokens (rows,) and log-probabilities (rows,) in fp32.
    """
    logprobs = torch.log_softmax(logits.float() / (temperature or 1.0), dim=-1)
    if temperature == 0:
        tokens = logits.argmax(-1)
    else:
        cumulative = logprobs.exp().cumsum(-1, dtype=torch.float64)
        target = noise[:, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, target, right=True).squeeze(1)
        tokens = tokens.clamp(max=logits.shape[-1] - 1)
    return tokens, logprobs.gather(-1, tokens[:, None]).squeeze(1)


def noise_of_places(places: Sequence[int], shape: tuple[int, ...], seed: int) -> Tensor:
    """(places, *shape): what the prompts at these places draw, whichever others are drawn here."""
    return uniform_noise((max(places) + 1, *shape), seed)[list(places)]


def uniform_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Uniform numbers in float64 from a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)
