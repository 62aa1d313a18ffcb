"""How much memory runs take: estimated for known shapes, and measured against the estimate here.

    python benchmarks/memory.py           # the table of docs/scale.md, as --dry-run computes it
    python benchmarks/memory.py --check   # one step of real runs on this CPU, and their peak memory

The shapes are Qwen2.5's, as folders that hold a config.json and pocket's tokenizer, no weights: so
`tinylora train --dry-run --model FOLDER` prints the same. Prompts of 256 tokens at most,
completions of 1,024, the paper's 13 numbers, micro-batches of 16,384 tokens (a GPU's default),
every other setting its default.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from transformers import Qwen2Config, Qwen2ForCausalLM

from tinylora import TrainConfig
from tinylora.adapter.modules import linear_maps
from tinylora.models import load_skeleton
from tinylora.pocket import model_folder
from tinylora.run.memory import Memory, estimate

SHAPES = {  # blocks, hidden, MLP, heads, key-value heads, tied embeddings
    "0.5B": (24, 896, 4864, 14, 2, True),
    "1.5B": (28, 1536, 8960, 12, 2, True),
    "3B": (36, 2048, 11008, 16, 2, True),
    "7B": (28, 3584, 18944, 28, 4, False),
    "14B": (48, 5120, 13824, 40, 8, False),
    "32B": (64, 5120, 27648, 40, 8, False),
    "72B": (80, 8192, 29568, 64, 8, False),
}
VOCABULARY = {True: 151936, False: 152064}
LONGEST, BUDGET = 256, 1024
GIB = 2**30
CHECKED = {  # settings of a run that are measured, by name
    "fp32": {},
    "fp32, checkpointing": {"activation_checkpointing": True},
    "fp32, last block": {"layers": "3-3"},
    "fp32, micro-batch of 6,144": {"micro_batch_tokens": 6144},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure_one(*options.one.split("|"))
    elif options.check:
        check()
    else:
        table()


def table() -> None:
    """Estimates by size and precision, in GiB."""
    print("| size | bf16 weights | nf4 weights | learning | with checkpointing | rollouts ", end="")
    print("| peak, bf16 | nf4, checkpointing | bf16, fsdp on 8 |\n|---|" + "---:|" * 8)
    with tempfile.TemporaryDirectory() as room:
        for size, sizes in SHAPES.items():
            folder = make_folder(Path(room) / size, *sizes)
            plain, again = (estimated(folder, activation_checkpointing=on) for on in (False, True))
            coded = estimated(folder, quantize="nf4", activation_checkpointing=True)
            split = estimated(folder, fsdp=True, activation_checkpointing=True)
            # Two blocks are whole at a time: the one that runs, and the next.
            part = split.blocks / 8 + 2 * split.blocks / sizes[0]
            cells = [
                *(plain.weights, coded.weights, plain.learning, again.learning, plain.rollouts),
                *(plain.peak, coded.peak, split.peak - split.blocks + part),
            ]
            print(f"| {size} |" + "".join(f" {cell / GIB:.3g} |" for cell in cells), flush=True)


def make_folder(
    folder: Path,
    blocks: int,
    hidden: int,
    mlp: int,
    heads: int,
    kv_heads: int,
    is_tied: bool,
    vocabulary: int | None = None,
) -> Path:
    """A config and a tokenizer, as far as shapes need one."""
    Qwen2Config(
        vocab_size=vocabulary or VOCABULARY[is_tied],
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=32768,
        tie_word_embeddings=is_tied,
        architectures=["Qwen2ForCausalLM"],
    ).save_pretrained(folder)
    for path in model_folder().glob("tokenizer*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def estimated(folder: Path, **settings: object) -> Memory:
    """What `--dry-run` says of a GPU's run."""
    config = TrainConfig(
        **{"dtype": "bf16", "device": "cpu", "micro_batch_tokens": 16384, **settings}
    )
    model = load_skeleton(str(folder))
    maps = linear_maps(model, config.adapter.targets, config.adapter.layers)
    return estimate(model, maps, config, config.adapter.u, LONGEST, BUDGET)


def check() -> None:
    """Runs of one step in processes of their own: what they took above an idle one, and estimates.

    The model: 4 blocks of hidden 512 and MLP 2048, 32,768 tokens (random weights, fp32).
    """
    with tempfile.TemporaryDirectory() as room:
        folder = make_folder(Path(room) / "model", 4, 512, 2048, 8, 4, True, 32768)
        Qwen2ForCausalLM(Qwen2Config.from_pretrained(folder)).save_pretrained(folder)
        print("| run | estimated, GiB | measured | measured / estimated |\n|---|---:|---:|---:|")
        for name in CHECKED:
            command = [sys.executable, __file__, "--one", f"{folder}|{room}/{name}|{name}"]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            print(ran.stdout.splitlines()[-1] if not ran.returncode else ran.stderr, flush=True)


def measure_one(folder: str, output: str, name: str) -> None:
    """One step of a run, in this process."""
    from tinylora import train
    from tinylora.models import load_tokenizer
    from tinylora.prompts import encode_problem
    from tinylora.tasks import load_task

    settings = dict(CHECKED[name])
    layers = settings.pop("layers", "all")
    config = TrainConfig(
        model=folder,
        steps=1,
        output=output,
        dtype="fp32",
        device="cpu",
        prompts_per_step=8,
        samples_per_prompt=4,
        max_new_tokens=64,
        eval_problems=4,
        eval_samples=2,
        adapter={"layers": layers, "basis": "random"},
        **settings,
    )
    tokenizer, task = load_tokenizer(folder), load_task("pocket", config)
    longest = max(len(encode_problem(tokenizer, p)) for p in [*task.test[:4], *task.train[:8]])
    model = load_skeleton(folder)
    maps = linear_maps(model, config.adapter.targets, config.adapter.layers)
    memory = estimate(model, maps, config, config.adapter.u, longest, 64)
    before = peak_bytes()
    train(config, reward=alternating)
    taken = peak_bytes() - before
    print(f"| {name} | {memory.peak / GIB:.2f} | {taken / GIB:.2f} | {taken / memory.peak:.2f} |")


def alternating(completions: list[str], **columns: object) -> list[float]:
    """A reward that has variance in every group."""
    return [float(place % 2) for place, _ in enumerate(completions)]


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
