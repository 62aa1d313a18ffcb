"""Rollouts by stock `vllm serve` processes, anywhere: the OpenAI protocol and LoRA endpoints.

Each server is a replica of the same base model. The prompts of a step are one heap; every replica
takes from it as it gets done. What a replica fails at goes back, and after a few failures in a row
it rests until the next version of the adapter: the others answer in its place, with the same seeds,
so that a step is not lost. Tokens travel as ids, both ways.

Start a replica with

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve MODEL --enable-lora --max-lora-rank 8 \\
        --logprobs-mode processed_logprobs

It does not cover: handing files to servers that share no folder with the trainer, or servers that
ask for a key.
"""

import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from tinylora.errors import TinyLoraError
from tinylora.rollout.engine import Completion, Sampling

IN_FLIGHT = 32  # prompts that a replica works on at once
MOST_FAILURES = 3  # in a row; then a replica rests
CONNECT_TIMEOUT_S = 10.0
START = (
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve MODEL --enable-lora --max-lora-rank 8 "
    "--logprobs-mode processed_logprobs"
)


class Replica:
    """One server, and how it is doing."""

    def __init__(self, address: str, timeout_s: float) -> None:
        self.address = address
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        limits = httpx.Limits(max_connections=None)
        self.client = httpx.Client(base_url=address, timeout=timeout, limits=limits)
        self.num_failures = 0  # in a row
        self.failure = "it was not asked yet"  # the last one

    @property
    def works(self) -> bool:
        return self.num_failures < MOST_FAILURES

    def load(self, folder: Path) -> None:
        """Serve the LoRA in `folder` under its name; a server that does already is content.

        Raises:
            TinyLoraError: the server refuses it, and would again.
        """
        body = {"lora_name": folder.name, "lora_path": str(folder)}
        try:
            response = self.client.post("/v1/load_lora_adapter", json=body)
        except httpx.HTTPError as error:
            self.rest(error)
            return
        if response.is_error and "has already been loaded" not in response.text:
            raise TinyLoraError(
                f"{self.address} did not load the adapter in {folder} ({said(response)}). Start "
                f"it with: {START}. It must also see that folder under the same path "
                "(adapter_dir)."
            )
        self.num_failures = 0

    def unload(self, folder: Path) -> None:
        """Forget the LoRA, which a server that failed has done anyway."""
        try:
            self.client.post("/v1/unload_lora_adapter", json={"lora_name": folder.name})
        except httpx.HTTPError as error:
            self.rest(error)

    def complete(self, body: dict[str, Any], folder: Path) -> list[Any] | None:
        """The choices for one prompt; None: it failed this time.

        Raises:
            TinyLoraError: the server refuses the request, and would again.
        """
        try:
            response = self.client.post("/v1/completions", json=body)
            if response.status_code == 404:  # it was started anew, and knows no adapter
                self.load(folder)
                response = self.client.post("/v1/completions", json=body)
            if 400 <= response.status_code < 500:
                raise TinyLoraError(
                    f"{self.address} refused a prompt ({said(response)}). Start it with the base "
                    f"model that is trained: {START}."
                )
            if response.is_success:
                self.num_failures = 0
                choices: list[Any] = response.json()["choices"]
                return choices
            failure = said(response)
        except httpx.TimeoutException as error:
            self.rest(error)
            return None
        except httpx.HTTPError as error:
            failure = described(error)
        self.num_failures, self.failure = self.num_failures + 1, failure
        return None

    def rest(self, error: Exception) -> None:
        """Take no more prompts until the next version."""
        self.num_failures, self.failure = MOST_FAILURES, described(error)


