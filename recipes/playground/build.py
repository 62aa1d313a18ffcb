"""The playground as a page without a server: the embedded model runs in the reader's browser.

    make playground     (into docs/playground; a minute on two CPU cores, and two packages of npm)

Everything that the page needs lies in one folder, for any web host (`python -m http.server -d
docs/playground`): the page of `tinylora play` with another `backend.js`, the model as an ONNX graph
(1.9 MB), and from npm onnxruntime-web (its WebAssembly is 14 MB, 3.7 MB compressed) and
Hugging Face's tokenizers. Nothing in it is committed.
"""

import argparse
import base64
import json
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from graph import attach_cores, export, mixing
from tinylora.adapter import load
from tinylora.adapter.contents import AdapterFile
from tinylora.adapter.text import encode
from tinylora.models import load_model
from tinylora.play.opening import boxed, open_model, space
from tinylora.play.server import PAGE
from tinylora.play.steering import BROKEN_NATS, CIRCLE_TOKENS, Steering
from tinylora.pocket import model_folder
from tinylora.settings.evaluate import EvalConfig
from tinylora.tasks.task import Problem

HERE = Path(__file__).parent
OWN = ("backend.js", "worker.js", "text.js")  # in place of, or beside, the page's files
VENDOR = {
    "onnxruntime-web/dist": (
        "ort.wasm.min.mjs",
        "ort-wasm-simd-threaded.mjs",
        "ort-wasm-simd-threaded.wasm",
    ),
    "@huggingface/tokenizers/dist": ("tokenizers.min.mjs",),
}
BOXES = ("13", "2", "1")
NUM_PROBLEMS = 64
LINE_POINTS, GRID_POINTS, GRID_PROBLEMS = (
    17,
    13,
    16,
)  # as in play.js: what the page would measure at its start


def build(out: Path) -> None:
    """Write the page and everything it needs into a folder."""
    vendor = out / "vendor"
    vendor.mkdir(parents=True, exist_ok=True)
    for file in [*PAGE.iterdir(), *(HERE / name for name in OWN)]:
        shutil.copy(file, out / file.name)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model_folder() / name, out / name)
    install(vendor)
    write_model(out)


def install(vendor: Path) -> None:
    """The files of package.json's packages that the page loads, by npm."""
    flags = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    with TemporaryDirectory() as folder:
        shutil.copy(HERE / "package.json", folder)
        subprocess.run(["npm", "install", *flags], cwd=folder, check=True)
        for package, names in VENDOR.items():
            for name in names:
                shutil.copy(Path(folder) / "node_modules" / package / name, vendor / name)


def write_model(out: Path) -> None:
    """model.onnx, and data.json with what the page and its worker know of it."""
    config = EvalConfig(model="pocket", task="pocket", device="cpu")
    playground = open_model("pocket", None, config, NUM_PROBLEMS)
    about = playground.about()
    tried = [{"name": one.instruction.name, "accuracy": one.accuracy} for one in playground.prompts]
    steering = playground.steering
    template = template_of(playground.base.tokenizer, playground.instruction(True).turns)
    eos = list(playground.base.eos_token_ids)
    steering.adapter.detach()

    base = load_model("pocket", device="cpu")
    base.model.set_attn_implementation("eager")
    spaces, texts, modules = [], [], []
    for name in BOXES:
        held = boxed(name)
        contents = held[max(held)]
        adapter = load(base.model, encode(contents, "fp32"))
        modules = modules or list(adapter.maps)
        path = {step: snapshot.v.float() for step, snapshot in held.items()}
        shown = space(contents, path, adapter)
        adapter.zero()
        steering = Steering(adapter, steering.task, steering.text, steering.budget)
        known = measured(steering, playground.problems, shown)
        spaces.append({**shown, "mixing": mixing(adapter, modules).tolist(), "measured": known})
        texts.append(text_parts(contents))
        adapter.detach()
    cores = attach_cores(base.model, contents.config)
    assert list(cores.maps) == modules
    num_bytes = export(cores, out / "model.onnx")
    data = {
        "about": {**about, "where": "in this browser", "spaces": spaces},
        "tried": tried,
        "template": template,
        "texts": texts,
        "eos": eos,
        "broken_nats": BROKEN_NATS,
        "circle_tokens": CIRCLE_TOKENS,
        "sizes": sizes(base.model.config),
    }
    (out / "data.json").write_text(json.dumps(data, separators=(",", ":")), encoding="utf-8")
    print(f"{out}: model.onnx {num_bytes:,} bytes")


def sizes(config: Any) -> dict[str, int]:
    """The shapes that the worker makes."""
    return {
        "layers": config.num_hidden_layers,
        "heads": config.num_key_value_heads,
        "head_size": config.hidden_size // config.num_attention_heads,
        "vocabulary": config.vocab_size,
        "context": config.max_position_embeddings,
    }


def template_of(tokenizer: Any, turns: Any) -> dict[str, str]:
    """What stands before and after a prompt, and the worked examples of the best prompt."""
    mark = "PROMPT"
    asked = [{"role": "user", "content": mark}]

    def render(turns: list[Any]) -> str:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return str(text)

    before, after = render(asked).split(mark)
    examples, rest = render([*turns, *asked]).split(before + mark)
    assert rest == after
    return {"before": before, "after": after, "examples": examples}


def text_parts(contents: AdapterFile) -> dict[str, Any]:
    """The bytes of an adapter's text before and after v, without its first two and the checksum."""
    digits = encode(contents, "fp32").partition(":")[2]
    data = base64.urlsafe_b64decode(digits + "=" * (-len(digits) % 4))
    tail = bytes.fromhex(contents.fingerprint.partition(":")[2])
    count = contents.v.numel()
    start = len(data) - 4 - len(tail) - 4 * count
    return {"head": list(data[2:start]), "tail": list(tail), "count": count}


def measured(
    steering: Steering, problems: list[Problem], shown: dict[str, Any]
) -> list[tuple[list[float], str]]:
    """What the page would measure first: the path of training, and its line or landscape."""
    count = len(shown["path"][0]["values"])
    points = [[0.0] * count, *(point["values"] for point in shown["path"])]
    if count > 2:
        points += strengths(shown["trained"])
    known = list(zip(points, letters(steering, points, problems), strict=True))
    if count == 2:
        axis = spread(-shown["limit"], shown["limit"], GRID_POINTS)
        for second in axis:
            row = [[first, second] for first in axis]
            row = [point for point in row if point not in points]
            known += zip(row, letters(steering, row, problems[:GRID_PROBLEMS]), strict=True)
    return known


def letters(steering: Steering, points: list[list[float]], problems: list[Problem]) -> list[str]:
    return steering.measure(torch.stack([steering.values(p) for p in points]), problems)


def strengths(trained: list[float]) -> list[list[float]]:
    """The line of the trained adapter, from its negative to three times it."""
    steps = [x for x in spread(-1, 3, LINE_POINTS) if x not in (0, 1)]  # these are known
    return [halved([x * value for value in trained]) for x in steps]


def spread(low: float, high: float, count: int) -> list[float]:
    """As play.js lays lines and grids."""
    return halved([low + (high - low) * i / (count - 1) for i in range(count)])


def halved(values: list[float]) -> list[float]:
    """The nearest bf16 of each, which is what a slider can be at."""
    return [float(x) for x in torch.tensor(values).bfloat16().float()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    build(parser.parse_args().out)
