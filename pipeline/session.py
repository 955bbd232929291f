"""A session: the trials of one visit of one subject, whatever the layout of its folder.

What lies in the folder is found by its layout (`pipeline/layouts`); what `session.toml` says of it is
added here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from pipeline.errors import PipelineError
from pipeline.layouts import expected, layout_of, ours
from pipeline.layouts.contents import (
    POSE_SUFFIX,
    Contents,
    Found,
    activity_of,
    children,
    is_static,
    poses_by_camera,
)
from pipeline.references import brought, simulated
from pipeline.session_table import FILE_NAME, TrialTable, read_table
from stages.trial import Subject, Trial

Value = TypeVar("Value")

SHOWN = 3
"""So many sessions are listed in a message."""


class Session:
    """A session folder, read but never changed, except for its `results/`."""

    def __init__(self, folder: Path, layout: ModuleType):
        self.folder = folder
        self.layout = layout.NAME
        """For people."""
        self.table = read_table(folder)
        self.settings = self.table.settings
        """Settings of stages, by stage."""
        self._layout = layout

    @cached_property
    def contents(self) -> Contents:
        """What the layout finds in the folder, before `session.toml` has its say."""
        own = self._existing(self.table.calibration) if self.table.calibration else None
        return self._layout.read(self.folder, own)

    @property
    def notes(self) -> list[str]:
        """What was chosen or assumed in reading the folder, and what is doubtful."""
        known = {found.name for found in self.contents.trials}
        unused = [
            each.name
            for each in children(self.folder / "pose")
            if each.name not in known
            and not each.name.endswith(POSE_SUFFIX)
            and poses_by_camera(each)
        ]
        strange = [f"pose/{name} is of no trial that was found" for name in unused]
        return self.contents.notes + strange

    def trials(self) -> list[Trial]:
        """All trials of the session, by name.

        Raises PipelineError if there are no videos or keypoints, or no calibration.
        """
        trials = self.with_or_without_calibration()
        if not any(trial.calibration for trial in trials):
            raise PipelineError(self.contents.no_calibration)
        return trials

    def with_or_without_calibration(self) -> list[Trial]:
        """All trials of the session, by name, even if none can be run.

        Raises PipelineError if there are no videos or keypoints.
        """
        found = sorted(self.contents.trials, key=lambda each: each.name)
        names = [each.name for each in found]
        if unknown := sorted(set(self.table.trials) - set(names)):
            raise PipelineError(
                f"{self.folder / FILE_NAME} speaks of trials {', '.join(unknown)}, but the session has "
                f"{', '.join(names) or 'none'}."
            )
        if not found:
            raise PipelineError(self._no_trials())
        trials = {each.name: self._trial(each) for each in found}
        return [
            replace(
                trials[each.name],
                scaling_trial=_scaling_trial(each, found, trials),
                session_trials=_filmed_likewise(each, found, trials),
            )
            for each in found
        ]

    def _no_trials(self) -> str:
        if below := [str(each) for each in children(self.folder) if layout_of(each)]:
            shown = ", ".join([*below[:SHOWN], *(["…"] if len(below) > SHOWN else [])])
            return f"{self.folder} is no session, but holds some: {shown}. Name one of them."
        return (
            f"no trials in {self.folder}: expected {self._layout.EXPECTED}. To make a session of "
            f"videos: pipeline init {self.folder}. Other layouts that are read: {expected(self._layout)}"
        )

    def select(self, activity: str | None = None, trial: str | None = None) -> list[Trial]:
        """Trials of one activity, or one trial, or all.

        Raises PipelineError, with what there is, if none fits.
        """
        trials = self.trials()
        chosen = [
            candidate
            for candidate in trials
            if (activity is None or candidate.activity.lower() == activity.lower())
            and (trial is None or candidate.name == trial)
        ]
        if not chosen:
            asked = " of ".join(
                f"{what} '{name}'"
                for what, name in (("trial", trial), ("activity", activity))
                if name is not None
            )
            listed = ", ".join(f"{each.name} (activity {each.activity})" for each in trials)
            raise PipelineError(f"{self.folder} has no {asked}. Its trials: {listed}.")
        return chosen

    def _trial(self, found: Found) -> Trial:
        table = self.table.trials.get(found.name, TrialTable())
        videos, poses = self._recordings(found, table)
        cameras = list(videos or poses)
        rates = {**_of(cameras, found.rate_hz), **table.rates(poses)} if poses else {}
        return Trial(
            name=found.name,
            activity=table.activity or found.activity or activity_of(found.name),
            videos=videos,
            calibration=_calibration_of(cameras, found.calibration),
            results=self.folder / "results" / found.name,
            subject=self._subject(found),
            clock_offsets_s=table.clock_offsets_s,
            world_up=self.table.world_up or found.world_up,
            model=self._existing(self.table.model) if self.table.model else None,
            poses=poses,
            rate_hz=rates,
            keypoints=(table.keypoints or self.table.keypoints or found.keypoints)
            if poses
            else None,
            reference=brought(self.folder, found.name)
            or found.reference
            or simulated(self.folder, found.name),
        )

    def _subject(self, found: Found) -> Subject:
        """As `session.toml` says, and where it does not, as the folder's own files do."""
        other, table = found.subject or self.contents.subject, self.table.subject
        return Subject(
            table.height_m or other.height_m,
            table.mass_kg or other.mass_kg,
        )

    def _recordings(
        self, found: Found, table: TrialTable
    ) -> tuple[dict[str, Path], dict[str, Path]]:
        """Video and keypoints by camera, of the cameras that the session uses."""
        trial, videos = found.name, found.videos
        own = self.folder / "pose" / trial
        poses = poses_by_camera(own) or found.poses
        if not poses and (table.rate_hz or table.keypoints):
            raise PipelineError(
                f"{FILE_NAME} gives rate_hz or keypoints for trial {trial}, which are for 2D keypoints "
                f"in {own / f'CAMERA{POSE_SUFFIX}'}, but there are none."
            )
        named = {*(table.cameras or ()), *table.clock_offsets_s, *table.rates(())}
        for camera in sorted(named - set(poses or videos)):
            raise PipelineError(
                f"{FILE_NAME} names camera {camera} for trial {trial}, which has "
                f"{'keypoints' if poses else 'videos'} of {', '.join(poses or videos)}."
            )
        if table.cameras:
            videos, poses = _of(table.cameras, videos), _of(table.cameras, poses)
        if videos and poses and set(videos) != set(poses):
            raise PipelineError(
                f"trial {trial} has videos of {', '.join(videos)}, but keypoints of {', '.join(poses)}. "
                f"Bring both of the same cameras, or name those to use in {FILE_NAME}: "
                f"[trials.{trial}] cameras = [...]"
            )
        return videos, poses

    def _existing(self, relative: str) -> Path:
        path = self.folder / relative
        if not path.exists():
            raise PipelineError(f"{self.folder / FILE_NAME} names {relative}, which is not there")
        return path


