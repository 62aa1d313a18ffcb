"""Who does the runs: processes of this machine, or the workers of a Ray cluster.

Both take (settings, sweep folder, run name) triples, hand each to `outcomes.execute` in a process
of its own kind, and give back names with states as runs end. A process that dies (out of memory,
killed) fails its run and no other.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from tinylora.errors import RequestError, TinyLoraError, install_hint
from tinylora.processes import Child, Children, Ended
from tinylora.sweep import outcomes

PROGRAM = Path(__file__).with_name("worker.py")
RAY_RETRIES = 3

Job = tuple[dict[str, Any], Path, str]  # settings, sweep folder, run name
Runner = Callable[[Sequence[Job], int], Iterator[tuple[str, str]]]


def local(jobs: Sequence[Job], num_processes: int) -> Iterator[tuple[str, str]]:
    """Runs in `num_processes` processes that divide the cores."""
    environment = {"OMP_NUM_THREADS": _threads_each(num_processes)}
    log = _worker_log(jobs)
    workers = Children(
        Child(PROGRAM, environment=environment, log=log) for _ in range(num_processes)
    )

    def do(job: Job) -> tuple[str, str]:
        settings, sweep, name = job
        try:
            return name, workers.ask((settings, str(sweep), name))["state"]
        except Ended as ended:
            outcomes.mark(sweep / name, "failed", str(ended))
            return name, outcomes.state(sweep / name)

    threads = ThreadPoolExecutor(num_processes)
    try:
        for future in as_completed([threads.submit(do, job) for job in jobs]):
            yield future.result()
    finally:
        threads.shutdown(cancel_futures=True)  # a run that has begun ends first
        for worker in workers.all:
            worker.close(patience_s=None)
        log.close()


def _threads_each(num_processes: int) -> str:
    return str(max(1, (os.cpu_count() or 1) // num_processes))


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
            f"runner = ray, but Ray is not installed. {install_hint('ray')}"
        ) from None
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        local_only = {} if address else {"num_cpus": num_processes, "include_dashboard": False}
        ray.init(address=address, log_to_driver=False, **local_only)
    environment = {"env_vars": {"OMP_NUM_THREADS": _threads_each(num_processes)}}
    remote = ray.remote(num_cpus=1, max_retries=RAY_RETRIES, runtime_env=environment)(
        outcomes.execute
    )
    pending = {remote.remote(settings, sweep, name): name for settings, sweep, name in jobs}
    folders = {name: sweep / name for _, sweep, name in jobs}
    try:
        while pending:
            (ready,), _ = ray.wait(list(pending), num_returns=1)
            name = pending.pop(ready)
            try:
                yield name, ray.get(ready)
            except ray.exceptions.RayError as error:
                outcomes.mark(folders[name], "failed", f"its Ray worker died ({error})")
                yield name, "failed"
    finally:
        for reference in pending:
            ray.cancel(reference)


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
