"""Loading a base model: from the box, a folder, a GGUF file or the hub; quantised where asked.

What it does **not** do: quantise a model that is already stored quantised. That one is loaded as it
is.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from tinylora.adapter.hub import offline_without_hub
from tinylora.adapter.modules import keep_codes
from tinylora.decoders import text_config
from tinylora.errors import RequestError, install_hint
from tinylora.gguf_base import converted, gguf_file
from tinylora.modelscope import from_modelscope
from tinylora.pocket import is_pocket
from tinylora.settings import IN_PYTHON

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
EXAMPLES = (
    '"pocket", "smollm2", a local folder, a GGUF file, a hub id such as '
    "Qwen/Qwen2.5-0.5B-Instruct, or modelscope:ID"
)


@dataclass(frozen=True)
class Base:
    """A base model, its tokenizer, the name it goes by, and every token that ends an answer."""

    model: Any
    tokenizer: Any
    name: str
    eos_token_ids: tuple[int, ...]


def load_model(
    name: str,
    dtype: str = "auto",
    device: str = "auto",
    quantize: str = "none",
    attention: str = "auto",
) -> Base:
    """Load a causal language model and its tokenizer, ready to answer.

    Args:
        name: `pocket`, `smollm2`, a local folder, a GGUF file, or a hub id.
        dtype: fp32, bf16, or auto: fp32 on a CPU (few CPUs compute well in bf16), bf16 on a GPU.
        device: a torch device, or auto: the GPU if there is one.
        quantize: nf4 (with double quantisation), int8 (LLM.int8) or none. Every linear layer except
            the output head holds codes, and computes in `dtype`.
        attention: an implementation that Transformers knows, such as sdpa; auto: its own choice.

    Raises:
        RequestError: the model, its tokenizer or the device is not there, or it cannot be
            quantised so, or has no such attention.
    """
    place, dtype = place_of(device), resolved_dtype(dtype, device)
    check_quantize(name, quantize)
    tokenizer = load_tokenizer(name)
    with missing_is_a_request_error(name):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            model_source(name),
            dtype=DTYPES[dtype],
            device_map={"": place},
            output_loading_info=True,
            **({} if attention == "auto" else {"attn_implementation": attention}),
            **_quantization(quantize, dtype),
        )
    model, found = loaded
    _check_complete(name, type(model).__name__, found)
    model.config._name_or_path = name  # what adapter files call their base
    keep_codes(model.eval())
    return Base(model, tokenizer, name, _eos_token_ids(model, tokenizer))


def from_loaded(model: Any, tokenizer: Any = None) -> Base:
    """A model that the caller has loaded; without a tokenizer, the one that belongs to it.

    Raises:
        RequestError: no tokenizer was given, and the model's name leads to none.
    """
    _check_whole(model)
    keep_codes(model)
    name = model.name_or_path or IN_PYTHON + type(model).__name__
    if is_pocket(name):
        name = "pocket"  # with the learning rate of that name
    if tokenizer is None:
        try:
            tokenizer = load_tokenizer(name)
        except RequestError as error:
            raise RequestError(
                f"No tokenizer was found for the {type(model).__name__} that was passed, by its "
                f'name "{model.name_or_path}". Pass tokenizer=.'
            ) from error
    return Base(model, tokenizer, name, _eos_token_ids(model, tokenizer))


def _check_complete(name: str, model_class: str, found: Mapping[str, Any]) -> None:
    """Refuse weights that are not the model's: what is not there would be random numbers.

    Raises:
        RequestError: a tensor is missing, has another shape, or belongs to another model.
    """
    for kind, what in (("missing_keys", "lack a"), ("unexpected_keys", "have an additional")):
        if names := sorted(map(str, found[kind])):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise RequestError(
                f"The weights of {name} {what} tensor for {model_class}: {names[0]}{more}. They "
                "are incomplete, or those of another kind of model. Download or save the model "
                "again."
            )


def _check_whole(model: Any) -> None:
    """Refuse a model some of whose weights are not in memory.

    Raises:
        RequestError: `device_map` left layers on the disk or moves them as they are needed.
    """
    places = {str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()}
    is_moved = "disk" in places or (len(places) > 1 and "cpu" in places)
    if is_moved or any(parameter.is_meta for parameter in model.parameters()):
        raise RequestError(
            f"The {type(model).__name__} that was passed has weights that are not in the memory of "
            "its device (device_map offloads them to the CPU or the disk), so their singular "
            "vectors cannot be computed. Load it onto one device, or quantised (--quantize nf4)."
        )


def check_quantize(name: str, quantize: str) -> None:
    """Refuse a quantisation that cannot be done, before any weight is read.

    Raises:
        RequestError: bitsandbytes is not installed, or the model is stored quantised already.
    """
    if quantize == "none":
        return
    if find_spec("bitsandbytes") is None:
        raise RequestError(
            f"quantize = {quantize} needs bitsandbytes, which is not installed. "
            f"{install_hint('quantized')}."
        )
    if method := stored_quantization(name):
        raise RequestError(
            f"quantize = {quantize}, but {name} is already stored quantised, by {method}. Use none "
            "to load it as it is, or name the model that it was made from."
        )


def stored_quantization(name: str) -> str:
    """By what method a model is stored quantised; "" where it is stored plain."""
    with missing_is_a_request_error(name):
        config = AutoConfig.from_pretrained(model_source(name))
    settings = getattr(config, "quantization_config", None)
    return "" if settings is None else str(settings.get("quant_method", "an unnamed method"))


def quantization_of(model: Any) -> str:
    """nf4 or int8 where `load_model` or transformers quantised the model so while loading it.

    none where it is plain, stored quantised (its name alone brings that back), or otherwise.
    """
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is None or quantizer.pre_quantized:
        return "none"
    settings = quantizer.quantization_config
    if not isinstance(settings, BitsAndBytesConfig):
        return "none"
    if settings.load_in_8bit:
        return "int8"
    is_nf4 = settings.bnb_4bit_quant_type == "nf4" and settings.bnb_4bit_use_double_quant
    return "nf4" if is_nf4 else "none"


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model."""
    with missing_is_a_request_error(name):
        tokenizer = AutoTokenizer.from_pretrained(model_source(name))
        tokenizer("1")  # a damaged configuration shows only when it is used
    return tokenizer


