"""Numbers that are trained in half precision stay on its grid; in fp32 they do not."""

import pytest
import torch

from helpers.standins import SteeringPolicy, tiny_model
from tinylora.algorithms.optimizer import learning_rate_at, make_optimizer, step_clipped
from tinylora.settings import Adam


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_numbers_stay_on_the_grid_of_their_precision(precision: str, dtype: torch.dtype) -> None:
    on_grid = {}
    for name in ("fp32", precision):
        policy = SteeringPolicy(tiny_model())
        settings = Adam(precision=name, learning_rate=0.013, schedule="constant")  # type: ignore[arg-type]
        optimizer = make_optimizer(policy, settings)
        for step in range(3):
            policy.v.grad = torch.linspace(0.1, 1, len(policy.v))
            rate = learning_rate_at(step, 60, settings)
            step_clipped(policy, optimizer, settings, rate)
        on_grid[name] = torch.equal(policy.v, policy.v.to(dtype).float())
        assert bool(policy.v.any())
    assert on_grid == {"fp32": False, precision: True}
