"""Runs many trials on Dask distributed: each stage of each trial is a unit that can be resumed."""

import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

import dask
from distributed import Client, Future, KilledWorker, as_completed, get_worker

from pipeline.batch_plan import Job
from pipeline.cluster import declared_resources, demands
from pipeline.dataset_table import Summary, summarise
from pipeline.errors import PipelineError
from pipeline.runner import READ_BY_OTHERS, run_stage, version_of_all_stages, without
from stages import ORDER
from stages.trial import no_progress

TRIALS_AHEAD = 3
"""Trials that are handed to the scheduler, per worker: enough to keep all of them busy."""


@dataclass(frozen=True)
class UnitResult:
    """What became of one stage of one trial."""

    trial: str
    """The session and the trial."""
    stage: str
    status: Literal["done", "up to date", "failed", "blocked"]
    seconds: float = 0.0
    """How long it took, now or, if it is up to date, when it ran."""
    message: str = ""
    """Why it failed, or what blocks it."""
    traceback: str = ""
    """Where a mistake of ours happened."""
    worker: str = ""
    summary: Summary | None = None
    """With the last stage: what the dataset's table and page say of the trial."""

    @property
    def good(self) -> bool:
        """Whether the stage's result is there."""
        return self.status in ("done", "up to date")


@dataclass(frozen=True)
class JobResult:
    """What became of a trial: its units in the order of the stages."""

    job: Job
    units: list[UnitResult]

    @property
    def failure(self) -> UnitResult | None:
        """The unit that kept the trial from being finished."""
        return next((unit for unit in self.units if not unit.good), None)

    @property
    def summary(self) -> Summary | None:
        """What there is to say of a finished trial."""
        return self.units[-1].summary


def run_unit(job: Job, stage: str, version: str, *before: UnitResult) -> UnitResult:
    """Run one stage of one trial on a worker, unless one that it follows has failed.

    Other trials of the session that failed are left out, but for the static one. `version` is that of
    the code which made the plan.
    """
    worker = str(get_worker().name)
    failed = {unit.trial: unit for unit in before if not unit.good}
    helping = {job.name_of(other): other.name for other in job.trial.session_trials}
    static = job.trial.scaling_trial
    helping.pop(job.name_of(static) if static else None, None)
    trial = without(job.trial, [helping[name] for name in failed if name in helping])
    bad = next((unit for name, unit in failed.items() if name not in helping), None)
    if bad:
        blocked = f"blocked by {bad.stage} of {bad.trial}: {bad.message}"
        reason = bad.message if bad.status == "blocked" else blocked
        return UnitResult(job.name, stage, "blocked", message=reason, worker=worker)
    try:
        if version != version_of_all_stages():
            raise PipelineError(
                f"worker {worker} has other code than the batch was started with. Install the same "
                "version everywhere, change nothing while a batch runs, and run again."
            )
        with dask.config.set(scheduler="synchronous"):  # xarray's locks are for this process only
            outcome = run_stage(trial, stage, job.configure, lambda *_: no_progress)
            summary = summarise(trial) if stage == ORDER[-1] else None
    except PipelineError as error:
        return UnitResult(job.name, stage, "failed", message=str(error), worker=worker)
    except Exception as error:  # a bug of ours stops its trial, and is told with its traceback
        message = f"internal error: {type(error).__name__}: {error}"
        details = traceback.format_exc()
        return UnitResult(job.name, stage, "failed", 0.0, message, details, worker)
    status = "up to date" if outcome.skipped else "done"
    return UnitResult(job.name, stage, status, outcome.seconds, worker=worker, summary=summary)


Tell = Callable[[JobResult | UnitResult], None]
"""`tell(result)`: called with each unit as it finishes, and with each trial after its last unit."""


@dataclass
class _Running:
    """A trial whose units are handed to the scheduler."""

    job: Job
    futures: dict[str, Future]
    """By stage."""
    outcomes: dict[str, UnitResult | BaseException] = field(default_factory=dict)

    @property
    def killed(self) -> bool:
        return any(isinstance(outcome, KilledWorker) for outcome in self.outcomes.values())

    def result(self) -> JobResult:
        units: list[UnitResult] = []
        for stage in self.job.stages:
            outcome = self.outcomes[stage]
            if isinstance(outcome, BaseException):
                outcome = _lost(self.job, stage, outcome, units)
            units.append(outcome)
        return JobResult(self.job, units)


def _lost(job: Job, stage: str, error: BaseException, before: list[UnitResult]) -> UnitResult:
    """The result of a unit that could not return one."""
    if before and not before[-1].good:
        return UnitResult(job.name, stage, "blocked", message=before[-1].message)
    if isinstance(error, KilledWorker):
        message = (
            "the process that ran it died, each time that it was tried: out of memory, or a library "
            f"crashed. To see: pipeline run {job.folder} --trial {job.trial.name}"
        )
    else:
        message = f"the worker cannot run it: {type(error).__name__}: {error}"
    return UnitResult(job.name, stage, "failed", message=message)


