"""An adapter as one line of text, to paste into a message: `tl1:` and base64url without padding.

The layout is final. The bytes are: the version of the settings' defaults (1); a byte for the
precision of v, plus 4 where there is a revision; what is not fixed in size, as JSON compressed
against `DICTIONARY` (it ends itself); 4 bytes of the modules' hash; 8 of the revision; v, in little
endian; the fingerprint's digits; CRC-32 of all before it.

A text leaves out what is as in `DEFAULTS`, and has half of the modules' hash and less than half of
the revision. Equal adapters may be texts that differ, where zlib compresses in another way.
"""

import base64
import itertools
import json
import math
import re
import zlib
from typing import Any

import torch

from tinylora.adapter.contents import DTYPES, AdapterFile, Store, as_stored, kept_settings
from tinylora.errors import RequestError
from tinylora.settings import SEVEN_MAPS, TEXT_PREFIX, AdapterConfig

VERSION = 1
DEFAULTS = {  # of version 1, for ever; a setting that is not here is always written
    "u": 13,
    "rank": 2,
    "num_groups": 1,
    "sharing": "tiled",
    "seed": 0,
    "scale": True,
    "basis": "svd",
    "subspace": "top",
    "projection": "gaussian",
    "targets": list(SEVEN_MAPS),
    "layers": "all",
}
STORES = tuple(DTYPES)
HAS_REVISION = 4
MODULES_BYTES, REVISION_BYTES, CRC_BYTES = 4, 8, 4
MAX_JSON = 1 << 20
DICTIONARY = (  # of version 1, for ever: what texts are likely to hold, the likeliest last
    b'"targets":["c_attn","c_proj","c_fc","query_key_value","dense","fc1","fc2","qkv_proj",'
    b'"gate_up_proj"],"projection":"identity","subspace":"middle","basis":"random","scale":false,'
    b'"layers":"early","layers":"late","sharing":"structured","seed":1,"num_groups":null,"u":1,'
    b'"rank":1},"num_groups":196,"kind":"nf4","kind":"int8","left_out":["model.layers.0.mlp.gate_'
    b'proj","model.layers.1.mlp.up_proj","model.layers.2.mlp.down_proj","model.layers.3.self_attn.'
    b'q_proj","model.layers.4.self_attn.k_proj","model.layers.5.self_attn.v_proj","model.layers.6.'
    b'self_attn.o_proj"],"config":{"num_groups":13,"u":1},{"base":"mistralai/Mistral-7B-Instruct-v0.'
    b'3"{"base":"google/gemma-3-4b-it"{"base":"microsoft/Phi-4-mini-instruct"{"base":"deepseek-ai/'
    b'DeepSeek-R1-Distill-Qwen-1.5B"{"base":"pocket"{"base":"meta-llama/Llama-3.2-3B-Instruct"'
    b'{"base":"meta-llama/Llama-3.1-8B-Instruct"{"base":"Qwen/Qwen3-8B"{"base":"Qwen/Qwen2.5-Math-'
    b'7B-Instruct"{"base":"Qwen/Qwen2.5-Coder-3B-Instruct"{"base":"Qwen/Qwen2.5-7B-Instruct"}'
)


def is_text(source: str) -> bool:
    """Whether this is an adapter's text, of whatever version, and not a path."""
    return re.match(r"\s*tl\d+:", source) is not None


def encode(contents: AdapterFile, store: Store) -> str:
    """One line of text.

    Raises:
        RequestError: `store` is unknown, or v does not fit into it (inf, nan).
    """
    v = as_stored(contents.v, store)
    kind, _, digits = contents.fingerprint.partition(":")
    has_revision = re.fullmatch(r"[0-9a-f]{16,}", contents.revision) is not None
    body = b"".join(
        [
            bytes([VERSION, STORES.index(store) + HAS_REVISION * has_revision]),
            _compress(_rest(contents, kind)),
            bytes.fromhex(contents.modules)[:MODULES_BYTES],
            bytes.fromhex(contents.revision[: 2 * REVISION_BYTES]) if has_revision else b"",
            v.view(torch.uint8).numpy().tobytes(),
            bytes.fromhex(digits),
        ]
    )
    data = body + zlib.crc32(body).to_bytes(CRC_BYTES, "little")
    return TEXT_PREFIX + base64.urlsafe_b64encode(data).decode().rstrip("=")


