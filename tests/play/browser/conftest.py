"""A real browser, and both pages in it: that of `tinylora play`, and the one without a server."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from helpers.pages import FLAGS, SECONDS, Open

if TYPE_CHECKING:
    from playwright.sync_api import Browser

if find_spec("playwright") is None:  # make test-browser installs it
    collect_ignore_glob = ["test_*.py"]
RECIPE = Path(__file__).parents[3] / "recipes" / "playground"


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """Debian's Chromium, with a profile of its own."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.fail("Chromium was not found on PATH. Install it: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def served_address() -> Iterator[str]:
    """`tinylora play` in a process of its own, as a user starts it."""
    argv = [sys.executable, "-m", "tinylora", "play", "--port=0", "--problems=32"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield line.split(": ")[1].split(" ")[0]
        process.terminate()


@pytest.fixture(scope="session")
def static_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make playground` builds."""
    folder = tmp_path_factory.mktemp("playground")
    subprocess.run([sys.executable, RECIPE / "build.py", "--out", folder], check=True)
    return folder


class Quiet(SimpleHTTPRequestHandler):
    """A plain web host that says nothing."""

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="session")
def static_address(static_folder: Path) -> Iterator[str]:
    handler = partial(Quiet, directory=str(static_folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(params=["served", "static"])
def address(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_address")
    return found


@pytest.fixture
def open_page(browser: "Browser") -> Iterator[Open]:
    """Opens pages that are ready, and says what their consoles said."""
    said: list[str] = []
    contexts = []

    def open_one(url: str, **options: object) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * SECONDS)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(url)
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_one
    for context in contexts:
        context.close()
    refusals = "the server responded with a status of 400"  # of a text that is wrong on purpose
    assert [line for line in said if refusals not in line] == []
