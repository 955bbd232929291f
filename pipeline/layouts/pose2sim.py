"""A Pose2Sim project: `Config.toml`, `calibration/`, and a trial's `videos/CAMERA.mp4` and `pose/`.

A project is one trial, or a folder of trials; each level may have a `Config.toml`, and the deeper one
wins. Source: Pose2Sim's Config.toml of its demos, Pose2Sim.py and triangulation.py (0.10).
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibration.readers import read_file, similar
from pipeline.errors import PipelineError
from pipeline.layouts.contents import (
    Contents,
    Found,
    activity_of,
    children,
    poses_by_camera,
    subject_from,
    visible_videos,
)
from pipeline.layouts.ours import videos_by_camera
from pipeline.video_facts import video_facts

NAME = "Pose2Sim project"
EXPECTED = "Config.toml, calibration/, videos/CAMERA.mp4 or TRIAL/videos/CAMERA.mp4"

CONFIG = "Config.toml"
SYNCHRONISED, PLAIN = "pose-sync", "pose"
DEFAULT_MASS_KG = 70.0
DEPTH = 3
"""Levels of folders: session, participant, trial."""
VOCABULARIES = {
    "body_with_feet": "halpe-26",
    "halpe_26": "halpe-26",
    "whole_body": "coco-wholebody-133",
    "whole_body_wrist": "coco-wholebody-133",
    "coco_133": "coco-wholebody-133",
    "coco_133_wrist": "coco-wholebody-133",
    "body": "coco-17",
    "coco_17": "coco-17",
    "body_25": "body-25",
    "blazepose": "blazepose-33",
}
"""Our names of the keypoints of `pose_model`, in small letters."""
KINDS = {
    ("project",): (dict, "table"),
    ("project", "exclude_from_batch"): (list, "list of names"),
    ("pose",): (dict, "table"),
    ("calibration",): (dict, "table"),
    ("calibration", "convert"): (dict, "table"),
}
"""What is read of Config.toml, outer tables first."""


def recognises(folder: Path) -> bool:
    """Whether a folder has this layout: a project, one of its participants, or a lone trial."""
    return bool(_config_files(folder)) and bool(_trial_folders(folder))


def read(folder: Path, calibration: Path | None) -> Contents:
    """Find the trials; `calibration` is the one that `session.toml` names.

    Raises PipelineError for a Config.toml that is none.
    """
    folders = _trial_folders(folder)
    names = [Path(os.path.abspath(each)).name for each in folders]  # of a link, not its target
    trials: list[Found] = []
    notes: list[str] = []
    problem = ""
    for each, name in zip(folders, names, strict=True):
        config = _config(each)
        if each.name in config.get("project", {}).get("exclude_from_batch", []):
            notes.append(f"{each.name} is left out, as exclude_from_batch in {CONFIG} says")
            continue
        if names.count(name) > 1:
            name = "_".join(each.relative_to(folder).parts)
        chosen, reason = (calibration, "") if calibration else _calibration(each, config)
        problem = problem or reason
        found, told = _trial(each, name, chosen, config)
        trials.append(found)
        notes += [note for note in told if note not in notes]
    return Contents(trials, notes=notes, no_calibration=problem)


def _config_files(folder: Path) -> list[Path]:
    """The `Config.toml` of a folder and of those above it, outermost first.

    A project may lie anywhere: at most as many levels as one has, with no gap of two.
    """
    levels = [folder.resolve(), *list(folder.resolve().parents)[: DEPTH - 1]]
    files = [each / CONFIG for each in levels]
    if not any(path.is_file() for path in files[:2]):
        return []
    return [path for path in reversed(files) if path.is_file()]


def _config(trial: Path) -> dict[str, Any]:
    """The settings of a trial, those of its project among them."""
    merged: dict[str, Any] = {}
    for path in _config_files(trial):
        try:
            inner = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise PipelineError(f"cannot read {path}: {error}. Correct it.") from error
        _check(inner, path)
        merged = _updated(merged, inner)
    return merged


def _check(config: Mapping[str, Any], path: Path) -> None:
    """Raise PipelineError for a Config.toml with other than tables and lists where they belong."""
    for *above, name in KINDS:
        table = config
        for each in above:
            table = table.get(each, {})
        kind, called = KINDS[*above, name]
        if not isinstance(table.get(name, kind()), kind):
            where = ".".join((*above, name))
            raise PipelineError(f"{path}: {where} is no {called}: {table[name]!r}. Correct it.")


def _updated(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merged key by key; the inner one wins."""
    merged = dict(outer)
    for key, value in inner.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _updated(merged[key], value) if both else value
    return merged


def _trial_folders(folder: Path) -> list[Path]:
    """Folders that hold `videos/` or `pose/` of one trial."""
    found, level = [], [folder]
    for _ in range(DEPTH):
        found += [each for each in level if _is_trial(each)]
        level = [
            below
            for each in level
            if not _is_trial(each)
            for below in children(each)
            if below.name not in ("results", "calibration", "videos", SYNCHRONISED, PLAIN)
        ]
    return found


