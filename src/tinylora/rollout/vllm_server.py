"""Rollouts by `vllm serve` processes, anywhere, over the OpenAI protocol.

A server with our plugin (`tinylora serve`) takes each version of the numbers as text, in the
requests themselves: no files, no folder in common, and as many candidates at once as it has slots.
A stock one takes LoRAs through its endpoints. Which one it is, is asked once.

Each server is a replica of the same base model. The prompts of a step are one heap; every replica
takes from it as it gets done. What a replica fails at goes back, and after a few failures in a row
it rests until the next version of the adapter: the others answer in its place, with the same seeds,
so that a step is not lost. Tokens travel as ids, both ways.

Start a replica with

    tinylora serve MODEL

or, without the plugin, with

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve MODEL --enable-lora --max-lora-rank 8 \\
        --logprobs-mode processed_logprobs

It does not cover: handing LoRA files to servers that share no folder with the trainer, or servers
that ask for a key.
"""

import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tinylora.errors import TinyLoraError
from tinylora.rollout.engine import Completion, Sampling
from tinylora.rollout.lora_engine import Version, name_of

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

    def takes(self, line: str) -> bool:
        """Whether it serves adapters by their texts, such as this one; False: it has no plugin.

        Raises:
            TinyLoraError: it has, but refuses this adapter.
        """
        body = {"model": line, "prompt": [0], "max_tokens": 1}
        try:
            response = self.client.post("/v1/completions", json=body)
        except httpx.HTTPError as error:
            self.rest(error)
            return False
        if response.status_code == 404 and "does not exist" not in response.text:
            raise TinyLoraError(f"{self.address} refused the adapter ({said(response)}).")
        return response.is_success

    def load(self, version: Version) -> None:
        """Serve this adapter; a server that does already is content. A text needs nothing here.

        Raises:
            TinyLoraError: the server refuses it, and would again.
        """
        if isinstance(version, str):
            self.num_failures = 0
            return
        body = {"lora_name": version.name, "lora_path": str(version)}
        try:
            response = self.client.post("/v1/load_lora_adapter", json=body)
        except httpx.HTTPError as error:
            self.rest(error)
            return
        if response.is_error and "has already been loaded" not in response.text:
            raise TinyLoraError(
                f"{self.address} did not load the adapter in {version} ({said(response)}). Start "
                f"it with: {START}. It must also see that folder under the same path "
                "(adapter_dir)."
            )
        self.num_failures = 0

    def unload(self, version: Version) -> None:
        """Forget the LoRA, which a server that failed has done anyway; texts are forgotten by
        themselves."""
        if isinstance(version, str):
            return
        try:
            self.client.post("/v1/unload_lora_adapter", json={"lora_name": version.name})
        except httpx.HTTPError as error:
            self.rest(error)

    def complete(self, body: dict[str, Any], version: Version) -> list[Any] | None:
        """The choices for one prompt; None: it failed this time.

        Raises:
            TinyLoraError: the server refuses the request, and would again.
        """
        try:
            response = self.client.post("/v1/completions", json=body)
            if response.status_code == 404:  # it was started anew, and knows no adapter
                self.load(version)
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
        self._version: Version = ""

    def takes(self, line: str) -> bool:
        """Whether every replica that answers serves adapters by their texts.

        Raises:
            TinyLoraError: one refuses this adapter, or none answers.
        """
        with ThreadPoolExecutor(len(self.replicas)) as pool:
            takes = list(pool.map(lambda replica: replica.takes(line), self.replicas))
        self._working()
        return all(has for has, replica in zip(takes, self.replicas, strict=True) if replica.works)

    def load(self, version: Version) -> None:
        """Serve this adapter from now on; replicas that rest are asked again.

        Raises:
            TinyLoraError: a server refuses it, or none answers.
        """
        self._version = version
        with ThreadPoolExecutor(len(self.replicas)) as pool:
            list(pool.map(lambda replica: replica.load(version), self.replicas))
        self._working()

    def unload(self, version: Version) -> None:
        """Forget the adapter wherever there is somebody to do so."""
        for replica in self.replicas:
            if replica.works:
                replica.unload(version)

    def generate(
        self, prompts: Sequence[list[int]], num_samples: int, sampling: Sampling, seeds: list[int]
    ) -> list[list[Completion]]:
        """Completions under the adapter loaded last.

        Raises:
            TinyLoraError: a server refuses a prompt, or none is left.
        """
        versions = [self._version] * len(prompts)
        return self._answers(prompts, num_samples, sampling, seeds, versions)

    def generate_each(
        self,
        prompts: Sequence[list[int]],
        sampling: Sampling,
        seeds: list[int],
        adapters: Sequence[Version],
    ) -> list[Completion]:
        """A completion of each prompt under its own adapter; errors as `generate`'s.

        A replica mixes as many adapters in a batch as it has slots for (`--max-loras`).
        """
        served, versions = self._version, dict.fromkeys(adapters)
        try:
            for version in versions:
                self.load(version)
            answers = self._answers(prompts, 1, sampling, seeds, adapters)
        finally:
            for version in versions:
                self.unload(version)
            self._version = served
        return [answer for (answer,) in answers]

    def _answers(
        self,
        prompts: Sequence[list[int]],
        num_samples: int,
        sampling: Sampling,
        seeds: list[int],
        versions: Sequence[Version],
    ) -> list[list[Completion]]:
        """`num_samples` completions of each prompt under its adapter."""
        bodies = [
            request(name_of(version), prompt, num_samples, sampling, seed)
            for prompt, seed, version in zip(prompts, seeds, versions, strict=True)
        ]
        asked = dict(enumerate(zip(bodies, versions, strict=True)))
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
        self, asked: dict[int, tuple[dict[str, Any], Version]], choices: dict[int, list[Any]]
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