def decode(text: str) -> AdapterFile:
    """What a text holds; spaces and line breaks in it do not matter.

    Raises:
        RequestError: a character is wrong or missing, or it is a text of another version.
    """
    text = "".join(text.split())
    if not text.startswith(TEXT_PREFIX):
        raise RequestError(
            f"{_short(text)} is an adapter's text of a version that this tinylora cannot read (it "
            f"reads {TEXT_PREFIX}). Install a newer tinylora."
        )
    data = _bytes(text)
    if data[0] != VERSION:
        raise RequestError(
            f"{_short(text)} was written with the defaults of version {data[0]}, but this tinylora "
            f"knows those of version {VERSION}. Install a newer one."
        )
    try:
        return _contents(data)
    except RequestError:
        raise
    except (LookupError, TypeError, ValueError, RuntimeError, zlib.error) as error:
        raise RequestError(
            f"{_short(text)} has a matching checksum but cannot be read ({error!r}): another "
            "program wrote it. Get it from adapter.to_text()."
        ) from None


def _rest(contents: AdapterFile, kind: str) -> dict[str, Any]:
    """What is not fixed in size, without what is empty or as in `DEFAULTS`."""
    settings = kept_settings(contents.config)
    rest = {
        "base": contents.base,
        "config": {  # in the order of `DICTIONARY`
            k: settings[k] for k in sorted(settings) if DEFAULTS.get(k, ...) != settings[k]
        },
        "num_groups": len(contents.v) if contents.config.num_groups is None else None,
        "kind": "" if kind == "plain" else kind or "none",
        "left_out": contents.left_out,
    }
    return {name: value for name, value in rest.items() if value}


def _contents(data: bytes) -> AdapterFile:
    """From bytes that have been checked."""
    flags, (rest, data) = data[1], _decompress(data[2:])
    config = AdapterConfig(**{**DEFAULTS, **rest.get("config", {})})
    dtype = DTYPES[STORES[flags % HAS_REVISION]]
    shape = config.num_groups or rest["num_groups"], config.u
    revision_bytes = REVISION_BYTES * (flags // HAS_REVISION)
    sizes = MODULES_BYTES, revision_bytes, math.prod(shape) * dtype.itemsize
    modules, revision, numbers, digits = _cut(data, *sizes)
    kind = rest.get("kind", "plain")
    return AdapterFile(
        v=torch.frombuffer(bytearray(numbers), dtype=dtype).reshape(shape),
        config=config,
        modules=modules.hex(),
        left_out=tuple(rest.get("left_out", ())),
        base=rest.get("base", ""),
        revision=revision.hex(),
        fingerprint="" if kind == "none" else f"{kind}:{digits.hex()}",
    )


def _cut(data: bytes, *sizes: int) -> list[bytes]:
    """Pieces of these sizes, and what is left."""
    ends = [0, *itertools.accumulate(sizes), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(ends)]


def _bytes(text: str) -> bytes:
    """What the characters stand for, without the checksum, which agrees."""
    digits = text.removeprefix(TEXT_PREFIX)
    try:
        data = base64.b64decode(digits + "=" * (-len(digits) % 4), altchars=b"-_", validate=True)
    except ValueError:  # also of a character that is none of ASCII's
        data = b""
    body, crc = data[:-CRC_BYTES], data[-CRC_BYTES:]
    is_canonical = base64.urlsafe_b64encode(data).decode().rstrip("=") == digits
    if not body or not is_canonical or zlib.crc32(body).to_bytes(CRC_BYTES, "little") != crc:
        raise RequestError(
            f"{_short(text)} is a damaged text: its checksum does not match, so a character is "
            "mistyped, missing or added. Copy it again."
        )
    return body


def _compress(rest: dict[str, Any]) -> bytes:
    text = json.dumps(rest, separators=(",", ":")).encode()
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=DICTIONARY)
    return stream.compress(text) + stream.flush()


def _decompress(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON at the beginning, and the bytes after it."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS, zdict=DICTIONARY)
    rest: dict[str, Any] = json.loads(stream.decompress(data, MAX_JSON))
    return rest, stream.unused_data


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:20]}...{text[-8:]}"
