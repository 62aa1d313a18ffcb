"""Streaming draws what the engine draws, and its pieces are the text."""

from pathlib import Path

import pytest

from tinylora.errors import RequestError
from tinylora.models import load_model
from tinylora.policy import UntrainedPolicy
from tinylora.rollout.engine import Sampling
from tinylora.rollout.streaming import pieces, stream
from tinylora.rollout.transformers import TransformersEngine


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_it_draws_what_the_engine_draws(temperature: float, tiny_folder: Path) -> None:
    base = load_model(str(tiny_folder), device="cpu")
    engine = TransformersEngine(UntrainedPolicy(base.model))
    sampling = Sampling(temperature, 24, base.eos_token_ids)
    answers = set()
    for seed in range(4):
        ((completion,),) = engine.generate([[2, 7, 5]], 1, sampling, seed)
        assert list(stream(base.model, [2, 7, 5], sampling, seed)) == completion.token_ids
        answers.add(tuple(completion.token_ids))
    assert len(answers) == (1 if temperature == 0 else 4)


def test_what_does_not_fit_is_refused(tiny_folder: Path) -> None:
    model = load_model(str(tiny_folder), device="cpu").model
    with pytest.raises(RequestError, match="the model's context ends at 64 tokens"):
        list(stream(model, [2] * 60, Sampling(0.0, 24, ()), 0))
    with pytest.raises(RequestError, match="0 tokens, so there is nothing to continue"):
        list(stream(model, [], Sampling(0.0, 24, ()), 0))


def test_a_character_of_several_tokens_comes_whole() -> None:
    data = "5 ≤ é".encode()

    def decode(token_ids: list[int]) -> str:
        return bytes(token_ids).decode(errors="replace")

    assert list(pieces(data, decode)) == ["5", " ", "≤", " ", "é"]
    assert list(pieces(data[:-1], decode)) == ["5", " ", "≤", " ", "\ufffd"]  # cut off within it
    assert list(pieces([], decode)) == []
