"""The engine against `model.generate`, and what batching must not change."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from helpers.decoders import decoder_of
from helpers.standins import END, VOCABULARY, SteeringPolicy, tiny_model
from tinylora.adapter import attach
from tinylora.errors import RequestError
from tinylora.rollout.engine import Completion, Sampling
from tinylora.rollout.transformers import TransformersEngine, draw
from tinylora.settings import AdapterConfig

PROMPTS = [[5, 9, 3], [7], [4, 4, 8, 30, 12, 2, 9], [11, 13, 17, 19], [2, 40]]
GREEDY = Sampling(temperature=0.0, max_new_tokens=20, eos_token_ids=(END, 6))
SAMPLED = Sampling(temperature=1.0, max_new_tokens=20, eos_token_ids=(END, 6))


def gpt2() -> Any:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=128,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=END,
    )
    return GPT2LMHeadModel(config).eval().requires_grad_(False)


def engine_of(model: Any, **settings: Any) -> TransformersEngine:
    policy: Any = SimpleNamespace(model=model, rollout=nullcontext)
    return TransformersEngine(policy, **settings)


def likely_ends(model: Any) -> Any:
    """Make an end likely enough that rows finish at different times."""
    with torch.no_grad():
        bias = torch.zeros(VOCABULARY)
        bias[END] = bias[6] = 3.0
        model.lm_head.bias = torch.nn.Parameter(bias, requires_grad=False)
    return model


def generate_by_transformers(model: Any, sampling: Sampling) -> list[list[int]]:
    longest = max(map(len, PROMPTS))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in PROMPTS])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in PROMPTS])
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=list(sampling.eos_token_ids),
        pad_token_id=0,
    )
    answers = []
    for row in output[:, longest:].tolist():
        ends = [i for i, token in enumerate(row) if token in sampling.eos_token_ids]
        answers.append(row[: ends[0] + 1] if ends else row)
    return answers


@pytest.mark.parametrize(
    "make",
    [
        tiny_model,
        lambda: likely_ends(tiny_model()),
        lambda: tiny_model(attn_implementation="eager"),
        lambda: tiny_model(
            use_sliding_window=True, sliding_window=6, layer_types=["sliding_attention"] * 2
        ),
        gpt2,
    ],
    ids=["qwen2", "ends", "eager", "sliding-window", "gpt2"],
)
def test_greedy_equals_generate_token_for_token(make: Any) -> None:
    model = make()
    ours = engine_of(model).generate(PROMPTS, 2, GREEDY, seed=0)
    theirs = generate_by_transformers(model, GREEDY)
    for group, expected in zip(ours, theirs, strict=True):
        assert [c.token_ids for c in group] == [expected, expected]
    assert len({tuple(ids) for ids in theirs}) > 1


def test_rows_end_at_different_lengths_and_each_end_token_ends() -> None:
    model = likely_ends(tiny_model())
    groups = engine_of(model).generate(PROMPTS, 8, SAMPLED, seed=1)
    completions = [completion for group in groups for completion in group]
    assert {c.token_ids[-1] for c in completions if not c.truncated} == {END, 6}
    assert len({len(c.token_ids) for c in completions}) > 4
    for completion in completions:
        assert not {END, 6} & set(completion.token_ids[:-1])
        assert completion.truncated == (completion.token_ids[-1] not in (END, 6))
        assert len(completion.token_ids) == len(completion.logprobs) <= 20
        assert len(completion.token_ids) == 20 or not completion.truncated


def forced_logprobs(
    model: Any, prompt: list[int], completion: Completion, temperature: float
) -> Any:
    ids = torch.tensor([prompt + completion.token_ids])
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1] / temperature
    chosen = torch.tensor(completion.token_ids)[:, None]
    return logits.log_softmax(-1).gather(-1, chosen).squeeze(-1)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_logprobs_are_those_of_the_sampling_distribution(temperature: float) -> None:
    model = likely_ends(tiny_model())
    sampling = Sampling(temperature, 20, (END, 6))
    for prompt, group in zip(
        PROMPTS, engine_of(model).generate(PROMPTS, 3, sampling, seed=2), strict=True
    ):
        for completion in group:
            expected = forced_logprobs(model, prompt, completion, temperature)
            torch.testing.assert_close(
                torch.tensor(completion.logprobs), expected, atol=2e-5, rtol=0
            )


def test_batching_does_not_change_what_is_sampled() -> None:
    model = likely_ends(tiny_model())
    together = engine_of(model).generate(PROMPTS, 4, SAMPLED, seed=3)
    one_by_one = engine_of(model, max_cache_tokens=1).generate(PROMPTS, 4, SAMPLED, seed=3)
    assert [[c.token_ids for c in g] for g in together] == [
        [c.token_ids for c in g] for g in one_by_one
    ]


def test_the_seed_decides_what_is_sampled() -> None:
    engine = engine_of(tiny_model())
    first, again, other = (engine.generate(PROMPTS, 2, SAMPLED, seed=s) for s in (4, 4, 5))
    assert first == again
    assert first != other


def test_samples_follow_the_model_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, -2.0, 0.5, -torch.inf]])
    noise = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens, logprobs = draw(logits.expand(len(noise), -1), noise, temperature=0.5)
    shares = torch.bincount(tokens, minlength=5) / len(noise)
    expected = (logits[0] / 0.5).softmax(-1)
    torch.testing.assert_close(shares, expected, atol=0.01, rtol=0)
    torch.testing.assert_close(logprobs, expected[tokens].log())


def test_the_ends_of_the_noise_draw_possible_tokens() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]] * 2)
    tokens, _ = draw(logits, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64), 1.0)
    assert tokens.tolist() == [1, 3]


def test_the_engine_answers_inside_the_rollout_context() -> None:
    inside: list[bool] = []

    @contextmanager
    def rollout() -> Any:
        inside.append(True)
        yield
        inside.pop()

    model = tiny_model()
    model.model.register_forward_pre_hook(lambda *args: inside[-1] and None)
    policy: Any = SimpleNamespace(model=model, rollout=rollout)
    TransformersEngine(policy).generate(PROMPTS, 1, GREEDY, seed=0)
    assert inside == []


def test_the_current_numbers_answer() -> None:
    policy = SteeringPolicy(tiny_model())
    engine = TransformersEngine(policy)
    before = engine.generate(PROMPTS, 1, GREEDY, seed=0)
    with torch.no_grad():
        policy.v.fill_(1.0)
    assert engine.generate(PROMPTS, 1, GREEDY, seed=0) != before


def test_folded_tinylora_equals_generate_token_for_token() -> None:
    """Folded in the engine, through the hooks in `generate`."""
    model = likely_ends(tiny_model())
    adapter = attach(model, AdapterConfig(u=3, num_groups=1))
    adapter.set_values(torch.full((1, 3), 2.0))
    weight = model.model.layers[0].mlp.down_proj.weight
    before = weight.clone()
    policy = adapter
    ours = TransformersEngine(policy).generate(PROMPTS, 1, GREEDY, seed=0)
    assert torch.equal(weight, before)
    theirs = generate_by_transformers(model, GREEDY)
    assert [group[0].token_ids for group in ours] == theirs
    with policy.reference():
        assert generate_by_transformers(model, GREEDY) != theirs
    assert policy.metrics()["v_norm"] == pytest.approx(2 * 3**0.5)
    assert policy.metrics()["delta_rms"] == pytest.approx(adapter.delta_rms())


def test_bf16_by_autocast_stays_near_fp32() -> None:
    model = tiny_model()
    half = engine_of(model, autocast=torch.bfloat16).generate(PROMPTS, 1, SAMPLED, seed=6)
    for prompt, (completion,) in zip(PROMPTS, half, strict=True):
        expected = forced_logprobs(model, prompt, completion, 1.0)
        error = (torch.tensor(completion.logprobs) - expected).abs()
        assert 0 < error.max() < 0.3


def test_bf16_model_logprobs_are_fp32_numbers() -> None:
    model = tiny_model().to(torch.bfloat16)
    completion = engine_of(model).generate(PROMPTS, 1, SAMPLED, seed=6)[2][0]
    total = torch.tensor(completion.logprobs)
    assert torch.isfinite(total).all()
    assert not torch.equal(total, total.bfloat16().float())


def test_training_mode_is_put_back() -> None:
    model = tiny_model().train()
    engine_of(model).generate(PROMPTS, 1, GREEDY, seed=0)
    assert model.training


def test_a_budget_beyond_the_context_is_refused_with_what_fits() -> None:
    sampling = Sampling(1.0, 128, (END,))
    with pytest.raises(
        RequestError, match=r"context ends at 128 tokens. Use max_new_tokens <= 121"
    ):
        engine_of(tiny_model()).generate(PROMPTS, 1, sampling, seed=0)


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(RequestError, match="0 tokens"):
        engine_of(tiny_model()).generate([[3], []], 1, GREEDY, seed=0)


def own_logprobs(model: Any, prompt: list[int], completion: list[int]) -> torch.Tensor:
    ids = torch.tensor([prompt + completion])
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None]).squeeze(-1)


@pytest.mark.parametrize(
    "kind", ["bamba", "lfm2", "qwen3_next", "mamba2", "llama4_text", "bloom", "falcon-rw-alibi"]
)
def test_logprobs_are_those_of_a_plain_pass_whatever_the_past_is(kind: str) -> None:
    """States, convolutions, chunks, ALiBi: prompts of several lengths, rows that end early."""
    model = decoder_of(kind, vocab_size=VOCABULARY)
    sampling = Sampling(temperature=1.0, max_new_tokens=12, eos_token_ids=(END, 6, 7, 8))
    answers = engine_of(model).generate(PROMPTS, 2, sampling, seed=0)
    assert len({len(c.token_ids) for row in answers for c in row}) > 1
    for prompt, row in zip(PROMPTS, answers, strict=True):
        for completion in row:
            expected = own_logprobs(model, prompt, completion.token_ids)
            given = torch.tensor(completion.logprobs)
            torch.testing.assert_close(given, expected, atol=1e-4, rtol=0)


def test_candidates_run_their_own_v_on_a_hybrid() -> None:
    adapter = attach(
        model := decoder_of("lfm2", vocab_size=VOCABULARY), AdapterConfig(num_groups=1)
    )
    engine = TransformersEngine(adapter)
    candidates = torch.tensor([[[0.0]], [[4.0]]])
    sampling = Sampling(temperature=1.0, max_new_tokens=12, eos_token_ids=(END, 6, 7, 8))
    for prompt, row in zip(
        PROMPTS, engine.generate_population(PROMPTS, candidates, sampling, 0), strict=True
    ):
        for values, completion in zip(candidates, row, strict=True):
            adapter.set_values(values)
            expected = own_logprobs(model, prompt, completion.token_ids)
            given = torch.tensor(completion.logprobs)
            torch.testing.assert_close(given, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["rwkv", "recurrent_gemma"])
def test_a_past_that_cannot_be_kept_is_refused(kind: str) -> None:
    with pytest.raises(RequestError, match="keeps its past in a form of its own"):
        engine_of(decoder_of(kind))


def test_impossible_sampling_is_refused() -> None:
    with pytest.raises(ValueError, match=r"temperature = -1"):
        Sampling(-1.0, 5, (END,))
    with pytest.raises(ValueError, match=r"max_new_tokens = 0"):
        Sampling(1.0, 0, (END,))
