"""PEFT's own TinyLoRA as an oracle: its layers, given our factors, give our logits."""

import peft
import pytest
import torch
from test_layer import logits

from helpers.tiny import FAMILIES, GPT2_TARGETS, config_of, model_of, tokens, values_like
from tinylora.adapter import attach
from tinylora.adapter.factors import projections
from tinylora.adapter.svd import truncated_svd


def peft_model(family, config):
    targets = list(GPT2_TARGETS if family == "gpt2" else config.targets)
    settings = peft.TinyLoraConfig(
        r=config.rank, u=config.u, target_modules=targets, fan_in_fan_out=family == "gpt2"
    )
    return peft.get_peft_model(model_of(family), settings)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft 0.21's
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_with_our_factors_and_core_gives_our_logits(family):
    """Its map is U sqrt(S) R sqrt(S) V^T, ours U S R V^T: R_peft = sqrt(S) R / sqrt(S).

    Its fp32 SVD gives the same product as ours, with LAPACK's signs and a larger error: for logits
    to 1e-5 its factors are then set to ours.
    """
    ours, ids = model_of(family), tokens()
    config = config_of(family, num_groups=None)
    adapter = attach(ours, config)
    adapter.set_values(values_like(adapter.v))
    theirs = peft_model(family, config)
    for group, (name,) in enumerate(adapter.modules_by_group):
        layer = theirs.get_submodule(f"base_model.model.{name}")
        module = ours.get_submodule(name)
        factors = truncated_svd(module.weight.T if family == "gpt2" else module.weight, config.rank)
        A, B = layer.tinylora_A["default"], layer.tinylora_B["default"]
        root = factors.S.sqrt()
        assert torch.allclose(
            (B @ A).double(), factors.U * factors.S @ factors.V.T, rtol=0, atol=2e-4
        )
        A.copy_((factors.V * root).T)
        B.copy_(factors.U * root)
        layer.tinylora_P["default"].copy_(root[:, None] * projections(name, config) / root[None, :])
        key = layer._tinylora_v_key["default"]
        layer.tinylora_v["default"][key].data.copy_(adapter.v.detach()[group])
    assert not torch.allclose(logits(ours, ids), logits(model_of(family), ids), atol=0.1)
    assert torch.allclose(logits(ours, ids), logits(theirs, ids), rtol=0, atol=1e-5)
