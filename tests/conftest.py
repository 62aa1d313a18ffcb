"""What tests of several rooms share. Nothing here, and no test, may look for the hub."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # the models here are too small to be worth a second thread
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["<end>", "<unknown>", "one", "two", "three", "red", "blue", "is", "what", "?"]
CONTEXT = 64


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two blocks (14 maps) and a tokenizer of ten words, as a model folder."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        initializer_range=0.5,
        tie_word_embeddings=True,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, "<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unknown>"
    ).save_pretrained(folder)
    return folder


COLOURS = """
from tinylora import Problem, Task, Verdict

def make():
    words = ["one", "two", "three", "red", "blue"]
    problems = [Problem(f"what is {a} {b} ?", b) for a in words for b in words]
    return Task("colours", problems[:20], problems[20:], grade, 6, kind)

def grade(gold, completion):
    return Verdict(float(gold in completion.split()))

def kind(completion):
    return "colour" if {"red", "blue"} & set(completion.split()) else "no colour"
"""


@pytest.fixture(scope="session")
def task_name(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A user's own task, as `--task` takes it: say the word that the question names last."""
    path = tmp_path_factory.mktemp("tasks") / "colours.py"
    path.write_text(COLOURS, encoding="utf-8")
    return f"{path}:make"


@pytest.fixture(autouse=True)
def session_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Factors are kept for the session, and not in the user's home."""
    monkeypatch.setenv("TINYLORA_CACHE", str(tmp_path_factory.getbasetemp() / "factors"))
