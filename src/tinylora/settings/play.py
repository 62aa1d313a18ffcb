"""What `tinylora play` opens, and where it listens."""

from typing import Annotated

from pydantic import Field

from tinylora.settings.adapter import AdapterConfig
from tinylora.settings.base import OrNone, Settings
from tinylora.settings.evaluate import EvalConfig

LOCAL = "127.0.0.1"
PLACED = ("u", "rank", "num_groups", "sharing", "layers", "targets")  # of a model without adapter
KEPT = ("model", "task", "split", "max_new_tokens", "dtype", "quantize", "device", "force")


class PlaySettings(Settings):
    """What is opened, and where the page is served."""

    source: Annotated[str | None, OrNone] = Field(
        default=None,
        title="ADAPTER|RUN|MODEL",
        description="an adapter file, a run folder, an adapter's text (tl1:...) or hub id; or a "
        "model: pocket, a local folder, a hub id (none: pocket, with a run that comes with it)",
    )
    problems: int = Field(
        default=64, ge=1, le=1024, description="how many problems the gauge shows, from the first"
    )
    host: str = Field(
        default=LOCAL,
        description="the address to listen on; any other than this machine's own lets others on "
        "the network use the model",
    )
    port: int = Field(
        default=8013, ge=0, le=65535, description="the port to listen on (0: any free one)"
    )
    browser: bool = Field(default=False, description="also open the page in the browser")


PLAY_FIELDS = {
    "options": PlaySettings.model_fields,
    "what is measured, and how": {name: EvalConfig.model_fields[name] for name in KEPT},
    "how a model without an adapter is adapted": {
        name: AdapterConfig.model_fields[name] for name in PLACED
    },
}