class Replicas:
    """Several servers as one.

    Args:
        addresses: `http://HOST:PORT` of each.
        timeout_s: for one prompt's completions.
    """

    def __init__(self, addresses: Sequence[str], timeout_s: float) -> None:
        self.replicas = [Replica(address, timeout_s) for address in addresses]
        self._folder = Path()

    def load(self, folder: Path) -> None:
        """Serve the LoRA in `folder` from now on; replicas that rest are asked again.

        Raises:
            TinyLoraError: a server refuses it, or none answers.
        """
        self._folder = folder
        with ThreadPoolExecutor(len(self.replicas)) as pool:
            list(pool.map(lambda replica: replica.load(folder), self.replicas))
        self._working()

    def unload(self, folder: Path) -> None:
        """Forget the LoRA wherever there is somebody to do so."""
        for replica in self.replicas:
            if replica.works:
                replica.unload(folder)

    def generate(
        self, prompts: Sequence[list[int]], num_samples: int, sampling: Sampling, seeds: list[int]
    ) -> list[list[Completion]]:
        """Completions under the adapter loaded last.

        Raises:
            TinyLoraError: a server refuses a prompt, or none is left.
        """
        folders = [self._folder] * len(prompts)
        return self._answers(prompts, num_samples, sampling, seeds, folders)

    def generate_each(
        self,
        prompts: Sequence[list[int]],
        sampling: Sampling,
        seeds: list[int],
        adapters: Sequence[Path],
    ) -> list[Completion]:
        """A completion of each prompt under the adapter in its own folder; errors as `generate`'s.

        A replica mixes as many adapters in a batch as its `--max-loras` says.
        """
        served, folders = self._folder, dict.fromkeys(adapters)
        try:
            for folder in folders:
                self.load(folder)
            answers = self._answers(prompts, 1, sampling, seeds, adapters)
        finally:
            for folder in folders:
                self.unload(folder)
            self._folder = served
        return [answer for (answer,) in answers]

    def _answers(
        self,
        prompts: Sequence[list[int]],
        num_samples: int,
        sampling: Sampling,
        seeds: list[int],
        folders: Sequence[Path],
    ) -> list[list[Completion]]:
        """`num_samples` completions of each prompt under the adapter in its folder."""
        bodies = [
            request(folder.name, prompt, num_samples, sampling, seed)
            for prompt, seed, folder in zip(prompts, seeds, folders, strict=True)
        ]
        asked = dict(enumerate(zip(bodies, folders, strict=True)))
        choices: dict[int, list[Any]] = {}
        while len(choices) < len(asked):
            self._round({i: asked[i] for i in asked if i not in choices}, choices)
        ends = set(sampling.eos_token_ids)
        return [[completion(one, ends) for one in choices[i]] for i in asked]

    def close(self) -> None:
        """Close the connections."""
        for replica in self.replicas:
            replica.client.close()

    def _round(
        self, asked: dict[int, tuple[dict[str, Any], Path]], choices: dict[int, list[Any]]
    ) -> None:
        """Ask for every prompt once; whatever fails is left for another round."""
        left: queue.SimpleQueue[int] = queue.SimpleQueue()
        for place in asked:
            left.put(place)

        def work(replica: Replica) -> None:
            while replica.works:
                try:
                    place = left.get_nowait()
                except queue.Empty:
                    return
                answer = replica.complete(*asked[place])
                if answer is not None:
                    choices[place] = answer

        hands = [r for r in self._working() for _ in range(min(IN_FLIGHT, len(asked)))]
        with ThreadPoolExecutor(len(hands)) as pool:
            list(pool.map(work, hands))

    def _working(self) -> list[Replica]:
        working = [replica for replica in self.replicas if replica.works]
        if not working:
            causes = "; ".join(f"{replica.address}: {replica.failure}" for replica in self.replicas)
            raise TinyLoraError(
                f"No vLLM server is left to sample from ({causes}). Start one with: {START}. Then "
                "resume from the last checkpoint with --resume."
            )
        return working


def request(
    name: str, prompt: list[int], num_samples: int, sampling: Sampling, seed: int
) -> dict[str, Any]:
    """The body for one prompt.

    What a model's generation_config.json may set (top_p, top_k, ...) is set back here: a server
    takes its defaults from there, and the answers would come from another distribution.
    """
    return {
        "model": name,
        "prompt": prompt,
        "n": num_samples,
        "seed": seed,
        "temperature": sampling.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "max_tokens": sampling.max_new_tokens,
        "stop_token_ids": list(sampling.eos_token_ids),
        "logprobs": 0,  # of the drawn token alone
        "return_token_ids": True,
    }


def completion(choice: Any, ends: set[int]) -> Completion:
    """A choice of the OpenAI protocol as ours."""
    ids, values = choice["token_ids"], choice["logprobs"]["token_logprobs"]
    if choice["finish_reason"] not in ("stop", "length") or len(ids) != len(values) or not ids:
        raise TinyLoraError(
            f'A server ended a completion with "{choice["finish_reason"]}" after {len(ids)} '
            f"tokens and {len(values)} log-probabilities, so it is incomplete. Look at the "
            "server's log."
        )
    return Completion(ids, values, truncated=ids[-1] not in ends)


def said(response: httpx.Response) -> str:
    """What a server answered, in a line."""
    return f"{response.status_code}: {' '.join(response.text.split())[:300]}"


def described(error: Exception) -> str:
    """A failure in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
