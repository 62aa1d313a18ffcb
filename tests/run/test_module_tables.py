"""What share of the weights is adapted, in words."""

import pytest

from helpers.decoders import decoder_of
from tinylora.adapter.modules import default_targets, linear_maps
from tinylora.run.module_tables import block_weights, coverage_note


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3"])
def test_nothing_is_said_where_all_is_adapted(kind: str) -> None:
    model = decoder_of(kind)
    assert coverage_note(model, linear_maps(model, default_targets(model))) == ""


def test_the_share_of_experts_is_said() -> None:
    """In each of two blocks: 4 experts of 3 x 48 x 32, attention, and a router of 4 x 32."""
    model = decoder_of("mixtral")
    attention = 2 * 32 * 32 + 2 * 16 * 32
    total = 2 * (4 * 3 * 48 * 32 + attention + 4 * 32)
    assert sum(block_weights(model).values()) == total
    note = coverage_note(model, linear_maps(model, default_targets(model)))
    assert f"hold {2 * attention / total:.0%} of the weights" in note
    assert f"experts.gate_up_proj {2 * 4 * 2 * 48 * 32 / total:.0%}" in note
    assert "Fused experts are not linear layers" in note