def run_jobs(client: Client, jobs: Sequence[Job], tell: Tell) -> list[JobResult]:
    """Run all jobs, the first ones first, and return what became of each, in their order.

    A trial fails alone. Those whose worker was killed under them are tried once more at the end, one
    by one: a stage that kills its worker takes with it what had only been waiting there.

    Raises PipelineError if the scheduler is lost.
    """
    batch = _Batch(client, tell, {job.name: job for job in jobs})
    results = batch.run(jobs, None)
    for suspect in [running.job for running in results.values() if running.killed]:
        results |= batch.run([suspect], 1)
    for running in results.values():
        if running.killed:
            tell(running.result())
    return [results[job.name].result() for job in jobs]


class _HandOver:
    """Hands stages of trials to the scheduler."""

    def __init__(self, client: Client, version: str, priority: int):
        self.client, self.version, self.priority = client, version, priority
        self.declared = declared_resources(client)

    def __call__(
        self,
        job: Job,
        stages: Sequence[str],
        last: Future | None = None,
        others: Sequence[Future] = (),
    ) -> dict[str, Future]:
        """Hand over stages of a trial, each after the one before, the kinematics also after others."""
        futures: dict[str, Future] = {}
        for stage in stages:
            before = [*([last] if last else []), *(others if stage == "kinematics" else [])]
            last = futures[stage] = self.client.submit(
                run_unit, job, stage, self.version, *before,
                key=f"{stage}-{job.name}-{uuid4().hex}",  # the scheduler may know it from another try
                priority=self.priority,
                resources=demands(job, stage, self.declared),
                pure=False,
            )  # fmt: skip
        return futures


@dataclass
class _Batch:
    client: Client
    tell: Tell
    jobs: dict[str, Job]
    """By name."""
    version: str = field(default_factory=version_of_all_stages)
    first: dict[str, dict[str, Future]] = field(default_factory=dict)
    """Units up to `READ_BY_OTHERS`, by stage, of trials that are not running yet but others wait for."""
    awaited: dict[str, Future] = field(default_factory=dict)
    """The last such unit of every trial, by the trial's name."""

    def run(self, jobs: Sequence[Job], limit: int | None) -> dict[str, _Running]:
        """Run jobs, at most so many at a time, and return them by name when all are finished."""
        waiting = deque(jobs)
        finished: dict[str, _Running] = {}
        owners: dict[str, tuple[_Running, str]] = {}
        arriving = as_completed(loop=self.client.loop, with_results=True, raise_errors=False)
        while len(finished) < len(jobs):
            if waiting:
                most = limit or TRIALS_AHEAD * max(1, len(self.client.nthreads()))
            while waiting and len(jobs) - len(waiting) - len(finished) < most:
                running = self._submit(waiting.popleft(), priority=len(waiting))
                owners |= {each.key: (running, s) for s, each in running.futures.items()}
                arriving.update(running.futures.values())
            future, outcome = next(arriving)
            running, stage = owners.pop(future.key)
            running.outcomes[stage] = self._outcome(future, outcome)
            if len(running.outcomes) == len(running.futures):
                running.futures.clear()  # the scheduler may forget them
                finished[running.job.name] = running
                if not running.killed:
                    self.tell(running.result())
        return finished

    def _submit(self, job: Job, priority: int) -> _Running:
        """Hand a trial's stages to the scheduler, and the first ones of trials that it waits for."""
        hand_over = _HandOver(self.client, self.version, priority)
        for name in job.waits_for:
            lost = name in self.awaited and self.awaited[name].status == "error"
            if name in self.jobs and (lost or name not in self.awaited):
                self.first[name] = self._first(self.jobs[name], hand_over)
        futures = self.first.pop(job.name, None) or self._first(job, hand_over)
        others = [self.awaited[name] for name in job.waits_for if name in self.awaited]
        futures |= hand_over(job, job.stages[len(futures) :], self.awaited[job.name], others)
        return _Running(job, futures)

    def _first(self, job: Job, hand_over: "_HandOver") -> dict[str, Future]:
        futures = hand_over(job, READ_BY_OTHERS)
        self.awaited[job.name] = futures[READ_BY_OTHERS[-1]]
        return futures

    def _outcome(self, future: Future, outcome) -> UnitResult | BaseException:
        if future.status == "cancelled":
            raise PipelineError(
                "the Dask scheduler was lost. Finished stages are kept: start it, and run again."
            )
        if future.status == "error":
            return outcome[1]
        self.tell(outcome)
        return outcome
