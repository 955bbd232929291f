"""What a batch has to do: the sessions below a folder, and the trials of each."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.config import STAGES, Configuration, configure
from pipeline.errors import PipelineError
from pipeline.layouts import expected, layout_of
from pipeline.runner import READ_BY_OTHERS, is_up_to_date, other_trials
from pipeline.session import Session, open_session
from stages import ORDER
from stages.trial import Trial

MAX_DEPTH = 4
"""A session lies at most this many folders below the dataset."""
COMPARED = ("report.compare=true",)
"""Of trials that have a reference, the report compares with it, unless the user says otherwise."""


@dataclass(frozen=True)
class Job:
    """A trial to run, with the settings of its session."""

    session: str
    """The session's folder, relative to the dataset; its name if it is the dataset itself."""
    folder: Path
    """The session's folder."""
    trial: Trial
    settings: Mapping[str, Mapping[str, Any]]
    overrides: tuple[str, ...]
    stages: tuple[str, ...] = ORDER
    """Those to run; of a trial that only helps to fit others' models, the first ones."""
    networks: frozenset[str] = frozenset()
    """Stages that run networks on the trial."""
    waits_for: tuple[str, ...] = ()
    """Names of the jobs whose first stages its kinematics reads: a static trial's, or of all its session."""

    @property
    def name(self) -> str:
        """The session and the trial, for people."""
        return self.name_of(self.trial)

    def name_of(self, trial: Trial) -> str:
        """The name of a trial of this session, as its job has it."""
        return f"{self.session}/{trial.name}"

    def configure(self, trial: Trial) -> Configuration:
        """Settings of this job's trial, or of another that helps to fit its model."""
        return configure(trial.activity, self.settings, self.overrides)


@dataclass(frozen=True)
class Unreadable:
    """A session that cannot be read, or a trial that cannot be configured, and why."""

    session: str
    trial: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Everything that a batch will do, trials that only help to fit others' models first."""

    dataset: Path
    jobs: list[Job]
    unreadable: list[Unreadable]


def make_plan(dataset: Path, activity: str | None, overrides: Sequence[str]) -> Plan:
    """Find the sessions below a folder, and their trials (of one activity, or all).

    Raises PipelineError if there is no session or no such activity, or for wrong `overrides`.
    """
    configure("", {}, overrides)
    jobs: list[Job] = []
    unreadable: list[Unreadable] = []
    activities: set[str] = set()
    found = False
    for folder in find_sessions(dataset):
        name = folder.name if folder == dataset else folder.relative_to(dataset).as_posix()
        try:
            session = open_session(folder)
            trials = session.trials()
        except PipelineError as error:
            unreadable.append(Unreadable(name, "", str(error)))
            continue
        activities |= {trial.activity for trial in trials}
        chosen = [t for t in trials if activity is None or t.activity.lower() == activity.lower()]
        found = found or bool(chosen)
        more, failed = _jobs_of(name, session, chosen, tuple(overrides))
        jobs += more
        unreadable += [Unreadable(name, *each) for each in failed.items()]
    if activities and not found:
        raise PipelineError(
            f"no session below {dataset} has activity '{activity}'. Their activities: "
            f"{', '.join(sorted(activities))}."
        )
    return Plan(dataset, jobs, unreadable)


def network_stages(trial: Trial, configuration: Configuration) -> frozenset[str]:
    """Stages that run networks on a trial, and so ask for a worker with a GPU."""
    return frozenset(
        name
        for name, stage in STAGES.items()
        if hasattr(stage, "runs_network")
        and stage.runs_network(trial, getattr(configuration, name))
    )


def _jobs_of(
    name: str, session: Session, chosen: list[Trial], overrides: tuple[str, ...]
) -> tuple[list[Job], dict[str, str]]:
    """Jobs of a session, those that others wait for first; and why trials cannot be run, by name."""
    jobs: dict[str, Job] = {}
    failed: dict[str, str] = {}

    def add(trial: Trial, stages: tuple[str, ...]) -> tuple[Trial, ...]:
        compared = COMPARED if trial.reference else ()
        job = Job(name, session.folder, trial, session.settings, (*compared, *overrides), stages)
        try:
            configuration = job.configure(trial)
            others = other_trials(trial, "kinematics", configuration)
            jobs[trial.name] = replace(
                job,
                networks=network_stages(trial, configuration),
                waits_for=tuple(job.name_of(other) for other in others),
            )
            return others
        except PipelineError as error:
            failed[trial.name] = str(error)
            return ()

    helping = {other.name: other for trial in chosen for other in add(trial, ORDER)}
    for other in helping.values():
        if other.name not in jobs | failed:
            add(other, READ_BY_OTHERS)
    return sorted(jobs.values(), key=lambda job: job.trial.name not in helping), failed


def find_sessions(dataset: Path) -> list[Path]:
    """Folders of all sessions in a folder, itself included; nothing within a session is one.

    Raises PipelineError if there is none.
    """
    if not dataset.is_dir():
        raise PipelineError(f"there is no folder {dataset}")
    found = []
    for path, folders, _ in os.walk(dataset):
        folder = Path(path)
        depth = len(folder.relative_to(dataset).parts)
        if layout_of(folder):
            found.append(folder)
            folders.clear()
        elif depth == MAX_DEPTH:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    if not found:
        raise PipelineError(
            f"no session in {dataset}, down to {MAX_DEPTH} folders. Expected one of: {expected()}."
        )
    return found


def stages_to_run(job: Job) -> list[str]:
    """Stages of a job that are not up to date, or follow one that is not.

    Raises PipelineError for inputs that cannot be read.
    """
    configuration = job.configure(job.trial)
    read_anew = any(
        _stale(other, job.configure(other), READ_BY_OTHERS, False)
        for other in other_trials(job.trial, "kinematics", configuration)
    )
    return _stale(job.trial, configuration, job.stages, read_anew)


def _stale(
    trial: Trial, configuration: Configuration, stages: Sequence[str], others_anew: bool
) -> list[str]:
    stale: list[str] = []
    for stage in stages:
        follows = set(STAGES[stage].NEEDS) & set(stale) or (others_anew and stage == "kinematics")
        if follows or not is_up_to_date(trial, stage, configuration):
            stale.append(stage)
    return stale
