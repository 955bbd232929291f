"""Workers of Dask distributed: local ones, or those of a scheduler that runs already."""

import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import dask
from dask.system import CPU_COUNT
from distributed import Client, Nanny, Scheduler, SpecCluster, Worker, WorkerPlugin
from distributed.comm import resolve_address
from distributed.system import MEMORY_LIMIT

from pipeline.batch_plan import Job
from pipeline.errors import PipelineError

MEMORY_OF_A_WORKER = 2e9
"""Bytes; a worker holds the models and some of a video's frames."""
SINGLE_THREADED = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), 1
)
"""A worker's environment, set before it imports numpy, torch and OpenCV: it uses one core."""
OF_LOCAL_CLUSTERS = {
    "distributed.nanny.pre-spawn-environ": SINGLE_THREADED,
    "distributed.scheduler.allowed-failures": 1,  # a unit may see one worker die, not two
    "distributed.deploy.lost-worker-timeout": "30 days",  # one that died is started anew, by its nanny
}
LOCAL_HOST = "127.0.0.1"
SILENT = logging.CRITICAL
"""What units meet is in their results; Dask's own log is of lost connections when all is stopped."""
WAIT_FOR_WORKERS_S = 60


class IgnoresInterrupts(WorkerPlugin):
    """Ctrl-C reaches every process of a terminal: only the batch itself acts on it."""

    def setup(self, worker: Worker) -> None:
        """Called by Dask in the worker's main thread."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def default_workers() -> int:
    """As many local workers as there are cores, and memory for."""
    return max(1, min(CPU_COUNT, int(MEMORY_LIMIT // MEMORY_OF_A_WORKER)))


@contextmanager
def connected(scheduler: str | None, workers: int, gpu_workers: int) -> Iterator[Client]:
    """Yield a client of local workers, or of the workers of a scheduler (`tcp://HOST:PORT`).

    Raises PipelineError if the scheduler does not answer, or has no worker.
    """
    if scheduler is None:
        with (
            local_cluster(workers, gpu_workers) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client
        return
    try:
        resolve_address(scheduler)  # a client that cannot be made fails once more at its end
        client = Client(scheduler, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"no Dask scheduler answers at {scheduler}: {error}. Start one: dask scheduler"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WAIT_FOR_WORKERS_S)
        except TimeoutError as error:
            raise PipelineError(
                f"the scheduler {scheduler} had no worker for {WAIT_FOR_WORKERS_S} s. Start some: "
                f"dask worker {scheduler} --nthreads 1 --resources CPU=1"
            ) from error
        yield client


@contextmanager
def local_cluster(workers: int, gpu_workers: int) -> Iterator[SpecCluster]:
    """Yield a cluster of processes of this computer, one thread each; they end when this one does.

    Where some run networks on GPUs, the others leave networks to them.
    """
    apart = [{"CPU": 1.0} if gpu_workers else {}] * workers
    kinds = [*[{"GPU": 1.0}] * gpu_workers, *apart]
    options = {
        "nthreads": 1,
        "host": LOCAL_HOST,
        "memory_limit": 0,  # intermediate results are files: nothing that Dask could spill
        "silence_logs": SILENT,
        "dashboard": False,
        "plugins": (IgnoresInterrupts(),),
    }
    with dask.config.set(OF_LOCAL_CLUSTERS):
        with SpecCluster(
            scheduler={"cls": Scheduler, "options": {"host": LOCAL_HOST, "dashboard": False}},
            workers={
                index: {"cls": Nanny, "options": options | {"resources": resources}}
                for index, resources in enumerate(kinds)
            },
            silence_logs=SILENT,
        ) as cluster:
            yield cluster


def declared_resources(client: Client) -> set[str]:
    """Names of what any worker declares to have, such as GPU."""
    workers = client.scheduler_info()["workers"].values()
    return {name for worker in workers for name in worker["resources"]}


def notices_about(declared: set[str]) -> list[str]:
    """What the user should know about workers of which some declare what they are for."""
    missing = {"CPU", "GPU"} - declared
    if len(missing) != 1:
        return []
    what = {"GPU": "networks run", "CPU": "stages without networks run"}
    return [f"no worker declares {kind}: {what[kind]} on any worker." for kind in missing]


def demands(job: Job, stage: str, declared: set[str]) -> Mapping[str, float]:
    """What a stage asks of a worker: a GPU if it runs networks on the trial, else a CPU.

    Nothing that no worker declares: the scheduler would wait for one for ever.
    """
    kind = "GPU" if stage in job.networks else "CPU"
    return {kind: 1.0} if kind in declared else {}
