"""In what decoders differ: where their language part is, what they remember, what their head does.

Everything is asked of the model itself, so that no list of architectures has to be kept.
"""

import inspect
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
WITHOUT_A_PAST = {"mlp", "moe", "dummy"}
BEHIND_A_CAP = 100.0  # hidden states so large that no cap of logits passes them unchanged
TOLERANCE = 1e-2
READ_DIRECTLY = {  # linear layers that the model does not call: parts of their names
    "falcon_mamba": ("dt_proj",),  # the mixer multiplies with its weight
    "mamba": ("dt_proj",),
    "zamba2": ("_adapter_list",),  # each block has those of all blocks, and calls its own
}

_has_plain_head: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def text_config(model: Any) -> Any:
    """The configuration of the language part: of several modalities, the nested one."""
    config = model.config
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def language_part(model: nn.Module) -> nn.Module:
    """The part that reads and writes text: the model itself, where it has no other modality."""
    config = getattr(model, "config", None)
    if config is None or text_config(model) is config or not hasattr(model, "get_decoder"):
        return model
    decoder: Any = model.get_decoder
    part: nn.Module = decoder()
    return part


def is_called(model: nn.Module, name: str) -> bool:
    """Whether a linear layer of this name is called in a forward pass, as far as is known."""
    kind = getattr(getattr(model, "config", None), "model_type", None)
    return not any(part in name for part in READ_DIRECTLY.get(str(kind), ()))


def layer_kinds(model: Any) -> set[str]:
    """The kinds of its layers, as the configuration names them; empty: it names none."""
    return set(getattr(text_config(model), "layer_types", None) or ())


def is_recurrent(model: Any) -> bool:
    """Whether its past is more than keys and values: states of Mamba, linear attention, ..."""
    is_stateful = bool(getattr(model, "_is_stateful", False))
    return is_stateful or bool(layer_kinds(model) - ATTENTION - WITHOUT_A_PAST)


def has_window(model: Any) -> bool:
    """Whether some layer attends only to some of the tokens before."""
    kinds = layer_kinds(model)
    if kinds:
        return bool(kinds & {"sliding_attention", "chunked_attention"})
    return getattr(text_config(model), "sliding_window", None) is not None


def takes_any_mask(model: Any) -> bool:
    """Whether its attention adds a mask of ours to the scores.

    Models with an attention of their own do not: some derive positions from the mask (ALiBi),
    others combine it with windows that the configuration does not name.
    """
    return bool(getattr(model, "_supports_attention_backend", False)) and not is_recurrent(model)


def body_name(model: Any) -> str:
    """The attribute that holds everything but the head: the child with the embeddings."""
    embeddings = model.get_input_embeddings()
    children = model.named_children()
    return str(next(name for name, child in children if embeddings in set(child.modules())))


def body(model: Any) -> Any:
    """Everything but the head; for few architectures `base_model` is not it."""
    if model.base_model is not model:
        return model.base_model
    return model.get_submodule(body_name(model))


def takes_positions(model: Any) -> bool:
    """Whether its forward pass is told each token's position.

    Of hybrids some must be (Bamba counts from 0 at every call), others cannot (Mamba).
    """
    return not is_recurrent(model) or "position_ids" in inspect.signature(model.forward).parameters


class _Hidden(nn.Module):
    """Stands where the model's body is, and answers with hidden states that are known."""

    def __init__(self, hidden: Tensor, body: nn.Module) -> None:
        super().__init__()
        self.last_hidden_state, self._body = hidden, (body,)

    def forward(self, *args: Any, **kwargs: Any) -> "_Output":
        return _Output(self.last_hidden_state)

    def __getattr__(self, name: str) -> Any:
        """The body's numbers are here, and so is its own decoder, which OPT calls."""
        return self if name == "decoder" else getattr(self.__dict__["_body"][0], name)


class _Output:
    """What a body returns, with the hidden states and nothing else."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, place: Any) -> Any:
        return (self.last_hidden_state,)[place]

    def __getattr__(self, name: str) -> None:
        return None


def head_logits(model: Any, hidden: Tensor) -> Tensor:
    """The model's logits for last hidden states: head, scale and cap, whatever it has.

    Args:
        hidden: (n, d).

    Returns:
        (n, vocabulary).
    """
    head: nn.Module = model.get_output_embeddings()
    if not has_plain_head(model):
        return _own_logits(model, hidden)
    logits: Tensor = head(hidden)
    return logits


@torch.no_grad()
def has_plain_head(model: Any) -> bool:
    """Whether the logits are the output head's answer, neither scaled nor capped."""
    if model not in _has_plain_head:
        head = model.get_output_embeddings()
        hidden = torch.randn(2, head.weight.shape[1], generator=torch.Generator().manual_seed(0))
        hidden = BEHIND_A_CAP * hidden.to(head.weight.device, head.weight.dtype)
        plain, own = head(hidden).float(), _own_logits(model, hidden).float()
        _has_plain_head[model] = bool((plain - own).norm() <= TOLERANCE * plain.norm())
    return _has_plain_head[model]


def _own_logits(model: Any, hidden: Tensor) -> Tensor:
    """Through the model's own forward pass, with known hidden states in place of its body's."""
    model = getattr(model, "_orig_mod", model)
    name = body_name(model)
    body = model._modules[name]
    ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
    model._modules[name] = _Hidden(hidden[None], body)
    try:
        logits: Tensor = model(input_ids=ids, use_cache=False).logits[0]
    finally:
        model._modules[name] = body
    return logits
