"""Models as they are: real chat templates on tiny models, several ends, and no template at all.

The templates are those of the models' own repositories, as TRL ships them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from tinylora.evaluate.exam import Exam
from tinylora.models import Base, load_model
from tinylora.policy import UntrainedPolicy
from tinylora.prompts import text_of
from tinylora.rewards.verdict import Verdict
from tinylora.rollout.transformers import TransformersEngine
from tinylora.settings import TaskConfig
from tinylora.tasks import Problem, Task

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
SYSTEM = "Reason, and box the answer."
ASKED = Problem("1+1?", "2", system=SYSTEM)
BARE = Problem("1+1?", "2")
SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
}
HEADERS = ("<|start_header_id|>", "<|end_header_id|>")
KINDS = {  # name -> (config, special tokens: the ends of an answer first, begins with a BOS?)
    "qwen2_5": (Qwen2Config, ("<|im_end|>", "<|endoftext|>", "<|im_start|>"), False),
    "qwen3": (Qwen3Config, ("<|im_end|>", "<|endoftext|>", "<|im_start|>"), False),
    "llama3_2": (
        LlamaConfig,
        ("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "<|begin_of_text|>", *HEADERS),
        True,
    ),
}
Make = Callable[..., Base]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A tiny model with a tokenizer of bytes, saved and loaded as any other."""

    def made(kind: str, template: str | None = "", num_ends: int = 2) -> Base:
        config_class, special, has_bos = KINDS[kind]
        tokenizer = byte_tokenizer(special, has_bos)
        if template is not None:
            text = template or (TEMPLATES / f"{kind}.jinja").read_text(encoding="utf-8")
            tokenizer.chat_template = text
        ends = tokenizer.convert_tokens_to_ids(list(special[:num_ends]))
        config = config_class(
            vocab_size=len(tokenizer), eos_token_id=ends, pad_token_id=ends[0], **SHAPE
        )
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
        return load_model(str(tmp_path), device="cpu")

    return made


def byte_tokenizer(special: tuple[str, ...], has_bos: bool) -> PreTrainedTokenizerFast:
    """Bytes and special tokens; with a BOS, the tokenizer puts it before every text, as Llama's."""
    tokenizer = Tokenizer(models.BPE({byte: i for i, byte in enumerate(BYTES)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    bos = "<|begin_of_text|>" if has_bos else None
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=special[0],
        bos_token=bos,
        additional_special_tokens=list(special[1:]),
    )
    if bos is not None:
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, made.bos_token_id)]
        )
    return made


def asked(base: Base, problem: Problem, **settings: Any) -> str:
    """What the model reads, special tokens written out."""
    ids = text_of(base, TaskConfig(**settings)).encode(problem)
    return "".join(base.tokenizer.convert_ids_to_tokens(ids)).replace("Ġ", " ").replace("Ċ", "\n")


def test_qwen25_brings_its_own_system_turn_unless_the_task_has_one(make: Make) -> None:
    base = make("qwen2_5")
    turn = "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    assert asked(base, ASKED) == f"<|im_start|>system\n{SYSTEM}<|im_end|>\n{turn}"
    assert asked(base, BARE) == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        f"<|im_end|>\n{turn}"
    )


def test_qwen3_thinks_unless_it_is_told_not_to(make: Make) -> None:
    base = make("qwen3")
    opened = "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    assert asked(base, BARE) == asked(base, BARE, enable_thinking=True) == opened
    assert asked(base, BARE, enable_thinking=False) == f"{opened}<think>\n\n</think>\n\n"


def test_llama3_begins_once_and_its_date_stands_still(make: Make) -> None:
    base = make("llama3_2", num_ends=3)
    assert asked(base, ASKED) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
        f"{SYSTEM}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n1+1?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


@pytest.mark.parametrize(("kind", "num_ends"), [("qwen2_5", 2), ("qwen3", 2), ("llama3_2", 3)])
def test_every_end_of_an_answer_ends_it(make: Make, kind: str, num_ends: int) -> None:
    """The answer is forced: three letters, then the model's last kind of end."""
    base = make(kind, num_ends=num_ends)
    ends = base.tokenizer.convert_tokens_to_ids(list(KINDS[kind][1][:num_ends]))
    assert sorted(base.eos_token_ids) == sorted(ends)
    forced = [*base.tokenizer("abc", add_special_tokens=False)["input_ids"], ends[-1]]
    say(base, forced)
    task = Task("one", [], [ASKED], lambda gold, text: Verdict(1.0), max_new_tokens=8)
    engine = TransformersEngine(UntrainedPolicy(base.model))
    (record,) = Exam(task, text_of(base), task.test).greedy(engine).records
    assert (record.completion, record.truncated) == ("abc", False)


def say(base: Base, forced: list[int]) -> None:
    """Make the model say these tokens, whatever it reads."""
    step = iter(forced)

    def push(module: Any, inputs: Any, logits: Any) -> Any:
        logits = logits * 0
        logits[..., next(step)] = 1
        return logits

    base.model.lm_head.register_forward_hook(push)


def test_a_base_model_reads_plain_text_and_begins_once(make: Make) -> None:
    base = make("llama3_2", template=None)
    assert asked(base, BARE) == "<|begin_of_text|>1+1?"
    assert asked(base, ASKED) == f"<|begin_of_text|>{SYSTEM}\n\n1+1?"
    plain = Problem("1+1?", "2", system=SYSTEM, plain="Question: 1+1?\nAnswer:")
    assert asked(base, plain) == "<|begin_of_text|>Question: 1+1?\nAnswer:"


def test_a_template_can_be_turned_off(make: Make) -> None:
    assert asked(make("qwen2_5"), BARE, chat_template="off") == "1+1?"


def test_a_template_without_a_system_turn_gets_it_before_the_prompt(make: Make) -> None:
    gemma = (TEMPLATES / "gemma.jinja").read_text(encoding="utf-8")
    base = make("qwen2_5", template=gemma)
    assert f"{SYSTEM}\n\n1+1?" in asked(base, ASKED)
