"""Pre-train the pocket model from scratch: `python recipes/pocket/model/pretrain.py --out DIR`.

Next-token loss on the answers of pages (see `pages.py`), AdamW with a cosine rate. What step t
sees is a function of (seed, t) alone, so that a run stopped at any moment and started again with
the same command goes on from its last checkpoint as if nothing had happened.
"""

import argparse
import io
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from pages import draw_page
from tinylora.atomic import write_atomically
from tokenizer import ASSISTANT, END, USER, VOCABULARY_SIZE, build_tokenizer


def build_model(args: argparse.Namespace) -> Any:
    """A randomly initialised Qwen2 of the pocket's shape."""
    end_id = build_tokenizer().eos_token_id
    config = Qwen2Config(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=args.hidden // 64,
        num_key_value_heads=args.hidden // 64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=args.init,
        bos_token_id=None,
        eos_token_id=end_id,
        pad_token_id=end_id,
    )
    torch.manual_seed(args.seed)
    return Qwen2ForCausalLM(config)


def page_text(rng: random.Random, length: int) -> str:
    """One page as the chat template writes it, of `length` tokens or more."""
    # A problem and its answer take at least 20 tokens.
    page = draw_page(rng, length // 20 + 1)
    return "".join(f"{USER}{problem}{ASSISTANT}{answer}{END}" for problem, answer in page)


class Pages:
    """The pre-training text as batches; what step t sees is a function of (seed, t)."""

    def __init__(self, seed: int, batch: int, length: int) -> None:
        self.seed, self.batch, self.length = seed, batch, length
        self.tokenizer = build_tokenizer()

    def tokens(self, step: int) -> Tensor:
        """(batch, length)"""
        rng = random.Random(f"pages {self.seed} {step}")
        texts = [page_text(rng, self.length) for _ in range(self.batch)]
        return torch.tensor([ids[: self.length] for ids in self.tokenizer(texts)["input_ids"]])

    def is_answer(self, tokens: Tensor) -> Tensor:
        """Which tokens stand between an assistant mark and the end of its answer, end included."""
        marks = self.tokenizer.convert_tokens_to_ids([USER, ASSISTANT])
        is_user, is_assistant = (tokens == mark for mark in marks)
        is_open = is_assistant.cumsum(1) == is_user.cumsum(1)
        kept: Tensor = is_open & ~is_assistant
        return kept


def answer_loss(model: Any, tokens: Tensor, is_answer: Tensor) -> Tensor:
    """Mean cross-entropy of the answers' tokens."""
    hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
    keep_mask = is_answer[:, 1:]
    logits = model.lm_head(hidden[keep_mask])  # (num answer tokens, vocabulary)
    return torch.nn.functional.cross_entropy(logits.float(), tokens[:, 1:][keep_mask])


def rate(step: int, args: argparse.Namespace) -> float:
    """Linear warm-up, then a cosine down to a fiftieth of the peak."""
    if step < args.warmup:
        return float(args.rate * (step + 1) / args.warmup)
    progress = (step - args.warmup) / max(1, args.steps - args.warmup)
    return float(args.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))))


class Pretraining:
    """The model, its optimiser and its pages; goes on from the checkpoint in `args.out`."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.model = build_model(args)
        decayed = [p for p in self.model.parameters() if p.ndim == 2]
        plain = [p for p in self.model.parameters() if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": args.weight_decay}, {"params": plain}]
        self.adam = torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.95), weight_decay=0.0)
        self.pages = Pages(args.seed, args.batch, args.length)
        self.checkpoint: Path = args.out / "pretrain.pt"
        self.done = self.load() if self.checkpoint.exists() else 0
        if args.compile:
            self.model.model.compile(dynamic=False)

    def load(self) -> int:
        """Put back the checkpoint; returns how many steps it has behind it."""
        saved = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.adam.load_state_dict(saved["adam"])
        return int(saved["step"])

    def save(self) -> None:
        """Replace the checkpoint, all or nothing, and write the model folder."""
        state = {
            "step": self.done,
            "model": self.model.state_dict(),
            "adam": self.adam.state_dict(),
        }
        data = io.BytesIO()
        torch.save(state, data)
        write_atomically(self.checkpoint, data.getvalue())
        save_model(self.model, self.args.out)

    def step(self) -> float:
        """One optimiser step; returns the loss before it."""
        for group in self.adam.param_groups:
            group["lr"] = rate(self.done, self.args)
        tokens = self.pages.tokens(self.done)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16):
            loss = answer_loss(self.model, tokens, self.pages.is_answer(tokens))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.adam.step()
        self.adam.zero_grad()
        self.done += 1
        return loss.item()


def save_model(model: Any, folder: Path) -> None:
    """Write a model folder in bf16 that AutoModelForCausalLM and AutoTokenizer load."""
    half: Any = Qwen2ForCausalLM(model.config)
    half.to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    half.tie_weights()
    half.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)


def train(args: argparse.Namespace) -> None:
    """Run or go on with one pre-training."""
    torch.set_flush_denormal(True)
    args.out.mkdir(parents=True, exist_ok=True)
    run = Pretraining(args)
    num_parameters = sum(p.numel() for p in run.model.parameters())
    print(f"{num_parameters / 1e6:.2f} M parameters, steps {run.done} to {args.steps}", flush=True)
    losses: list[float] = []
    started = time.monotonic()
    while run.done < args.steps:
        losses.append(run.step())
        is_last = run.done == args.steps
        if run.done % args.log_every == 0 or is_last:
            report(run.done, losses, time.monotonic() - started, args)
            losses.clear()
        if run.done % args.save_every == 0 or is_last:
            run.save()


def report(done: int, losses: list[float], seconds: float, args: argparse.Namespace) -> None:
    """A line to the terminal and to `pretrain.jsonl`; seconds count from this start."""
    record = {
        "step": done,
        "loss": round(sum(losses) / len(losses), 4),
        "tokens": done * args.batch * args.length,
        "seconds": round(seconds, 1),
    }
    print(json.dumps(record), flush=True)
    with (args.out / "pretrain.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(record) + "\n")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; the defaults are the recipe of the packaged model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=24, help="pages a step")
    parser.add_argument("--length", type=int, default=192, help="tokens a page")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--intermediate", type=int, default=384)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--warmup", type=int, default=100, help="steps")
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--init", type=float, default=0.04, help="standard deviation of weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="about 2x on CPU; needs g++")
    parser.add_argument("--bf16", action="store_true", help="autocast, where the CPU has AMX")
    parser.add_argument("--log-every", type=int, default=20, help="steps")
    parser.add_argument("--save-every", type=int, default=200, help="steps")
    return parser.parse_args(argv)


if __name__ == "__main__":
    train(parse())
