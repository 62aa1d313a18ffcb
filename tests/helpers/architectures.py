"""What works on one architecture: the commands, one after the other, on a tiny random model."""

import contextlib
import io
import shutil
import string
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import tinylora
from helpers.decoders import decoder_of
from tinylora.adapter.modules import linear_maps
from tinylora.cli import main
from tinylora.run.module_tables import block_weights

COLUMNS = (
    "share", "dry run", "inspect", "rollout", "training", "file", "PEFT LoRA", "merged", "GGUF",
)  # fmt: skip
CLOSE = 2e-3  # of two logits, or log-probabilities
TASK = """
from tinylora import Problem, Task, Verdict

def make():
    problems = [Problem(f"w{i} w{3 * i % 37 + 3} w7" + " w9" * (i % 3), "w5") for i in range(3, 15)]
    return Task("words", problems[:8], problems[8:], grade, 8)

def grade(gold, completion):
    return Verdict(len(completion) % 7 / 7)
"""
TRAIN = (
    "--steps=2", "--prompts-per-step=2", "--samples-per-prompt=4", "--eval-problems=2",
    "--eval-samples=1", "--learning-rate=0.05", "--chat-template=off",
)  # fmt: skip


@dataclass
class Findings:
    """A cell for each column: `ok`, a number, or the sentence of a refusal."""

    cells: dict[str, str] = field(default_factory=dict)

    def is_ok(self, column: str) -> bool:
        return self.cells.get(column) == "ok"


def model_folder(name: str, folder: Path) -> Path:
    """The tiny model and a tokenizer of as many words, saved."""
    decoder_of(name).save_pretrained(folder)
    letters = [*"grpow", *string.digits, "\u0120"]  # the last: a space; the rest of the vocabulary
    # is room for what a tokenizer of the model's own class adds
    words = {token: i for i, token in enumerate(["<pad>", "<start>", "<end>", *letters])}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>"
    ).save_pretrained(folder)
    return folder


def probe(name: str, folder: Path) -> Findings:
    """Every column of one architecture; a traceback is not caught."""
    model, run, found = str(model_folder(name, folder / "model")), folder / "run", Findings()
    (folder / "words.py").write_text(TASK, encoding="utf-8")
    given = (f"--model={model}", f"--task={folder / 'words.py'}:make", *TRAIN, f"--output={run}")
    found.cells["dry run"] = command("train", *given, "--dry-run")
    found.cells["inspect"] = command("inspect", model)
    found.cells["training"] = command("train", *given)
    if not found.is_ok("training"):
        return found
    model_here = load(model)
    ids = torch.tensor([[3, 9, 12, 4, 30, 7, 7, 21, 5, 16]])
    base = logits(model_here, ids)
    adapter = tinylora.load(model_here, str(run))
    with torch.no_grad():
        adapter.v.add_(0.5)  # so that the differences below would be seen
    adapter.save(run / "adapter.safetensors")
    ours = logits(model_here, ids)
    assert (ours - base).abs().max() > 10 * CLOSE
    share = sum(m.d_out * m.d_in for m in linear_maps(model_here, adapter.config.targets))
    found.cells["share"] = f"{share / sum(block_weights(model_here).values()):.0%}"
    found.cells["rollout"] = rollout(adapter)
    tinylora.load(again := load(model), str(run))
    found.cells["file"] = compared(logits(again, ids), ours)
    found.cells["PEFT LoRA"] = exported("lora", run, lambda out: in_peft(model, out, ids), ours)
    found.cells["merged"] = exported("merged", run, lambda out: logits(load(out), ids), ours)
    found.cells["GGUF"] = command("export", str(run), "--to=gguf", f"--out={folder / 'gguf'}")
    return found


def command(*argv: str) -> str:
    """`ok`, or the sentence with which a command line is refused."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = main(argv)
    return "ok" if status == 0 else said.getvalue().strip().splitlines()[-1]


def exported(to: str, run: Path, read: Callable[[Path], Tensor], wanted: Tensor) -> str:
    """`ok` where what is exported answers as the adapter does."""
    out = run.with_name(to)
    status = command("export", str(run), f"--to={to}", f"--out={out}")
    if status != "ok":
        return status
    try:
        return compared(read(out), wanted)
    finally:
        shutil.rmtree(out)


def rollout(adapter: Any) -> str:
    """The engine's log-probabilities against those of a plain forward pass."""

    from tinylora.rollout.engine import Sampling
    from tinylora.rollout.transformers import TransformersEngine

    prompts = [
        [5, 9, 3, 8, 7, 7, 6],
        [4, 4, 8, 30, 12, 2, 33, 21, 6, 9, 11],
        [11, 3, 4],
        [12, 3, 4],
    ]
    engine = TransformersEngine(adapter)
    answers = engine.generate(prompts, 3, Sampling(1.0, 14, (2,)), seed=0)
    found, wanted = [], []
    for prompt, row in zip(prompts, answers, strict=True):
        for completion in row:
            ids = torch.tensor([prompt + completion.token_ids])
            all_T = logits(adapter.model, ids)[0, len(prompt) - 1 : -1].log_softmax(-1)
            wanted.append(all_T.gather(-1, ids[0, len(prompt) :, None]).squeeze(-1))
            found.append(torch.tensor(completion.logprobs))
    return compared(torch.cat(found), torch.cat(wanted))


def compared(found: Tensor, wanted: Tensor) -> str:
    difference = float((found - wanted).abs().max())
    return "ok" if difference < CLOSE else f"differs by {difference:.2g}"


def load(folder: str | Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def in_peft(model: str, folder: Path, ids: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return logits(peft.PeftModel.from_pretrained(load(model), str(folder)).eval(), ids)


@torch.no_grad()
def logits(model: Any, ids: Tensor) -> Tensor:
    return model(input_ids=ids, use_cache=False).logits.float()


MAMBA_IN_PEFT = "is incompatible with Mamba-based models"  # PEFT's own word on out_proj
NO_CACHE = "keeps its past in a form of its own"
EXPECTED: dict[str, dict[str, str]] = {  # what is refused, and a part of the sentence
    "falcon_mamba": {"PEFT LoRA": MAMBA_IN_PEFT},
    "mamba": {"PEFT LoRA": MAMBA_IN_PEFT},
    "mamba2": {"PEFT LoRA": MAMBA_IN_PEFT},
    "nemotron_h": {"PEFT LoRA": MAMBA_IN_PEFT},
    "recurrent_gemma": {"training": NO_CACHE},
    "rwkv": {"training": NO_CACHE, "dry run": NO_CACHE},
    "zamba2": {"merged": "it is tied to another module"},
}
