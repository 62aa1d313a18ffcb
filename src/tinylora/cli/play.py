"""`tinylora play`: a local page with a slider for every number of an adapter."""

import os
import webbrowser
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tinylora.cli.options import Verb, split
from tinylora.errors import RequestError, install_hint
from tinylora.settings import TASK_GROUPS, AdapterConfig
from tinylora.settings.evaluate import eval_config
from tinylora.settings.play import LOCAL, PLACED, PLAY_FIELDS, PlaySettings

if TYPE_CHECKING:
    from tinylora.play.opening import Playground

VERB = Verb(
    name="play",
    description="""\
Open a local web page with a slider for every number of an adapter: what the
base model and the steered one answer, side by side, how many problems come out
right, where the model breaks, and the path that training took.""",
    examples="""\
  tinylora play                                 the embedded model, with a run of 13 numbers
  tinylora play runs/a                          a run, with its snapshots
  tinylora play tl1:... --task gsm8k            an adapter that somebody sent, on a task
  tinylora play smollm2 --num-groups 2          a model with two sliders""",
    groups={**PLAY_FIELDS, **TASK_GROUPS},
    positional="source",
)


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    settings, given = split(PlaySettings, VERB.given(argv))
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise RequestError(f"The playground needs starlette and uvicorn. {install_hint('play')}.")
    from tinylora.play.guard import is_loopback
    from tinylora.play.server import address_of, listen, serve

    with listen(settings.host, settings.port) as listening:
        playground = opened(settings, given)
        address = address_of(listening)
        print(f"The playground of {playground.base.name}: {address} (Ctrl-C ends it)")
        if not is_loopback(settings.host):
            print(f"Anybody who reaches this address can use the model; --host {LOCAL} is private.")
        if settings.browser:
            webbrowser.open(address)
        serve(playground, listening, settings.host)


def opened(settings: PlaySettings, given: dict[str, Any]) -> "Playground":
    """The adapter or model that was named, with everything that its page shows."""
    from tinylora.cli.quiet import quieten
    from tinylora.evaluate.measure import base_name, is_adapter
    from tinylora.play.opening import open_adapter, open_model

    placed = {name: given.pop(name) for name in PLACED if name in given}
    source = os.path.expanduser(settings.source or "pocket")
    if is_adapter(source):
        if placed:
            raise RequestError(
                f"--{next(iter(placed)).replace('_', '-')} is for a model, but {settings.source} "
                "is an adapter, which has its own settings. Leave it out."
            )
        config = eval_config({**given, "adapter": source})
        quieten(base_name(config.model, config.adapters))
        return open_adapter(source, config, settings.problems)
    if "model" in given:
        raise RequestError(
            f"--model {given['model']} names the base of an adapter, but {source} is a model "
            "itself. Leave --model out."
        )
    quieten(source)
    config = eval_config({**given, "model": source})
    return open_model(
        source, AdapterConfig(**placed) if placed else None, config, settings.problems
    )
