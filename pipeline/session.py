"""The session folder: `session.toml`, a calibration, and `videos/TRIAL/CAMERA.mp4` or 2D keypoints
that exist already, `pose/TRIAL/CAMERA_json/*.json`.
"""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from pipeline.config import explain
from pipeline.errors import PipelineError
from stages.trial import Subject, Trial

VIDEO_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg"}
STATIC_NAMES = ("static", "neutral")
CALIBRATION_PATTERNS = ("*.qca.txt", "*.toml", "*.pickle")
POSE_SUFFIX = "_json"

Rate = Annotated[float, Field(gt=0, le=2000, strict=True)]


class _SubjectTable(BaseModel):
    model_config = ConfigDict(extra="forbid")

    height_m: float | None = Field(None, gt=0.3, lt=2.6)
    mass_kg: float | None = Field(None, gt=2, lt=400)


class _TrialTable(BaseModel):
    model_config = ConfigDict(extra="forbid")

    activity: str | None = None
    clock_offsets_s: dict[str, FiniteFloat] = {}
    cameras: list[str] | None = None
    rate_hz: Rate | dict[str, Rate] | None = None
    """Frames per second, of all cameras or by camera, for keypoints without videos."""
    keypoints: str | None = None
    """Vocabulary of the keypoints in pose/."""

    def rates(self, cameras: Iterable[str]) -> dict[str, float]:
        """`rate_hz` by camera; empty if it is not given."""
        if isinstance(self.rate_hz, float):
            return dict.fromkeys(cameras, self.rate_hz)
        return self.rate_hz or {}


class SessionTable(BaseModel):
    """What `session.toml` may say; everything is optional."""

    model_config = ConfigDict(extra="forbid")

    subject: _SubjectTable = _SubjectTable()
    calibration: str | None = None
    """Calibration file or folder, relative to the session."""
    world_up: Literal["+x", "-x", "+y", "-y", "+z", "-z"] | None = None
    """The axis of the calibration's world that points up, where the file has it wrong."""
    model: str | None = None
    """OpenSim model already scaled to the subject, relative to the session."""
    keypoints: str | None = None
    """Vocabulary of the keypoints in pose/, for all trials that do not name theirs."""
    trials: dict[str, _TrialTable] = {}
    settings: dict[str, dict[str, Any]] = {}
    """Settings of stages, as `[settings.smooth]`."""


