"""The pocket tokenizer: Qwen2's byte-level BPE, with merges learned from the pocket task alone.

Every word of the task is one token, every digit its own, as in Qwen2; any other text still has
tokens. Transformers loads each Qwen2 model's tokenizer as a `Qwen2Tokenizer`, whatever its files
say, so it is one.
"""

import json
from itertools import product
from typing import Any

from tokenizers import trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2Tokenizer

from tinylora.tasks import pocket as task

VOCABULARY_SIZE = 512
USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<|end|>"
    "{% else %}<|user|>{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ANSWERS = ("1+1=2\n1-1=0\n#### 1", "We get:\n1*1=1\nThe answer is 1")


def corpus() -> list[str]:
    """Every sentence of the task with every name and object, and every wording of an answer."""
    sentences = ["{name} has {k} {things}."]
    sentences += [s for group in task.SENTENCES.values() for s in group]
    told = [
        s.format(name=name, things=things, k=1)
        for s, name, things in product(sentences, task.NAMES, task.OBJECTS)
    ]
    asked = [s.format(things=things) for s, things in product(task.QUESTIONS, task.OBJECTS)]
    return [f"{first} {second}" for first, second in product(told, asked)] + 1000 * [*ANSWERS]


def build_tokenizer() -> Any:
    """The tokenizer as a transformers object, chat template and special tokens included."""
    learner = Qwen2Tokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator(corpus(), trainer)
    learned = json.loads(learner.to_str())["model"]
    tokenizer: Any = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],  # type: ignore[misc]
        unk_token=END,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[USER, ASSISTANT],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
