"""Init: a session out of a folder of videos: what belongs where, and `session.toml`.

Nothing is moved, changed or deleted: videos are linked or copied into `videos/TRIAL/CAMERA.mp4`.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.readers import READERS, read_file, similar
from pipeline.errors import PipelineError
from pipeline.files import replacing
from pipeline.layouts import layout_of, ours
from pipeline.layouts.contents import children, visible_videos
from pipeline.session_table import FILE_NAME, SubjectTable
from stages.trial import Subject

CAMERA_LIKE = re.compile(r"(cam|camera|gopro|iphone|phone|view|c)[-_ ]?\d+", re.IGNORECASE)
"""How cameras are often called."""
OURS = {"videos", "pose", "calibration", "results", "truth"}
"""Folders of our own layout."""
NOT_CALIBRATIONS = {FILE_NAME, "config.toml", "pyproject.toml"}


@dataclass(frozen=True)
class Placed:
    """One video, and where it goes in the session."""

    source: Path
    trial: str
    camera: str

    def target(self, folder: Path) -> Path:
        """Where it goes."""
        return folder / "videos" / self.trial / f"{self.camera}{self.source.suffix.lower()}"


def find_calibration(folder: Path) -> Path | None:
    """The only calibration file in a folder or its `calibration/`, if there is exactly one.

    Another program's session is asked for its own when it is read.
    """
    if layout_of(folder) not in (None, ours):
        return None
    files = [
        path
        for place in (folder / "calibration", folder)
        if place.is_dir()
        for path in sorted(place.iterdir())
        if path.name.lower().endswith(tuple(READERS)) and path.name.lower() not in NOT_CALIBRATIONS
    ]
    return files[0] if len(files) == 1 else None


def known_subject(folder: Path) -> Subject:
    """What the folder's own files say of the subject."""
    layout = layout_of(folder)
    if layout is None:
        return Subject()
    contents = layout.read(folder, None)
    own = (trial.subject for trial in contents.trials if trial.subject)
    return next(own, contents.subject)


def plan_videos(folder: Path, calibration: Path | None) -> list[Placed]:
    """Tell each loose video's trial and camera by its name and its folder's.

    Understood are `TRIAL/CAMERA.mp4`, `CAMERA/TRIAL.mp4`, `TRIAL_CAMERA.mp4`, `CAMERA_TRIAL.mp4`, and
    `CAMERA.mp4` alone, of one trial. Cameras are known by the calibration's names, or without one by
    names such as `cam1`. Another program's session is left as it is.

    Raises PipelineError, with all of them, for videos that cannot be told apart.
    """
    if layout_of(folder) not in (None, ours):
        return []
    cameras = read_file(calibration) if calibration else []

    def is_camera(name: str) -> bool:
        return bool(similar(name, cameras)) if cameras else bool(CAMERA_LIKE.fullmatch(name))

    flat = [(video, "") for place in (folder, folder / "videos") for video in visible_videos(place)]
    nested = [
        (video, below.name)
        for below in children(folder)
        if below.name not in OURS
        for video in visible_videos(below)
    ]
    placed, unclear = [], []
    spelt: dict[str, str] = {}  # trials whose names differ by case only are one
    for video, parent in flat + nested:
        at = _trial_and_camera(video.stem, parent, folder.resolve().name, is_camera)
        if at is None:
            unclear.append(str(video.relative_to(folder)))
        else:
            trial, camera = at
            placed.append(Placed(video, spelt.setdefault(trial.casefold(), trial), camera))
    if unclear:
        names = ", ".join(camera.name for camera in cameras)
        raise PipelineError(
            f"cannot tell trial and camera of {', '.join(unclear)}. Name them as squats1_cam1.mp4, "
            "cam1/squats1.mp4 or squats1/cam1.mp4; cameras are "
            f"{f'those of the calibration: {names}' if names else 'known by names such as cam1'}."
        )
    _check_unique(placed, folder)
    return [each for each in placed if not _in_place(each, folder)]


def _trial_and_camera(
    stem: str, parent: str, session: str, is_camera: Callable[[str], bool]
) -> tuple[str, str] | None:
    """Trial and camera by a video's name and its folder's; None if they do not tell."""
    if parent:
        if is_camera(stem):
            return parent, stem
        return (stem, parent) if is_camera(parent) else None
    if is_camera(stem):
        return session, stem
    for mark in re.finditer(r"[-_ ]", stem):
        before, after = stem[: mark.start()], stem[mark.end() :]
        if before and is_camera(after):
            return before, after
        if after and is_camera(before):
            return after, before
    return None


def _in_place(placed: Placed, folder: Path) -> bool:
    target = placed.target(folder)
    return target.exists() and target.samefile(placed.source)


def _check_unique(placed: Sequence[Placed], folder: Path) -> None:
    seen: dict[tuple[str, str], Path] = {}
    for each in placed:
        place = (each.trial, each.camera)
        if place in seen:
            raise PipelineError(
                f"{seen[place].relative_to(folder)} and {each.source.relative_to(folder)} would both be "
                f"camera {each.camera} of trial {each.trial}. Keep one, or rename it."
            )
        seen[place] = each.source


def place_videos(folder: Path, placed: Sequence[Placed]) -> None:
    """Link each video into its place; copy it where the disk cannot link. Nothing is replaced.

    Raises PipelineError if another file is in the place.
    """
    for each in placed:
        target = each.target(folder)
        if target.exists():
            raise PipelineError(
                f"{target} is there already, and is another file. Move one of them."
            )
        with replacing(target) as temporary:
            try:
                os.link(each.source, temporary)
            except OSError:  # such as a disk without hard links
                shutil.copy2(each.source, temporary)


def place_calibration(folder: Path, calibration: Path) -> str:
    """Where the session finds a calibration, relative to its folder; one from elsewhere is copied.

    Raises PipelineError for what is no calibration.
    """
    read_file(calibration)
    inside = calibration.resolve()
    if inside.is_relative_to(folder.resolve()):
        return inside.relative_to(folder.resolve()).as_posix()
    if calibration.is_dir():
        raise PipelineError(
            f"{calibration} is a folder outside the session: copy it into {folder / 'calibration'} first."
        )
    target = folder / "calibration" / calibration.name
    if not target.exists():
        with replacing(target) as temporary:
            shutil.copyfile(calibration, temporary)
    elif target.read_bytes() != calibration.read_bytes():
        raise PipelineError(f"{target} is there already, and is another file. Move one of them.")
    return target.relative_to(folder).as_posix()


def write_session_toml(folder: Path, subject: SubjectTable, calibration: str | None) -> Path:
    """Write `session.toml`; what is not known is there as a comment."""
    lines = ["# What else may stand here: sessions/README.md of the pipeline.", ""]
    if calibration:
        lines += [f"calibration = {json.dumps(calibration, ensure_ascii=False)}", ""]
    lines.append("[subject]")
    for key, unit, example in (("height_m", "m", "1.75"), ("mass_kg", "kg", "70.0")):
        value = getattr(subject, key)
        lines.append(f"# {key} = {example}  # {unit}" if value is None else f"{key} = {value}")
    with replacing(folder / FILE_NAME) as path:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / FILE_NAME
