"""The pictures of docs/play.md: the page without a server, in Chromium.

    make playground && .venv/bin/python recipes/playground/pictures.py     (needs chromium)

Writes docs/figures/play*.png, each below 200 kB.
"""

import shutil
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "figures"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
WAIT_MS = 300_000


class Quiet(SimpleHTTPRequestHandler):
    """A plain web host that says nothing."""

    def log_message(self, *args: object) -> None:
        """Nothing."""


def main() -> None:
    folder = ROOT / "docs" / "playground"
    if not (folder / "model.onnx").is_file():
        sys.exit(f"{folder} is not built. Run: make playground")
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_playwright() as driver:
        Thread(target=server.serve_forever, daemon=True).start()
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        address = f"http://127.0.0.1:{server.server_port}/"
        take(browser, address, "play", {"width": 1280, "height": 900})
        take(browser, address, "play-landscape", {"width": 1280, "height": 900}, numbers="1")
        take(browser, address, "play-phone", {"width": 390, "height": 1300})
        browser.close()
        server.shutdown()


def take(
    browser: Any, address: str, name: str, size: dict[str, int], numbers: str | None = None
) -> None:
    """One picture, when everything on the page has been measured."""
    page = browser.new_page(viewport=size)
    page.set_default_timeout(WAIT_MS)
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    if numbers is not None:
        page.select_option("#space", numbers)
    page.wait_for_selector("body[data-busy=no]")
    path = FIGURES / f"{name}.png"
    what = page.locator("#chart-box") if numbers is not None else page
    what.screenshot(path=path)
    picture = Image.open(path).convert("RGB").quantize(128)
    picture.save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")
    page.close()


if __name__ == "__main__":
    main()
