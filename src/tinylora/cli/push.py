"""`tinylora push`: an adapter published on the hub."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from tinylora.cli.options import Verb
from tinylora.settings.base import OrNone, Settings
from tinylora.settings.evaluate import ADAPTER_HELP


class Request(Settings):
    """What to publish, and where."""

    adapter: str = Field(title="ADAPTER", description=ADAPTER_HELP)
    hub_id: str = Field(title="HUB_ID", description="the repository, as OWNER/NAME")
    private: bool = Field(default=False, description="make a repository that only you can read")
    dry_run: bool = Field(
        default=False, description="write the folder that would be uploaded, and stop"
    )
    out: Annotated[str | None, OrNone] = Field(
        default=None,
        title="DIR",
        description="the folder of a dry run (none: the repository's name, here)",
    )

    def idle(self) -> dict[str, str]:
        """Only a dry run keeps its folder."""
        reason = "without dry_run, and only a dry run keeps its folder. Add --dry-run."
        return {} if self.dry_run else {"out": reason}


VERB = Verb(
    name="push",
    description="""\
Publish an adapter on the hub: its file, and a model card with its base model,
the run's accuracy and the adapter as text. Any verb then takes OWNER/NAME in
place of the adapter. The base model is not needed. Log in with
"hf auth login" first.""",
    examples="""\
  tinylora push runs/a someone/thirteen-numbers
  tinylora push tl1:... someone/thirteen-numbers --private
  tinylora push runs/a someone/thirteen-numbers --dry-run --out repository""",
    groups={"options": Request.model_fields},
    positional="adapter hub_id",
)


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    request = Request(**VERB.given(argv))
    from tinylora.export.publish import publish, write_repository

    if request.dry_run:
        folder = request.out or request.hub_id.rpartition("/")[-1]
        write_repository(request.adapter, request.hub_id, folder)
        kind = "private repository" if request.private else "repository"
        print(f"{folder}: what would be uploaded into the {kind} {request.hub_id}.")
        return
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()  # for a kilobyte
    address = publish(request.adapter, request.hub_id, private=request.private)
    print(f"{request.hub_id} is published: {address}")
