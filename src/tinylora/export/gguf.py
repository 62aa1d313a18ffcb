"""A llama.cpp LoRA in GGUF: one file of A = V^T and B = U S R, beside any GGUF of the base model.

llama.cpp keeps some models' weights in another layout than Transformers does: in those of Llama's
kind the rows of q and k are permuted, and so are the rows of B here. Only architectures whose
layout is known are written; every other one is refused.
"""

from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tinylora.adapter import TinyLora
from tinylora.adapter.fold import shared_parameters
from tinylora.adapter.hooks import AdaptedLayer
from tinylora.adapter.lora_writer import check_finite, product
from tinylora.atomic import new_folder
from tinylora.decoders import text_config
from tinylora.errors import RequestError, install_hint
from tinylora.export.card import Exported, ExportKind, write_card

if TYPE_CHECKING:
    import gguf

FILE = "adapter.gguf"
ARCHITECTURES = {  # Transformers' model_type -> llama.cpp's architecture
    "apertus": "apertus", "arcee": "arcee", "bloom": "bloom", "cohere": "command-r",
    "cohere2": "cohere2", "ernie4_5": "ernie4_5", "exaone4": "exaone4", "falcon_h1": "falcon-h1",
    "falcon_mamba": "mamba", "gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3",
    "gemma3_text": "gemma3", "gemma3n_text": "gemma3n", "gemma4_text": "gemma4", "glm": "chatglm",
    "glm4": "glm4", "glm4_moe": "glm4moe", "gpt_bigcode": "starcoder", "gpt_neox": "gptneox",
    "gpt_oss": "gpt-oss", "granite": "granite", "granitemoe": "granitemoe",
    "hunyuan_v1_dense": "hunyuan-dense", "jamba": "jamba", "lfm2": "lfm2", "llama": "llama",
    "llama4_text": "llama4", "mamba": "mamba", "mamba2": "mamba2", "minicpm3": "minicpm3",
    "mistral": "llama", "mixtral": "llama", "nemotron": "nemotron", "nemotron_h": "nemotron_h",
    "olmo": "olmo", "olmo2": "olmo2", "olmo3": "olmo2", "olmoe": "olmoe", "phi": "phi2",
    "phi3": "phi3", "qwen2": "qwen2", "qwen2_moe": "qwen2moe", "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe", "starcoder2": "starcoder2",
}  # fmt: skip
ROTATED = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
OF_LLAMAS_KIND = (
    "llama", "arcee", "granite", "granitemoe", "olmo",
)  # fmt: skip
WITH_ONE_QKV = ("bloom", "gptneox")  # whose rows go by heads; llama.cpp's by q, k, v
KIND = ExportKind(
    to="gguf",
    what="a llama.cpp LoRA",
    library="gguf",
    relation="adapter",
    how="""sh
# base.gguf: any GGUF of BASE, in any quantisation
llama-cli -m base.gguf --lora FOLDER/adapter.gguf""",
)


def to_gguf(adapter: TinyLora, folder: str | Path, *, source: str | Path | None = None) -> Exported:
    """Write the adapter as `adapter.gguf`, in fp32, into a new folder.

    Args:
        adapter: attached to its base.
        folder: which is made, and must not be there yet.
        source: what the adapter was loaded from, for the model card.

    Raises:
        RequestError: the package gguf is missing; the architecture is not one of those that are
            known; the folder is not free; v is not finite.
        OSError: the disk is full.
    """
    check_gguf(adapter)
    with new_folder(Path(folder)) as scratch:
        write_gguf(adapter, scratch / FILE)
        note = "llama.cpp serves it over a base model of any quantisation, in fp32."
        exported = Exported(Path(folder), (scratch / FILE).stat().st_size, (note,))
        write_card(scratch, KIND, adapter, exported, source)
    return exported


def permute(rows: Tensor, num_heads: int) -> Tensor:
    """llama.cpp's order of the rows (d_out, ...) of q and k in models of Llama's kind.

    Transformers keeps a head's rotary pairs as two halves, llama.cpp next to each other.
    """
    halves = rows.reshape(num_heads, 2, -1, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)


