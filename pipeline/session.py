"""The session folder: `session.toml`, `videos/TRIAL/CAMERA.mp4` and a calibration file."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from pipeline.config import explain
from pipeline.errors import PipelineError
from stages.trial import Subject, Trial

VIDEO_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg"}
STATIC_NAMES = ("static", "neutral")
CALIBRATION_PATTERNS = ("*.qca.txt", "*.toml", "*.pickle")


class _SubjectTable(BaseModel):
    model_config = ConfigDict(extra="forbid")

    height_m: float | None = Field(None, gt=0.3, lt=2.6)
    mass_kg: float | None = Field(None, gt=2, lt=400)


class _TrialTable(BaseModel):
    model_config = ConfigDict(extra="forbid")

    activity: str | None = None
    clock_offsets_s: dict[str, FiniteFloat] = {}
    cameras: list[str] | None = None


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

    def trials(self) -> list[Trial]:
        """All trials of the session, by name.

        Raises PipelineError if there are no videos, or no calibration.
        """
        folders = sorted(path for path in (self.folder / "videos").glob("*") if _videos(path))
        names = [folder.name for folder in folders]
        if unknown := sorted(set(self.table.trials) - set(names)):
            raise PipelineError(
                f"{self.folder / 'session.toml'} speaks of trials {', '.join(unknown)}, but videos/ "
                f"has {', '.join(names) or 'none'}."
            )
        if not names:
            raise PipelineError(
                f"no trials in {self.folder}: expected videos as videos/TRIAL/CAMERA.mp4"
            )
        calibration = self._calibration()
        trials = [self._trial(folder, calibration) for folder in folders]
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

    def _trial(self, folder: Path, calibration: Path) -> Trial:
        table = self.table.trials.get(folder.name, _TrialTable())
        files = _videos(folder)
        videos = {path.stem: path for path in files}
        if len(videos) < len(files):
            names = ", ".join(path.name for path in files)
            raise PipelineError(
                f"several videos of one camera in {folder}: {names}. Keep one of each."
            )
        for name in {*(table.cameras or ()), *table.clock_offsets_s} - set(videos):
            raise PipelineError(
                f"session.toml names camera {name} for trial {folder.name}, but {folder} has "
                f"{', '.join(videos) or 'no videos'}."
            )
        if table.cameras:
            videos = {name: videos[name] for name in table.cameras}
        return Trial(
            name=folder.name,
            activity=table.activity or activity_of(folder.name),
            videos=videos,
            calibration=calibration,
            results=self.folder / "results" / folder.name,
            subject=Subject(**self.table.subject.model_dump()),
            clock_offsets_s=table.clock_offsets_s,
            world_up=self.table.world_up,
            model=self._existing(self.table.model) if self.table.model else None,
        )

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


def _videos(folder: Path) -> list[Path]:
    """The videos of a trial; hidden files, as macOS makes beside them, are none."""
    if not folder.is_dir():
        return []
    visible = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return [path for path in visible if path.suffix.lower() in VIDEO_SUFFIXES]


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