def open_session(folder: Path) -> Session:
    """Return the session of a folder, whatever its layout.

    Raises PipelineError if there is no such folder, or its `session.toml` is wrong.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PipelineError(
            f"there is no session folder {folder}. Make one with a demo: pipeline demo, or "
            "see sessions/README.md for the layout."
        )
    return Session(folder, layout_of(folder) or ours)


def with_cameras(trial: Trial, names: Sequence[str]) -> Trial:
    """The same trial as only some cameras saw it, and its scaling trial likewise.

    Results go to a folder of their own, `results/TRIAL_CAMERA-CAMERA`, so that several sets can be
    compared.

    Raises PipelineError for a camera that the trial does not have, and for fewer than two.
    """
    if unknown := [name for name in names if name not in trial.cameras]:
        raise PipelineError(
            f"trial {trial.name} has no camera {', '.join(unknown)}. Its cameras: "
            f"{', '.join(trial.cameras)}."
        )
    cameras = [name for name in trial.cameras if name in names]
    if len(cameras) < 2:
        raise PipelineError(
            f"trial {trial.name}: depth needs two cameras at least, of {', '.join(trial.cameras)}."
        )
    scaling = trial.scaling_trial
    if scaling is not None:  # it may lack a camera that the trial has
        scaling = with_cameras(scaling, [name for name in names if name in scaling.cameras])
    others = tuple(with_cameras(each, names) for each in trial.session_trials)
    trial = replace(trial, scaling_trial=scaling, session_trials=others)
    if len(cameras) == len(trial.cameras):
        return trial
    return replace(
        trial,
        videos=_of(cameras, trial.videos),
        poses=_of(cameras, trial.poses),
        rate_hz=_of(cameras, trial.rate_hz),
        clock_offsets_s=_of(cameras, trial.clock_offsets_s),
        calibration=_calibration_of(cameras, trial.calibration),
        results=trial.results.with_name(f"{trial.results.name}_{'-'.join(cameras)}"),
    )


def _of(cameras: Iterable[str], values: Mapping[str, Value]) -> dict[str, Value]:
    """The values of some cameras, in the order of the cameras."""
    return {name: values[name] for name in cameras if name in values}


def _calibration_of(
    cameras: Iterable[str], calibration: Path | Mapping[str, Path] | None
) -> Path | dict[str, Path]:
    """The part of a calibration that a trial needs; none where there is none."""
    return calibration if isinstance(calibration, Path) else _of(cameras, calibration or {})


def _scaling_trial(
    found: Found, others: Sequence[Found], trials: Mapping[str, Trial]
) -> Trial | None:
    """The static trial that scales the model for a trial: one filmed with it, else the first one.

    None for that trial itself, and if there is no static trial of its subject that two cameras saw.
    """
    static = [
        each for each in others if is_static(each.name) and len(trials[each.name].cameras) > 1
    ]
    together = [each for each in static if each.group == found.group]
    same_person = static if found.subject is None else []
    chosen = next(iter(together or same_person), None)
    return None if chosen is None or chosen is found else trials[chosen.name]


def _filmed_likewise(
    found: Found, others: Sequence[Found], trials: Mapping[str, Trial]
) -> tuple[Trial, ...]:
    """The other trials of the same person that the same cameras filmed, from where they stood then."""
    own = trials[found.name]
    return tuple(
        trials[each.name]
        for each in others
        if each is not found
        and (each.group == found.group or found.subject is None)
        and set(trials[each.name].cameras) == set(own.cameras)
        and trials[each.name].calibration == own.calibration
    )
