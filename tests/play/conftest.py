"""A playground of the embedded model, with the run that comes with it."""

import pytest

from tinylora.play.opening import Playground, open_model
from tinylora.settings.evaluate import EvalConfig


@pytest.fixture(scope="package")
def playground() -> Playground:
    config = EvalConfig(model="pocket", task="pocket", max_new_tokens=40, device="cpu")
    return open_model("pocket", None, config, num_problems=8)
