"""PEFT's methods as policies: `lora` and `vera` by our settings, `peft:NAME` by PEFT's own.

`peft:NAME` takes any method of PEFT that puts a layer of its own onto linear layers, and checks
before training that it does what the loop relies on: a layer on each adapted linear layer, the base
model when it is switched off, the same answer twice.
"""

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinylora.adapter.files import Store
from tinylora.adapter.modules import LinearMap, linear_maps
from tinylora.atomic import write_atomically
from tinylora.errors import RequestError
from tinylora.methods.files import norm, read, write
from tinylora.settings import AdapterConfig, PeftAdapter

# What PEFT raises about settings, models and libraries that do not fit.
PEFT_ERRORS = (ValueError, TypeError, AttributeError, RuntimeError, ImportError)
PROBE = [1, 2, 3, 4]  # token ids that every model has
NUDGE = 0.01  # of every parameter, to look at a method away from its start
PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"


class PeftPolicy:
    """An adapter of PEFT's, trained in fp32; its files are what `PeftModel.from_pretrained` reads.

    Args:
        is_additive: `get_delta_weight` is what is added to a weight, so that rollouts can run
            folded where the weights are plain fp32, as TinyLoRA's do.
    """

    adapter: None = None

    def __init__(self, model: Any, settings: Any, seed: int, is_additive: bool = True) -> None:
        from peft import get_peft_model
        from peft.tuners.tuners_utils import BaseTunerLayer

        self.model = model
        self._frozen = [p for p in model.parameters() if p.requires_grad]
        with torch.random.fork_rng(), warnings.catch_warnings():
            # PEFT asks transformers 5 for a property by its deprecated name.
            warnings.filterwarnings("ignore", message=".*gradient_checkpointing")
            torch.manual_seed(seed)
            self.peft: Any = get_peft_model(model, settings)
        self.settings, self.is_additive = settings, is_additive
        self.layers: list[Any] = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]

    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def num_trainable(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @contextmanager
    def reference(self) -> Iterator[None]:
        with self.peft.disable_adapter():
            yield

    @contextmanager
    def rollout(self) -> Iterator[None]:
        weights = [layer.get_base_layer().weight for layer in self.layers]
        is_plain = all(type(w) is nn.Parameter and w.dtype == torch.float32 for w in weights)
        if not (self.is_additive and is_plain):
            yield
            return
        saved = [weight.detach().clone() for weight in weights]
        with torch.no_grad(), self.peft.disable_adapter():
            try:
                for layer, weight in zip(self.layers, weights, strict=True):
                    weight += layer.get_delta_weight("default")
                yield
            finally:
                for weight, before in zip(weights, saved, strict=True):
                    weight.copy_(before)

    def state_dict(self) -> dict[str, Tensor]:
        named = self.model.named_parameters()
        return {name: p.detach().clone() for name, p in named if p.requires_grad}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(state[name])

    def metrics(self) -> dict[str, float]:
        return norm(self.parameters())

    def save(self, folder: Path, store: Store) -> int:
        from peft import get_peft_model_state_dict

        settings = self.settings.to_dict() | {"inference_mode": True}
        text = json.dumps(settings, indent=2, default=lambda kind: sorted(kind), sort_keys=True)
        write_atomically(folder / PEFT_CONFIG, text.encode())
        num_bytes = write(folder / PEFT_WEIGHTS, get_peft_model_state_dict(self.peft), store)
        return num_bytes + len(text.encode())

    def write_lora(self, folder: Path) -> None:
        """Write the current parameters into a new folder, for engines that serve LoRA."""
        folder.mkdir()
        self.save(folder, "fp32")

    def load(self, folder: Path) -> "PeftPolicy":
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(self.peft, read(folder / PEFT_WEIGHTS))
        return self

    def detach(self) -> None:
        self.peft.unload()
        for parameter in self._frozen:
            parameter.requires_grad_(True)


def lora(model: Any, config: AdapterConfig) -> PeftPolicy:
    from peft import LoraConfig

    rank = config.rank
    settings = LoraConfig(r=rank, lora_alpha=rank, target_modules=names_of(model, config))
    return PeftPolicy(model, settings, config.seed)


def vera(model: Any, config: AdapterConfig) -> PeftPolicy:
    from peft import VeraConfig

    settings = VeraConfig(
        r=config.rank,
        target_modules=names_of(model, config),
        projection_prng_key=config.seed,
    )
    return PeftPolicy(model, settings, config.seed)


def other(kind: str, model: Any, config: AdapterConfig) -> PeftPolicy:
    """A method of PEFT's by its name, checked for what the loop relies on.

    Raises:
        RequestError: PEFT has no such method, refuses its settings or the model; or the method
            does not fit the loop.
    """
    names = names_of(model, config)
    settings = peft_config(kind, config, names)
    before = _logits(model)
    try:
        policy = PeftPolicy(model, settings, config.seed, is_additive=False)
        reason = unfit(policy, len(names), before)
    except PEFT_ERRORS as error:
        raise _refused(kind, config, error) from None
    if reason is not None:
        policy.detach()
        raise RequestError(
            f"method = peft:{kind} {reason}, which the training loop cannot use. Use another "
            "method."
        )
    return policy


def unfit(policy: PeftPolicy, num_layers: int, before: Tensor) -> str | None:
    """Why a method cannot be trained here, tried with parameters that are not its first ones.

    Args:
        before: `_logits` of the model without the method.
    """
    if len(policy.layers) != num_layers:
        return f"puts {len(policy.layers)} layers on {num_layers} linear layers"
    start = policy.state_dict()
    policy.load_state_dict({name: value + NUDGE for name, value in start.items()})
    try:
        if not torch.equal(_logits(policy.model), _logits(policy.model)):
            return "gives different answers to the same tokens"
        with policy.reference():
            is_off = torch.allclose(_logits(policy.model), before, atol=1e-4, rtol=1e-3)
        return None if is_off else "changes the base model also where it is switched off"
    finally:
        policy.load_state_dict(start)


def count(kind: str, maps: Sequence[LinearMap], config: AdapterConfig) -> int:
    """How many parameters a method of PEFT's trains, by PEFT itself on layers of these shapes.

    Raises:
        RequestError: as `other`, or the method needs the weights to be counted.
    """
    from peft import get_peft_model

    settings = peft_config(kind, config, [linear.name for linear in maps])
    try:
        with torch.random.fork_rng():
            policy = get_peft_model(_skeleton(maps), settings)
    except PEFT_ERRORS as error:
        raise _refused(kind, config, error) from None
    return sum(p.numel() for p in policy.parameters() if p.requires_grad)


def _skeleton(maps: Sequence[LinearMap]) -> Any:
    """Linear layers of these names and shapes, without weights."""
    root = nn.Module()
    for linear in maps:
        place = root
        *path, last = linear.name.split(".")
        for name in path:
            if not hasattr(place, name):
                place.add_module(name, nn.Module())
            place = getattr(place, name)
        layer = nn.Linear(linear.d_in, linear.d_out, bias=False, device="meta")
        place.add_module(last, layer)
    return root


def peft_config(kind: str, config: AdapterConfig, names: Sequence[str]) -> Any:
    """PEFT's settings object, on the linear layers of these names.

    Raises:
        RequestError: PEFT has no such method, or it does not take linear layers by name.
    """
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    table = PEFT_TYPE_TO_CONFIG_MAPPING.items()
    kinds: dict[str, Any] = {name.lower(): made for name, made in table}
    takes_names = [name for name, made in kinds.items() if hasattr(made, "target_modules")]
    if kind not in takes_names:
        raise RequestError(
            f"method = peft:{kind}, but the installed PEFT has no method of this name for linear "
            f"layers. It has {', '.join(sorted(takes_names))}."
        )
    if kind == "adalora":
        raise RequestError(
            "method = peft:adalora moves ranks between layers during training, which the training "
            "loop would have to call for. Use another method, such as lora."
        )
    assert isinstance(config, PeftAdapter)
    if "target_modules" in config.peft_settings:
        raise RequestError(
            "peft_settings sets target_modules, which targets and layers choose. Leave it out."
        )
    try:
        return kinds[kind](target_modules=list(names), **config.peft_settings)
    except PEFT_ERRORS as error:
        raise _refused(kind, config, error) from None


def _refused(kind: str, config: AdapterConfig, error: Exception) -> RequestError:
    held = getattr(config, "peft_settings", {})
    return RequestError(
        f"method = peft:{kind} with peft_settings = {held}: PEFT refuses this: "
        f"{' '.join(str(error).split())}"
    )


@torch.no_grad()
def _logits(model: Any) -> Tensor:
    ids = torch.tensor([PROBE], device=model.device)
    logits: Tensor = model(input_ids=ids, use_cache=False).logits.float()
    return logits


def names_of(model: Any, config: AdapterConfig) -> list[str]:
    maps = linear_maps(model, config.targets, config.layers)
    by_module = {id(module): name for name, module in model.named_modules()}
    return [by_module[id(linear.module)] for linear in maps]
