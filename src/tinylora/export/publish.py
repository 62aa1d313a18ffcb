"""An adapter as a repository of the hub: its file, and a card that has it as text, too.

Nothing is computed, so that the base model need not be here: whoever loads the adapter checks that
theirs is the one it was trained on.
"""

from pathlib import Path

from tinylora.adapter import files
from tinylora.adapter.contents import DTYPES, AdapterFile, smallest_store
from tinylora.adapter.hub import upload
from tinylora.adapter.text import encode
from tinylora.atomic import new_folder
from tinylora.errors import RequestError
from tinylora.export.card import (
    CARD,
    LONGEST_TEXT,
    PAPER,
    UNNAMED,
    ExportKind,
    accuracies,
    front_matter,
    is_on_the_hub,
    table,
)

IN_THE_BOX = ("pocket", "smollm2")  # base models by names of our own
LONGEST_IN_METADATA = 16384  # characters; as long a text as servers take, unless told otherwise
KIND = ExportKind(
    to="adapter", what="TinyLoRA numbers", library="tinylora", relation="adapter", how=""
)


def check_hub_id(hub_id: str) -> None:
    """Refuse what the hub, or `tinylora.load`, would not take for a repository.

    Raises:
        RequestError: it is not `owner/name`.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(hub_id)
        if hub_id.count("/") == 1:
            return
        cause = "it has no owner"
    except HFValidationError as error:
        cause = str(error).split("\n")[0].rstrip(".")
    raise RequestError(
        f"{hub_id} cannot be a repository of the hub ({cause}). Use OWNER/NAME, such as "
        "someone/thirteen-numbers."
    )


def write_repository(source: str | Path, hub_id: str, folder: str | Path) -> Path:
    """Write what `publish` uploads into a new folder.

    Args:
        source: the adapter in any of its forms; that of a run gives the run's accuracies.
        hub_id: of the repository, OWNER/NAME.
        folder: which is made, and must not be there yet.

    Raises:
        RequestError: there is no adapter at `source`; the id is wrong; the folder is not free.
    """
    check_hub_id(hub_id)
    contents = files.read(source)
    with new_folder(Path(folder)) as scratch:
        num_bytes = files.write(scratch / files.FILE_NAME, contents, _store(contents))
        card = _card(contents, hub_id, num_bytes, source)
        (scratch / CARD).write_text(card, encoding="utf-8")
    return Path(folder)


def publish(source: str | Path, hub_id: str, *, private: bool = False) -> str:
    """Put an adapter on the hub, from where `tinylora.load(model, hub_id)` takes it.

    Args:
        source: the adapter in any of its forms; that of a run gives the run's accuracies.
        hub_id: of the repository, OWNER/NAME.
        private: whether only its owner can read a repository that is made.

    Returns:
        The address of the commit.

    Raises:
        RequestError: as `write_repository`; there is no token, or the hub refused.
    """
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as scratch:
        folder = write_repository(source, hub_id, Path(scratch) / "repository")
        return upload(folder, hub_id, private=private)


def _store(contents: AdapterFile) -> files.Store:
    """The precision that v has."""
    stores: tuple[files.Store, ...] = ("fp32", "bf16", "fp16")
    return next(store for store in stores if DTYPES[store] == contents.v.dtype)


def _card(contents: AdapterFile, hub_id: str, num_bytes: int, source: str | Path) -> str:
    text = encode(contents, smallest_store(contents.v))
    more = {"tinylora": text} if len(text) <= LONGEST_IN_METADATA else {}
    count, base = contents.v.numel(), contents.base or "a model without a name"
    facts = _facts(contents, num_bytes, text if len(text) <= LONGEST_TEXT else "")
    return "\n\n".join(
        [
            front_matter(KIND, contents.base, **more),
            f"# {count} numbers on {base}",
            f"Made with tinylora (TinyLoRA, {PAPER}): every adapted matrix W of the base model "
            "acts as W + U S R V^T, where U, S, V come from W itself and R from "
            f"{count} trained numbers.",
            table([*facts, *accuracies(contents.fingerprint, source)]),
            "## How to load it",
            *_where(contents.base),
            _code(contents.base, hub_id),
        ]
    )


def _facts(contents: AdapterFile, num_bytes: int, text: str) -> list[tuple[str, str]]:
    config, (num_groups, u) = contents.config, contents.v.shape
    groups = f"{num_groups} group{'s' * (num_groups > 1)}"
    named = contents.base or "a model without a name"
    return [
        ("base model", named + (f" at {contents.revision}" if contents.revision else "")),
        ("fingerprint of its weights", contents.fingerprint or "not taken"),
        ("method", f"TinyLoRA: u = {u} in {groups}, frozen rank {config.rank}"),
        ("numbers", str(contents.v.numel())),
        ("left out", ", ".join(contents.left_out) or "none"),
        ("bytes of adapter.safetensors", f"{num_bytes:,}"),
        *([("the adapter itself", f"`{text}`")] if text else []),
    ]


def _where(base: str) -> list[str]:
    """What to write for a base model that nothing finds by its name."""
    if is_on_the_hub(base) or base in IN_THE_BOX:
        return []
    return [f"Replace `{base or UNNAMED}` by the folder of the base model."]


def _code(base: str, hub_id: str) -> str:
    way, call = "transformers import AutoModelForCausalLM", "AutoModelForCausalLM.from_pretrained"
    if base in IN_THE_BOX:
        way, call = "tinylora.models import load_model", "load_model"
    model = ".model" if base in IN_THE_BOX else ""
    return f"""```python
import tinylora
from {way}

model = {call}("{base or UNNAMED}"){model}
adapter = tinylora.load(model, "{hub_id}")  # refused on any other model
```

```sh
tinylora chat {hub_id}
tinylora eval --adapter {hub_id} --task TASK
tinylora export {hub_id} --to lora --out lora  # for PEFT and vLLM
```

The key `tinylora` of this card's metadata is the adapter as text, which is taken wherever its file
is.
"""
