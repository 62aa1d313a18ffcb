"""Who does the runs: processes of this machine, or the workers of a Ray cluster.

Both take (settings, sweep folder, run name) triples, hand each to `runs.execute` in a process of
its own kind, and give back names with states as runs end. A process that dies (out of memory,
killed) fails its run and no other.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from queue import Queue
from typing import IO, Any

from tinylora.errors import RequestError, TinyLoraError
from tinylora.sweep import runs

Job = tuple[dict[str, Any], Path, str]  # settings, sweep folder, run name
Runner = Callable[[Sequence[Job], int], Iterator[tuple[str, str]]]


class Worker:
    """A process that does one run after the other; the imports are paid once."""

    def __init__(self, num_threads: int, log: IO[str]) -> None:
        self.log = log  # what it says beside its runs: warnings, progress bars
        self.environment = {**os.environ, "OMP_NUM_THREADS": str(num_threads)}
        self.process: subprocess.Popen[str] | None = None

    def do(self, job: Job) -> str:
        """The state in which the run ended."""
        settings, sweep, name = job
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([settings, str(sweep), name]) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if answer:
            return str(json.loads(answer))
        status = self.close()
        runs.mark(sweep / name, "failed", f"its process died (status {status})")
        return runs.state(sweep / name)

    def _started(self) -> subprocess.Popen[str]:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tinylora.sweep.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                text=True,
                env=self.environment,
            )
        return self.process

    def close(self) -> int:
        """End the process when its run has ended; returns its exit status."""
        if self.process is None:
            return 0
        with self.process as process, suppress(BrokenPipeError):
            assert process.stdin is not None
            process.stdin.close()
        self.process = None
        return int(process.returncode)


def local(jobs: Sequence[Job], num_processes: int) -> Iterator[tuple[str, str]]:
    """Runs in `num_processes` processes that divide the cores."""
    num_threads = max(1, (os.cpu_count() or 1) // num_processes)
    log = _worker_log(jobs)
    workers = [Worker(num_threads, log) for _ in range(num_processes)]
    free: Queue[Worker] = Queue()
    for worker in workers:
        free.put(worker)

    def do(job: Job) -> tuple[str, str]:
        worker = free.get()
        try:
            return job[2], worker.do(job)
        finally:
            free.put(worker)

    pool = ThreadPoolExecutor(num_processes)
    try:
        for future in as_completed([pool.submit(do, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.close()
        log.close()


def _worker_log(jobs: Sequence[Job]) -> IO[str]:
    folder = jobs[0][1] / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "workers.txt").open("a", encoding="utf-8")


def on_ray(jobs: Sequence[Job], num_processes: int) -> Iterator[tuple[str, str]]:
    """Runs on a Ray cluster: the one that RAY_ADDRESS names, or a local one.

    A worker that dies is retried, from the run's checkpoint. The sweep folder has to be on storage
    that all workers see under the same path.

    Raises:
        RequestError: Ray is not installed.
    """
    try:
        ray: Any = import_module("ray")
    except ImportError:
        raise RequestError(
            'runner = ray, but Ray is not installed. Install the extra: "tinylora[ray]".'
        ) from None
    num_threads = max(1, (os.cpu_count() or 1) // num_processes)
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        local_only = {} if address else {"num_cpus": num_processes, "include_dashboard": False}
        ray.init(address=address, log_to_driver=False, **local_only)
    environment = {"env_vars": {"OMP_NUM_THREADS": str(num_threads)}}
    remote = ray.remote(num_cpus=1, max_retries=RAY_RETRIES, runtime_env=environment)(runs.execute)
    pending = {remote.remote(settings, sweep, name): name for settings, sweep, name in jobs}
    folders = {name: sweep / name for _, sweep, name in jobs}
    try:
        while pending:
            (ready,), _ = ray.wait(list(pending), num_returns=1)
            name = pending.pop(ready)
            try:
                yield name, ray.get(ready)
            except ray.exceptions.RayError as error:
                runs.mark(folders[name], "failed", f"its Ray worker died ({error})")
                yield name, "failed"
    finally:
        for reference in pending:
            ray.cancel(reference)


RAY_RETRIES = 3
RUNNERS: dict[str, Runner] = {"local": local, "ray": on_ray}


def run_all(jobs: Sequence[Job], runner: str, num_processes: int) -> Iterator[tuple[str, str]]:
    """(run name, state) of every job, as they end.

    Raises:
        TinyLoraError: no process could be started.
    """
    try:
        if jobs:
            yield from RUNNERS[runner](jobs, num_processes)
    except OSError as error:
        raise TinyLoraError(f"No process could be started for the runs ({error}).") from error
