"""Wrong settings and small wrong files, drawn by a seed: what people and machines get wrong."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import yaml

from tinylora.settings import FIELDS, TASK_FIELDS

VALUES = (
    "", " ", "0", "-1", "1", "2.5", "1e400", "nan", "inf", "none", "true", "no", "a,b", ",",
    "x" * 3000, "9" * 400, "1_000", "0x10", "1-0", "3-5", "~", "~/nowhere", "/", ".", "..", "a\0b",
    "täßt ☃", "http://", "http://localhost:1", "tl1:", "tl1:AAAA", "rg:", "rg:nothing", "x.py:make",
    ".py:", "a.jsonl", "a/b", "--", "-", "[1, 2]", "{}", "cuda:99", "cpu:7", "meta", "pocket",
    "hash", "grpo",
)  # fmt: skip
UNWANTED = ("recipe", "resume", "dry_run", "output", "track", "model", "task")
JSON_VALUES = (
    None, True, 0, -3, 2.5, 10**30, "", "text", [], ["a", 1], {}, {"a": {"b": 1}}, [[[]]], "\ud800",
)  # fmt: skip
Wrong = tuple[list[str], str]
"""A command line, and what is wrong with it, in case it fails otherwise than with a sentence."""


def wrong_settings(rng: random.Random, places: dict[str, str]) -> Wrong:
    """A verb with one to three options of values that it may not expect."""
    verb = rng.choice(("train", "eval", "check-rewards", "inspect"))
    options = {
        "train": [name for name in FIELDS if name not in UNWANTED],
        "eval": [*TASK_FIELDS, "eval_problems", "seed", "dtype", "adapter", "compare"],
        "check-rewards": [*TASK_FIELDS],
        "inspect": ["rank", "num_groups", "targets", "sharing", "spectrum"],
    }[verb]
    start = {
        "train": ["train", places["model"], places["task"], "--dry-run", "--device=cpu"],
        "eval": ["eval", places["model"], places["task"], "--problems=1", "--samples=1"],
        "check-rewards": ["check-rewards", places["task"].removeprefix("--task=")],
        "inspect": ["inspect", places["model"].removeprefix("--model=")],
    }[verb]
    given = [
        f"--{name.replace('_', '-')}={rng.choice(VALUES)}"
        for name in rng.sample(options, rng.randint(1, min(3, len(options))))
    ]
    return [*start, *given], " ".join(given)


def wrong_bytes(rng: random.Random, right: bytes) -> bytes:
    """The bytes of a file with something wrong in them."""
    place = rng.randrange(len(right)) if right else 0
    kind = rng.randrange(7)
    if kind == 0:
        return right[:place]
    if kind == 1:
        return right[:place] + bytes([rng.randrange(256)]) + right[place + 1 :]
    if kind == 2:
        return right[:place] + b"\0" * 40 + right[place + 40 :]
    if kind == 3:
        return rng.choice((b"", b"\xff\xfe", b"null", b"[]", b"{", b"3", b'"x"', b"\0" * 64))
    if kind == 4:
        return right + right
    if kind == 5:
        return bytes(rng.randrange(256) for _ in range(60))
    return right[:place] + right[rng.randrange(len(right) or 1) :]


def wrong_json(rng: random.Random, right: bytes) -> bytes:
    """JSON or YAML, an entry of which is another value, is not there, or has another name."""
    held = yaml.safe_load(right)
    if not isinstance(held, dict) or not held:
        return wrong_bytes(rng, right)
    name = rng.choice([*held])
    if isinstance(held[name], dict) and held[name] and rng.random() < 0.5:
        inner = rng.choice([*held[name]])
        held[name][inner] = rng.choice(JSON_VALUES)
    elif rng.random() < 0.2:
        del held[name]
    elif rng.random() < 0.2:
        held[f"{name}_"] = held.pop(name)
    else:
        held[name] = rng.choice(JSON_VALUES)
    return json.dumps(held).encode()


def wrong_file(rng: random.Random, root: Path, places: dict[str, Path]) -> Wrong:
    """A file of a model, a run, a task, a grid, a recipe or an adapter, damaged; and its readers.

    Args:
        places: `model`, `run`, `rows`, `own`, `grid`, `recipe`, `peft`: right ones, to copy.
    """
    kind = rng.choice([*READERS])
    source, file, readers = READERS[kind]
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    copied = {name: _copy(path, root / path.name) for name, path in places.items()}
    target = copied[source] / file if file else copied[source]
    right = target.read_bytes()
    is_settings = target.suffix in (".json", ".yaml")
    damage = wrong_json if is_settings and rng.random() < 0.7 else wrong_bytes
    target.write_bytes(damage(rng, right))
    argv = rng.choice(readers)(copied)
    return argv, f"{kind}: {target.read_bytes()[:300]!r}"


def _copy(source: Path, target: Path) -> Path:
    if source.is_dir():
        return Path(shutil.copytree(source, target))
    return Path(shutil.copy(source, target))


Reader = Callable[[dict[str, Path]], list[str]]
SMALL = ("--device=cpu", "--steps=3", "--prompts-per-step=2", "--samples-per-prompt=2",
         "--eval-problems=1", "--eval-samples=1", "--max-new-tokens=2")  # fmt: skip


def _dry(at: dict[str, Path]) -> list[str]:
    return ["train", f"--model={at['model']}", f"--task={at['rows']}", "--dry-run", *SMALL]


def _loads(at: dict[str, Path]) -> list[str]:
    return ["eval", f"--model={at['model']}", f"--task={at['rows']}", "--problems=1", "--samples=1"]


def _inspects(at: dict[str, Path]) -> list[str]:
    return ["inspect", str(at["model"])]


def _evaluates(at: dict[str, Path]) -> list[str]:
    return [
        "eval", f"--adapter={at['run']}", f"--model={at['model']}", f"--task={at['rows']}",
        "--problems=1", "--samples=1", "--max-new-tokens=2",
    ]  # fmt: skip


def _resumes(at: dict[str, Path]) -> list[str]:
    return ["train", "--resume", f"--output={at['run']}", "--steps=4", "--dry-run"]


READERS: dict[str, tuple[str, str, tuple[Reader, ...]]] = {
    "config.json": ("model", "config.json", (_dry, _loads, _inspects)),
    "generation_config.json": ("model", "generation_config.json", (_loads,)),
    "tokenizer.json": ("model", "tokenizer.json", (_dry, _loads)),
    "tokenizer_config.json": ("model", "tokenizer_config.json", (_dry, _loads)),
    "model.safetensors": ("model", "model.safetensors", (_loads, _inspects)),
    "config.yaml": ("run", "config.yaml", (_resumes, _evaluates)),
    "adapter": (
        "run",
        "adapter.safetensors",
        (_evaluates, lambda at: ["inspect", str(at["run"]), f"--model={at['model']}"]),
    ),
    "summary.json": ("run", "summary.json", (lambda at: _figures(at["run"]),)),
    "metrics.jsonl": ("run", "metrics.jsonl", (lambda at: _figures(at["run"]),)),
    "rows": ("rows", "", (_dry, lambda at: ["check-rewards", str(at["rows"])])),
    "own task": ("own", "", (lambda at: ["check-rewards", f"{at['own']}:make"],)),
    "recipe": ("recipe", "", (lambda at: ["train", str(at["recipe"]), "--dry-run"],)),
    "grid": ("grid", "", (lambda at: ["sweep", str(at["grid"]), "--dry-run"],)),
    "results": ("results", "", (lambda at: _figures(at["results"]),)),
    "peft settings": ("peft", "adapter_config.json", (lambda at: _imports(at),)),
    "peft weights": ("peft", "adapter_model.safetensors", (lambda at: _imports(at),)),
}


def _figures(place: Path) -> list[str]:
    return ["figures", str(place), f"--out={place.parent / 'figures'}"]


def _imports(at: dict[str, Path]) -> list[str]:
    out = at["peft"].parent / "imported.safetensors"
    return ["import", str(at["peft"]), f"--out={out}", f"--model={at['model']}"]
