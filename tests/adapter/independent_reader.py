"""A reader of adapters by docs/reference/format.md alone: no torch, nothing of this project."""

import base64
import hashlib
import json
import struct
import zlib
from pathlib import Path
from statistics import NormalDist

import numpy as np

DICTIONARY = Path(__file__).parents[2] / "docs/reference/tl1-dictionary.txt"
KINDS = {"F32": ("float32", "<f4"), "BF16": ("bfloat16", "<u2"), "F16": ("float16", "<f2")}
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DEFAULTS = {"u": 13, "rank": 2, "num_groups": 1, "sharing": "tiled", "seed": 0, "scale": True,
            "basis": "svd", "subspace": "top", "projection": "gaussian", "targets": SEVEN,
            "layers": "all"}  # fmt: skip


def numbers(raw, kind, shape):
    bits = np.frombuffer(raw, KINDS[kind][1]).reshape(shape)
    wide = bits.astype("<u4") << 16
    return wide.view("<f4") if kind == "BF16" else bits.astype("<f4")


def read_file(data):
    size = struct.unpack("<Q", data[:8])[0]
    header, raw = json.loads(data[8 : 8 + size]), data[8 + size :]
    meta, v = json.loads(header["__metadata__"]["tinylora"]), header["v"]
    raw = raw[slice(*v["data_offsets"])]
    checksum, shape = meta.pop("checksum", None), tuple(v["shape"])
    text = json.dumps(meta, sort_keys=True, separators=(",", ":"))
    hashed = f"{text} torch.{KINDS[v['dtype']][0]} {shape} ".encode() + raw
    assert checksum in (None, hashlib.sha256(hashed).hexdigest()[:16])
    return {**meta, "v": numbers(raw, v["dtype"], shape)}


def read_text(text):
    digits = "".join(text.split()).removeprefix("tl1:")
    data = base64.urlsafe_b64decode(digits + "=" * (-len(digits) % 4))
    body, version, flags = data[:-4], data[0], data[1]
    assert (version, zlib.crc32(body)) == (1, int.from_bytes(data[-4:], "little"))
    stream = zlib.decompressobj(-15, zdict=DICTIONARY.read_bytes())
    rest = json.loads(stream.decompress(body[2:]))
    left, config = stream.unused_data, DEFAULTS | rest.get("config", {})
    shape, kind = (config["num_groups"] or rest["num_groups"], config["u"]), list(KINDS)[flags % 4]
    ends = np.cumsum([4, 8 * (flags // 4), shape[0] * shape[1] * int(KINDS[kind][1][2])])
    modules, revision, raw, digits = (
        bytes(part) for part in np.split(np.frombuffer(left, "u1"), ends)
    )
    scheme = rest.get("kind", "plain")
    return {"config": config, "v": numbers(raw, kind, shape), "modules": modules.hex(),
            "left_out": rest.get("left_out", []), "base": rest.get("base", ""),
            "revision": revision.hex(),
            "fingerprint": "" if scheme == "none" else f"{scheme}:{digits.hex()}"}  # fmt: skip


def projections(module, seed, u, rank):
    root, count = hashlib.sha256(f"tinylora/P/{seed}/{module}".encode()).digest(), u * rank * rank
    blocks = (hashlib.sha256(root + i.to_bytes(8, "big")).digest() for i in range(count // 8 + 1))
    words = np.frombuffer(b"".join(blocks), ">u4")[:count]
    normal = [NormalDist().inv_cdf((int(word) + 0.5) / 2**32) for word in words]
    odd = (2 * np.floor(np.array(normal) * 2**20) + 1).reshape(u, rank * rank)
    return (odd / np.sqrt((odd * odd).sum(1, keepdims=True))).reshape(u, rank, rank)