def _is_trial(folder: Path) -> bool:
    if visible_videos(folder / "videos"):
        return True
    return any(poses_by_camera(folder / each) for each in (SYNCHRONISED, PLAIN))


def _calibration(trial: Path, config: Mapping[str, Any]) -> tuple[Path | None, str]:
    """The calibration of a trial, in its folder or above, or why there is none to take.

    Pose2Sim converts other programs' files to its TOML. Qualisys's own file says more of the lens, and
    is taken where Config.toml says that it was converted.
    """
    levels = [trial.resolve(), *list(trial.resolve().parents)[: DEPTH - 1]]
    folder = next(
        (each / "calibration" for each in levels if (each / "calibration").is_dir()), None
    )
    if folder is None:
        return None, f"no calibration/ in {trial} nor above it"
    about = config.get("calibration", {})
    converted = about.get("calibration_type", "convert") == "convert"
    from_qualisys = about.get("convert", {}).get("convert_from", "qualisys") == "qualisys"
    patterns = ("*.toml", "*.qca.txt")
    for pattern in reversed(patterns) if converted and from_qualisys else patterns:
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0], ""
        if found:
            return None, (
                f"{len(found)} calibration files in {folder}: {', '.join(p.name for p in found)}. Name "
                'one in session.toml: calibration = "calibration/FILE"'
            )
    if any(folder.glob("*/*.pickle")):
        return folder, ""
    return None, (
        f"no calibration file in {folder}: expected Pose2Sim's .toml or Qualisys's .qca.txt. Run "
        "Pose2Sim's calibration first, or export it again."
    )


def _trial(
    folder: Path, name: str, calibration: Path | None, config: Mapping[str, Any]
) -> tuple[Found, list[str]]:
    """One trial, and what to know about it."""
    about = config.get("project", {})
    notes = _about(about)
    videos, poses = videos_by_camera(folder / "videos"), poses_by_camera(folder / PLAIN)
    rates = dict.fromkeys(poses, _number(about.get("frame_rate")))
    if synchronised := poses_by_camera(folder / SYNCHRONISED):
        # Their numbers are those of a common time, no longer those of a video's frames.
        stated = _number(about.get("frame_rate"))
        rates = {name: stated or _rate_of(videos.get(name)) for name in synchronised}
        poses, videos = synchronised, {}
        notes.append(
            f"{name}: the synchronised keypoints of {SYNCHRONISED}/ are used, without the videos"
        )
    names, note = _calibrated_names(list(videos or poses), calibration)
    notes += [f"{name}: {note}"] if note else []
    model = str(config.get("pose", {}).get("pose_model", "")).casefold()
    height, mass = (_number(about.get(f"participant_{what}")) for what in ("height", "mass"))
    subject, doubts = subject_from(height, mass, CONFIG)
    found = Found(
        name,
        {names.get(camera, camera): path for camera, path in videos.items()},
        {names.get(camera, camera): path for camera, path in poses.items()},
        calibration,
        rate_hz={names.get(camera, camera): rate for camera, rate in rates.items() if rate},
        keypoints=VOCABULARIES.get(model, model) or None,
        subject=subject,
        group=str(folder.parent),
        activity=activity_of(Path(os.path.abspath(folder)).name),
    )
    return found, notes + doubts


def _about(project: Mapping[str, Any]) -> list[str]:
    """What Config.toml asks of Pose2Sim that is done otherwise here, or is doubtful."""
    notes = []
    if project.get("frame_range", "auto") not in ("auto", "all", []):
        notes.append(f"frame_range in {CONFIG} is not applied: whole trials are run")
    if project.get("multi_person"):
        notes.append(
            f"multi_person in {CONFIG}: only the largest person is followed, unless --person all"
        )
    if project.get("participant_mass") == DEFAULT_MASS_KG:
        notes.append(
            f"participant_mass in {CONFIG} is {DEFAULT_MASS_KG:g} kg, which is also Pose2Sim's default: "
            "check that it is the subject's"
        )
    return notes


def _number(value: Any) -> float | None:
    """A number of Config.toml; None for 'auto'. Of a list by person, the only one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value > 0 else None


def _rate_of(video: Path | None) -> float | None:
    return video_facts(video).rate_hz if video else None


def _calibrated_names(cameras: list[str], calibration: Path | None) -> tuple[dict[str, str], str]:
    """The calibration's names of cameras, where the files are called quite otherwise.

    Pose2Sim takes both in their order. That is done here too, but only if no name fits and there are
    as many of both.
    """
    if calibration is None:
        return {}, ""
    try:
        calibrated = read_file(calibration)
    except PipelineError:  # who runs the trial is told what is wrong with it
        return {}, ""
    if len(calibrated) != len(cameras) or any(similar(name, calibrated) for name in cameras):
        return {}, ""
    pairs = dict(zip(sorted(cameras, key=_natural), (c.name for c in calibrated), strict=True))
    listed = ", ".join(f"{file} is {name}" for file, name in pairs.items())
    return pairs, (
        f"no file is named as a camera of {calibration.name}, so both are taken in their order, as "
        f"Pose2Sim does: {listed}. Check it, and rename the files if it is wrong."
    )


def _natural(name: str) -> list:
    """So that cam2 comes before cam10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