def resolved_dtype(dtype: str, device: str) -> str:
    """fp32 or bf16: what `auto` means on this device."""
    place = place_of(device)
    return ("fp32" if place.type == "cpu" else "bf16") if dtype == "auto" else dtype


def load_skeleton(name: str) -> Any:
    """The model without its weights (on the meta device): enough to see its modules and shapes."""
    source = model_source(name)
    with missing_is_a_request_error(name), torch.device("meta"):
        config = AutoConfig.from_pretrained(source)
        model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return model


def context_of(model: Any) -> int | None:
    """How many tokens the model can read and write; None: its configuration does not say."""
    context: int | None = getattr(text_config(model), "max_position_embeddings", None)
    return context


def check_context(model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Refuse a completion budget that, after the longest prompt, passes the model's context.

    Raises:
        RequestError: the budget is too long, or a prompt has tokens that the model does not have.
    """
    context, size = context_of(model), model.get_input_embeddings().weight.shape[0]
    last = max((token for prompt in prompts for token in prompt), default=0)
    if last >= size:
        raise RequestError(
            f"The tokenizer gives token {last}, but the model has {size} tokens: they do not "
            "belong together. Use the tokenizer that was saved with the model."
        )
    longest = max(map(len, prompts), default=0)
    if context is None or longest + max_new_tokens <= context:
        return
    cure = (
        f"Use max_new_tokens <= {context - longest}" if longest < context else "Shorten the prompt"
    )
    raise RequestError(
        f"max_new_tokens = {max_new_tokens} after a prompt of {longest} tokens, but the model's "
        f"context ends at {context} tokens. {cure}, or use a model with a longer context."
    )


def model_source(name: str) -> str | Path:
    """Where transformers finds the model: a folder that exists, or a hub id."""
    if name == "pocket":
        from tinylora.pocket import model_folder

        return model_folder()
    if name.startswith(IN_PYTHON):
        raise RequestError(
            f"This run was trained on an in-memory {name.removeprefix(IN_PYTHON)} without a name, "
            "so it cannot be loaded by name. Save it with save_pretrained and pass --model "
            "FOLDER, or continue in Python: tinylora.train(config, model=..., tokenizer=...)."
        )
    if (downloaded := from_modelscope(name)) is not None:
        return downloaded
    if (file := gguf_file(name)) is not None:
        return converted(file)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise RequestError(
                f"model = {name} is a folder without a config.json, so it is not a model. Use a "
                "folder that save_pretrained wrote."
            )
        return folder
    if folder.is_file() or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        raise RequestError(f"The model folder {name} does not exist. Use {EXAMPLES}.")
    return name


@contextmanager
def missing_is_a_request_error(name: str) -> Iterator[None]:
    """transformers and its libraries say many lines, each in an error of its own, about what is not
    there, cut off, of another shape or otherwise no model; all of them are one sentence."""
    is_here = name in ("pocket", "smollm2") or Path(name).expanduser().exists()
    try:
        with nullcontext() if is_here else offline_without_hub():
            yield
    except (RequestError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        cause = " ".join(str(error).strip().split("\n")[0].split()).rstrip(".:")
        if Path(name).expanduser().is_dir():
            what = f"The model in {name} cannot be loaded"
            if not isinstance(error, OSError | ValueError | ImportError):
                what += ": a file is damaged, cut off, or another model's; copy it again"
        else:
            what = f"{name} is not a folder, and the hub did not provide a model of that name"
        raise RequestError(f"{what} ({cause or type(error).__name__}). Use {EXAMPLES}.") from error


def _quantization(quantize: str, dtype: str) -> dict[str, BitsAndBytesConfig]:
    """What `from_pretrained` takes for it.

    Nothing at all where nothing is asked: with `quantization_config=None` transformers takes the
    codes of a model that is stored quantised for its weights.
    """
    if quantize == "nf4":
        settings = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[dtype],
        )
        return {"quantization_config": settings}
    if quantize == "int8":
        # It says at every forward pass that it rounds the inputs to fp16.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        settings = BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
        return {"quantization_config": settings}
    return {}


def place_of(device: str) -> torch.device:
    """The device that a setting names; auto: the GPU if there is one.

    Raises:
        RequestError: it is not there.
    """
    if device == "auto":
        return _first_gpu() if torch.cuda.is_available() else torch.device("cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
        if device == "cuda":
            place = _first_gpu()
    except (RuntimeError, AssertionError) as error:
        cause = str(error).split("\n")[0]
        raise RequestError(
            f'device = "{device}" cannot be used here ({cause}). Use auto, cpu, or a GPU of this '
            "machine such as cuda:0."
        ) from error
    return place


def _first_gpu() -> torch.device:
    """The current GPU of this process, by its index.

    Without an index, transformers' loading threads take "cuda" for GPU 0, whatever the process's
    current device is: every rank of torchrun would load its model there.
    """
    return torch.device("cuda", torch.cuda.current_device())


def _eos_token_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """All tokens that end an answer, by any of the three places that name some."""
    named = (
        getattr(model.generation_config, "eos_token_id", None),
        getattr(model.config, "eos_token_id", None),
        getattr(tokenizer, "eos_token_id", None),
    )
    lists = [ids if isinstance(ids, list) else [ids] for ids in named]
    found = dict.fromkeys(i for ids in lists for i in map(_token_id, ids) if i is not None)
    return tuple(found)


def _token_id(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise RequestError(
        f"eos_token_id = {value!r} in the model's configuration, but a token is a whole number. "
        "Correct config.json and generation_config.json, or copy the model again."
    )


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Dropout off, and every module back as it was."""
    were_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in were_training:
            module.training = True