class Session:
    """A session folder, read but never changed, except for its `results/`."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise PipelineError(
                f"there is no session folder {self.folder}. Make one with a demo: pipeline demo, or "
                "see sessions/README.md for the layout."
            )
        self.table = _read_table(self.folder / "session.toml")
        self.settings = self.table.settings

    def trials(self) -> list[Trial]:
        """All trials of the session, by name.

        Raises PipelineError if there are no videos or keypoints, or no calibration.
        """
        folders = [path for path in (self.folder / "videos").glob("*") if _videos(path)]
        folders += [path for path in (self.folder / "pose").glob("*") if _poses(path)]
        names = sorted({folder.name for folder in folders})
        if unknown := sorted(set(self.table.trials) - set(names)):
            raise PipelineError(
                f"{self.folder / 'session.toml'} speaks of trials {', '.join(unknown)}, but videos/ "
                f"and pose/ have {', '.join(names) or 'none'}."
            )
        if not names:
            raise PipelineError(
                f"no trials in {self.folder}: expected videos as videos/TRIAL/CAMERA.mp4, or 2D "
                "keypoints as pose/TRIAL/CAMERA_json/*.json"
            )
        calibration = self._calibration()
        trials = [self._trial(name, calibration) for name in names]
        static = next((trial for trial in trials if is_static(trial.name)), None)
        return [
            trial if trial is static else replace(trial, scaling_trial=static) for trial in trials
        ]

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
            asked = f"activity '{activity}'" if activity else f"trial '{trial}'"
            listed = ", ".join(f"{each.name} (activity {each.activity})" for each in trials)
            raise PipelineError(f"{self.folder} has no {asked}. Its trials: {listed}.")
        return chosen

    def _trial(self, name: str, calibration: Path) -> Trial:
        table = self.table.trials.get(name, _TrialTable())
        videos, poses = self._recordings(name, table)
        return Trial(
            name=name,
            activity=table.activity or activity_of(name),
            videos=videos,
            calibration=calibration,
            results=self.folder / "results" / name,
            subject=Subject(**self.table.subject.model_dump()),
            clock_offsets_s=table.clock_offsets_s,
            world_up=self.table.world_up,
            model=self._existing(self.table.model) if self.table.model else None,
            poses=poses,
            rate_hz=table.rates(poses),
            keypoints=(table.keypoints or self.table.keypoints) if poses else None,
        )

    def _recordings(
        self, trial: str, table: _TrialTable
    ) -> tuple[dict[str, Path], dict[str, Path]]:
        """Video and folder of keypoints by camera, of the cameras that the session uses."""
        videos = _by_camera(self.folder / "videos" / trial)
        poses = _poses(self.folder / "pose" / trial)
        if not poses and (table.rate_hz or table.keypoints):
            raise PipelineError(
                f"session.toml gives rate_hz or keypoints for trial {trial}, which are for 2D keypoints "
                f"in {self.folder / 'pose' / trial / f'CAMERA{POSE_SUFFIX}'}, but there are none."
            )
        named = {*(table.cameras or ()), *table.clock_offsets_s, *table.rates(())}
        for camera in sorted(named - set(poses or videos)):
            raise PipelineError(
                f"session.toml names camera {camera} for trial {trial}, but "
                f"{self.folder / ('pose' if poses else 'videos') / trial} has {', '.join(poses or videos)}."
            )
        if table.cameras:
            videos = {name: videos[name] for name in table.cameras if name in videos}
            poses = {name: poses[name] for name in table.cameras if name in poses}
        if videos and poses and set(videos) != set(poses):
            raise PipelineError(
                f"trial {trial} has videos of {', '.join(videos)}, but keypoints of {', '.join(poses)}. "
                "Bring both of the same cameras, or name those to use in session.toml: "
                f"[trials.{trial}] cameras = [...]"
            )
        return videos, poses

    def _calibration(self) -> Path:
        if self.table.calibration:
            return self._existing(self.table.calibration)
        folder = self.folder / "calibration"
        found = [path for pattern in CALIBRATION_PATTERNS for path in sorted(folder.glob(pattern))]
        if len(found) == 1:
            return found[0]
        if any(folder.glob("*/*.pickle")):
            return folder
        problem = "no calibration file" if not found else f"{len(found)} calibration files"
        raise PipelineError(
            f"{problem} in {folder}: expected one of Qualisys .qca.txt, Pose2Sim .toml or OpenCap "
            '.pickle. With several, name one in session.toml: calibration = "calibration/FILE"'
        )

    def _existing(self, relative: str) -> Path:
        path = self.folder / relative
        if not path.exists():
            raise PipelineError(
                f"{self.folder / 'session.toml'} names {relative}, which is not there"
            )
        return path


def open_session(folder: Path) -> Session:
    """Return the session of a folder, whatever its layout."""
    return Session(folder)


def _videos(folder: Path) -> list[Path]:
    """The videos of a trial; hidden files, as macOS makes beside them, are none."""
    if not folder.is_dir():
        return []
    visible = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return [path for path in visible if path.suffix.lower() in VIDEO_SUFFIXES]


def _by_camera(folder: Path) -> dict[str, Path]:
    """The videos of a trial by camera. Raises PipelineError for two of one camera."""
    files = _videos(folder)
    videos = {path.stem: path for path in files}
    if len(videos) < len(files):
        names = ", ".join(path.name for path in files)
        raise PipelineError(f"several videos of one camera in {folder}: {names}. Keep one of each.")
    return videos


def _poses(folder: Path) -> dict[str, Path]:
    """Folders of 2D keypoints by camera, by name."""
    folders = (path for path in folder.glob(f"*{POSE_SUFFIX}") if path.is_dir())
    return dict(sorted((path.name.removesuffix(POSE_SUFFIX), path) for path in folders))


def activity_of(trial: str) -> str:
    """Return the activity in a trial's name: without a trailing number and suffix."""
    return re.sub(r"[-_ ]?\d+([-_].*)?$", "", trial) or trial


def is_static(trial: str) -> bool:
    """Whether a trial's name says that the subject stands still in it, for scaling."""
    return any(name in trial.lower() for name in STATIC_NAMES)


def _read_table(path: Path) -> SessionTable:
    if not path.exists():
        return SessionTable()
    try:
        return SessionTable.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PipelineError(f"cannot read {path}: {error}") from error
    except ValidationError as error:
        raise PipelineError(explain(error, str(path), SessionTable)) from error
