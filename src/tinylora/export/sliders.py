"""One LoRA for each number: a slider for every engine that scales LoRAs.

W' - W = sum_i v_i (U S P_i V^T) is linear in v, so number i is a LoRA of its own, with B = U S P_i
on the layers of its group, and its scale is v_i. Scaled by the trained numbers they add up to the
adapter, exactly; any other scales are the adapter with other numbers.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from tinylora.adapter import TinyLora
from tinylora.adapter.lora_writer import LoraWriter, check_finite
from tinylora.atomic import new_folder
from tinylora.errors import RequestError
from tinylora.export.card import Exported, ExportKind, write_card
from tinylora.export.gguf import check_gguf, write_gguf
from tinylora.export.verify import sum_in_peft

MAX_SLIDERS = 256
INDEX = "sliders.json"
SliderFormat = Literal["peft", "gguf"]
HOW: dict[SliderFormat, str] = {
    "peft": """python
import json
from peft import PeftModel
from transformers import AutoModelForCausalLM

sliders = json.load(open("FOLDER/sliders.json"))
base = AutoModelForCausalLM.from_pretrained("BASE")
model = PeftModel.from_pretrained(base, "FOLDER/" + sliders[0]["file"], sliders[0]["name"])
for slider in sliders[1:]:
    model.load_adapter("FOLDER/" + slider["file"], slider["name"])
names, values = [s["name"] for s in sliders], [s["value"] for s in sliders]
model.add_weighted_adapter(names, values, "mine", combination_type="cat")
model.set_adapter("mine")""",
    "gguf": """sh
# base.gguf: any GGUF of BASE; the sliders rest until a request moves them
sliders=$(for file in FOLDER/*.gguf; do echo --lora $file; done)
llama-server -m base.gguf --lora-init-without-apply $sliders
curl localhost:8080/completion -d '{"prompt": "...", "lora": [{"id": 0, "scale": 0.5}]}'""",
}


def to_sliders(
    adapter: TinyLora,
    folder: str | Path,
    slider_format: SliderFormat = "peft",
    *,
    prompts: Sequence[Sequence[int]] = (),
    source: str | Path | None = None,
) -> Exported:
    """Write a LoRA for each number into a new folder, in fp32, with `sliders.json` and a card.

    `sliders.json` is a list with name, file, group, place in the group, and trained value of each
    number, in the order of v.

    Args:
        slider_format: PEFT folders, or files for llama.cpp.
        prompts: token ids on which PEFT's answers are compared with the adapter's; none: some of
            the vocabulary.
        source: what the adapter was loaded from, for the model card.

    Raises:
        RequestError: the folder is not free; v is not finite; there are more than MAX_SLIDERS
            numbers; stock PEFT answers differently; the format cannot be written for this model.
        OSError: the disk is full.
    """
    _check(adapter, slider_format)
    with new_folder(Path(folder)) as scratch:
        sliders = [_written(adapter, scratch, *place, slider_format) for place in _places(adapter)]
        index = json.dumps(sliders, indent=1) + "\n"
        (scratch / INDEX).write_text(index, encoding="utf-8")
        note = "llama.cpp adds them up by their scales, over a base of any quantisation."
        if slider_format == "peft":
            note = sum_in_peft(adapter, [scratch / s["file"] for s in sliders], prompts)
        exported = Exported(Path(folder), _bytes(scratch), (note,))
        write_card(scratch, _kind(slider_format), adapter, exported, source)
    return exported


def _check(adapter: TinyLora, slider_format: SliderFormat) -> None:
    check_finite(adapter)
    if adapter.num_trainable > MAX_SLIDERS:
        raise RequestError(
            f"The adapter has {adapter.num_trainable} numbers, and each would be a LoRA of its "
            f"own: at most {MAX_SLIDERS} are written. Export one LoRA (--to lora)."
        )
    if slider_format == "gguf":
        check_gguf(adapter)


def _places(adapter: TinyLora) -> Iterator[tuple[int, int]]:
    """Group and place in the group of every number, in the order of v."""
    num_groups, u = adapter.v.shape
    return ((group, i) for group in range(num_groups) for i in range(u))


def _written(
    adapter: TinyLora, folder: Path, group: int, i: int, slider_format: SliderFormat
) -> dict[str, Any]:
    """Write the LoRA of one number; its entry in the index."""
    number = group * adapter.v.shape[1] + i
    name = f"number-{number:0{len(str(adapter.num_trainable - 1))}}"
    layers = tuple(adapter.modules_by_group[group])
    with _one(adapter, group, i):
        if slider_format == "gguf":
            file = f"{name}.gguf"
            write_gguf(adapter, folder / file, layers)
        else:
            file = name
            (folder / file).mkdir()
            LoraWriter(adapter, names=layers).write_into(folder / file)
    value = float(adapter.v.detach()[group, i])
    return {"name": name, "file": file, "group": group, "place": i, "value": value}


@contextmanager
def _one(adapter: TinyLora, group: int, i: int) -> Iterator[None]:
    """Inside, this number is 1 and all others are 0."""
    present = adapter.v.detach().clone()
    unit = torch.zeros_like(present)
    unit[group, i] = 1
    adapter.set_values(unit)
    try:
        yield
    finally:
        adapter.set_values(present)


def _bytes(folder: Path) -> int:
    """Of weights: all but the settings."""
    files = (path for path in folder.rglob("*") if path.suffix in (".safetensors", ".gguf"))
    return sum(path.stat().st_size for path in files)


def _kind(slider_format: SliderFormat) -> ExportKind:
    return ExportKind(
        to="sliders",
        what="sliders: one LoRA for each number",
        library="peft" if slider_format == "peft" else "gguf",
        relation="adapter",
        how=HOW[slider_format],
    )