def check_gguf(adapter: TinyLora) -> None:
    """Refuse what cannot be written for llama.cpp, before anything is.

    Raises:
        RequestError: as `to_gguf`.
    """
    check_finite(adapter)
    if find_spec("gguf") is None:
        raise RequestError(
            "The package gguf, which writes llama.cpp's files, is not installed. "
            f"{install_hint('gguf')}."
        )
    kind = _model_type(adapter)
    if kind not in ARCHITECTURES:
        raise RequestError(
            f'The base model is of type "{kind}", which tinylora cannot write for llama.cpp '
            f"(supported: {', '.join(ARCHITECTURES)}). Export a LoRA (--to lora), and "
            "convert it with llama.cpp's convert_lora_to_gguf.py."
        )


def _model_type(adapter: TinyLora) -> str:
    return str(getattr(_config(adapter), "model_type", ""))


def _config(adapter: TinyLora) -> Any:
    return text_config(adapter.model)


def write_gguf(adapter: TinyLora, path: Path, only: Collection[str] | None = None) -> None:
    """Write the adapter as it is now.

    Args:
        only: the layers that are written; None: all that are adapted.

    Raises:
        RequestError: llama.cpp has no tensor for one of them.
    """
    import gguf

    architecture = ARCHITECTURES[_model_type(adapter)]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(adapter.config.rank))
    writer.add_name(f"{adapter.num_trainable} numbers on {adapter.base[0] or 'a base model'}")
    for name, tensor in _tensors(adapter, architecture, only).items():
        writer.add_tensor(name, tensor.numpy())
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _tensors(
    adapter: TinyLora, architecture: str, only: Collection[str] | None
) -> dict[str, Tensor]:
    """A and B of every adapted layer by llama.cpp's names, in fp32 and its order of rows."""
    names = _names(adapter, architecture)
    tensors: dict[str, Tensor] = {}
    for name, item in adapter.maps.items():
        if only is not None and name not in only:
            continue
        part = names[name].rpartition(".")[2]
        B = in_its_order(product(item, adapter.v.detach()), part, architecture, _config(adapter))
        for factor, tensor in (("lora_a", item.A), ("lora_b", B)):
            tensors[f"{names[name]}.weight.{factor}"] = tensor.to("cpu", torch.float32).contiguous()
    return tensors


def in_its_order(rows: Tensor, part: str, architecture: str, config: Any) -> Tensor:
    """The rows (d_out, ...) of a layer in llama.cpp's order; `part` is its name for the layer."""
    if architecture in OF_LLAMAS_KIND and part in ROTATED:
        return permute(rows, _num_heads(config, ROTATED[part]))
    if architecture in WITH_ONE_QKV and part == "attn_qkv":
        return apart(rows, int(config.num_attention_heads))
    return rows


def apart(rows: Tensor, num_heads: int) -> Tensor:
    """Rows that go by heads (a query, a key, a value each) as all q, then k, then v."""
    heads = rows.reshape(num_heads, 3, -1, *rows.shape[1:])
    return heads.transpose(0, 1).reshape(rows.shape)


def _num_heads(config: Any, name: str) -> int:
    return int(getattr(config, name, None) or config.num_attention_heads)


def _names(adapter: TinyLora, architecture: str) -> dict[str, str]:
    """Transformers' names of the adapted layers to llama.cpp's.

    Raises:
        RequestError: llama.cpp has no tensor for one of them.
    """
    import gguf

    known = _name_map(gguf.MODEL_ARCH_NAMES, architecture, _config(adapter).num_hidden_layers)
    tied = shared_parameters(adapter.model)  # llama.cpp keeps one matrix, and calls it by the other
    names = {
        name: None if _weight(item) in tied else known.get_name(plain_name(name))
        for name, item in adapter.maps.items()
    }
    missing = [name for name, found in names.items() if found is None]
    if missing:
        raise RequestError(
            f"llama.cpp's {architecture} does not have a separate tensor for {missing[0]}, so "
            "this adapter cannot act there. Export a LoRA (--to lora) for PEFT or vLLM."
        )
    return {name: found for name, found in names.items() if found is not None}


def plain_name(name: str) -> str:
    """Without the part that models of several modalities put around their language part."""
    return name.replace("model.language_model.", "model.")


def _weight(item: AdaptedLayer) -> Any:
    return getattr(item.linear.module, "weight", None)


def _name_map(names: "dict[gguf.MODEL_ARCH, str]", architecture: str, num_blocks: int) -> Any:
    import gguf

    arch = next(key for key, name in names.items() if name == architecture)
    return gguf.get_tensor_name_map(arch, num_blocks)
