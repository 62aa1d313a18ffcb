"""A LoRA folder for PEFT, vLLM and all else that reads one, tried in PEFT before it is kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from tinylora.adapter import TinyLora
from tinylora.adapter.contents import Store
from tinylora.adapter.lora_writer import LoraWriter, key_of
from tinylora.atomic import new_folder
from tinylora.export.card import Exported, ExportKind, write_card
from tinylora.export.verify import settle_names

KIND = ExportKind(
    to="lora",
    what="a LoRA",
    library="peft",
    relation="adapter",
    how="""python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("BASE")
model = PeftModel.from_pretrained(base, "FOLDER")
```

```sh
vllm serve BASE --enable-lora --max-lora-rank 8 --lora-modules tiny=FOLDER""",
)


def to_lora(
    adapter: TinyLora,
    folder: str | Path,
    dtype: Store = "fp32",
    *,
    prompts: Sequence[Sequence[int]] = (),
    source: str | Path | None = None,
) -> Exported:
    """Write the adapter as it is now into a new LoRA folder, with a model card.

    Args:
        adapter: attached to its base.
        folder: which is made, and must not be there yet.
        dtype: of A and B.
        prompts: token ids on which PEFT's answers are compared with the adapter's; none: some of
            the vocabulary.
        source: what the adapter was loaded from, for the model card.

    Raises:
        RequestError: the folder is not free, v is not finite, or stock PEFT would answer
            differently.
        OSError: the disk is full.
    """
    writer = LoraWriter(adapter, dtype)
    with new_folder(Path(folder)) as scratch:
        num_bytes = writer.write_into(scratch)
        notes = _rounding(adapter, writer.tensors(), dtype), settle_names(adapter, scratch, prompts)
        exported = Exported(Path(folder), num_bytes, notes)
        write_card(scratch, KIND, adapter, exported, source)
    return exported


def _rounding(adapter: TinyLora, tensors: Mapping[str, Tensor], dtype: Store) -> str:
    """What rounding A and B to half precision did to the update: ||B' A' - dW|| / ||dW||."""
    if dtype == "fp32":
        return "A and B are the adapter's own factors, in fp32."
    wanted = missed = 0.0
    for name in adapter.maps:
        A, B = (tensors[key_of(name, factor)].float() for factor in "AB")
        delta = adapter.delta_weight(name).cpu()
        wanted += float(delta.square().sum())
        missed += float((B @ A - delta).square().sum())
    error = (missed / wanted) ** 0.5 if wanted else 0.0
    return f"A and B are in {dtype}: the update W' - W has a relative error of {error:.2g}."
