"""What a layout finds in a session folder, before `session.toml` has its say."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from pipeline.config import explain
from pipeline.errors import PipelineError
from pipeline.session_table import SubjectTable
from stages.trial import Reference, Subject

VIDEO_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg"}
STATIC_NAMES = ("static", "neutral")
POSE_SUFFIX = "_json"


@dataclass(frozen=True)
class Found:
    """One trial as it lies in the folder."""

    name: str
    videos: dict[str, Path] = field(default_factory=dict)
    """By camera."""
    poses: dict[str, Path] = field(default_factory=dict)
    """2D keypoints by camera: a folder or a file."""
    calibration: Path | Mapping[str, Path] | None = None
    """A file of all cameras, or a file by camera; None if there is none, or too many."""
    world_up: str | None = None
    """The axis of the calibration's world that points up, where its format does not tell."""
    rate_hz: dict[str, float] = field(default_factory=dict)
    """Frames per second by camera, of keypoints without videos."""
    keypoints: str | None = None
    """Vocabulary of the keypoints."""
    subject: Subject | None = None
    """Where a trial has a subject of its own."""
    reference: Reference | None = None
    group: str = ""
    """Trials of one group were filmed together: a static trial of their own group scales them, and one
    of another group only if all trials are of the session's one subject."""
    activity: str | None = None
    """Where the trial's name does not tell."""


@dataclass(frozen=True)
class Contents:
    """A whole session as it lies in its folder."""

    trials: list[Found]
    subject: Subject = field(default_factory=Subject)
    notes: list[str] = field(default_factory=list)
    """What was chosen or assumed, and what is doubtful, for the user."""
    no_calibration: str = ""
    """Why trials have no calibration, and what to do."""


def subject_from(height_m: object, mass_kg: object, where: str) -> tuple[Subject, list[str]]:
    """The subject's data of another program's file; nothing, and a note, if no person has them."""
    try:
        table = SubjectTable.model_validate({"height_m": height_m, "mass_kg": mass_kg})
    except ValidationError as error:
        return Subject(), [
            f"{explain(error, where, SubjectTable)}. Height and mass were left out: give them in "
            "session.toml, [subject]."
        ]
    return Subject(table.height_m, table.mass_kg), []


def visible_videos(folder: Path) -> list[Path]:
    """The videos in a folder, by name; hidden files, as macOS makes beside them, are none."""
    if not folder.is_dir():
        return []
    visible = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return [path for path in visible if path.suffix.lower() in VIDEO_SUFFIXES]


def poses_by_camera(folder: Path) -> dict[str, Path]:
    """2D keypoints by camera: a folder CAMERA_json of a file a frame, or a file CAMERA.json.

    Raises PipelineError if a camera has both.
    """
    if folder.name.endswith(POSE_SUFFIX):  # a camera's own folder, where a trial's should be
        return {}
    folders = [path for path in folder.glob(f"*{POSE_SUFFIX}") if path.is_dir()]
    poses = {path.name.removesuffix(POSE_SUFFIX): path for path in folders}
    files = {path.stem: path for path in folder.glob("*.json") if not path.name.startswith(".")}
    if both := sorted(set(poses) & set(files)):
        raise PipelineError(
            f"{folder} has keypoints of {', '.join(both)} twice: as CAMERA{POSE_SUFFIX}/ and as "
            "CAMERA.json. Keep one of each."
        )
    return dict(sorted((poses | files).items()))


def children(folder: Path | None) -> Iterator[Path]:
    """Visible folders in a folder, by name; none if it is None or not there."""
    if folder is not None and folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.name.startswith("."):
                yield path


def descend(folder: Path, *names: str) -> Path | None:
    """The file or folder at a path below a folder, whatever the case of its names."""
    for name in names:
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
        found = next((each for each in entries if each.name.casefold() == name.casefold()), None)
        if found is None:
            return None
        folder = found
    return folder


def activity_of(trial: str) -> str:
    """Return the activity in a trial's name: without a trailing number and suffix.

    The number must follow a word, of two letters at least, so that the code of a subject before the
    activity does not hide it: `P01_squats1` is `P01_squats`, and `T01_squats` stays as it is.
    """
    return re.sub(r"(?<=[^\W\d_]{2})[-_ ]?\d+([-_].*)?$", "", trial)


def is_static(trial: str) -> bool:
    """Whether a trial's name says that the subject stands still in it, for scaling."""
    return any(name in trial.lower() for name in STATIC_NAMES)
