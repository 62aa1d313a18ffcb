"""The playground in a real browser: how it is opened, waited for and read."""

import re
from collections.abc import Callable
from typing import Any

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SECONDS = 180  # at most, for what a page computes

Open = Callable[..., Any]


def settle(page: Any, until: str = "chart") -> None:
    """Wait until answers and gauge are those of the numbers; `no`: until the chart is drawn too."""
    states = ["chart", "no"] if until == "chart" else ["no"]
    page.wait_for_function("(states) => states.includes(document.body.dataset.busy)", arg=states)


def after(page: Any, act: Callable[[], object]) -> None:
    """Do what changes something, and wait for what follows."""
    page.evaluate("document.body.dataset.busy = 'test'")
    act()
    settle(page)


def reading(page: Any) -> tuple[int, int]:
    """Right answers, and of how many."""
    of = re.search(r"of (\d+)", page.inner_text("#of"))
    assert of is not None
    return int(page.inner_text("#right")), int(of[1])


def numbers(page: Any) -> list[str]:
    """What the sliders say."""
    sliders = page.query_selector_all("#sliders input[type=range]")
    return [slider.get_attribute("aria-valuetext") for slider in sliders]
