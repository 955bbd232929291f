"""What OpenCap's two layouts share: the subject's data, videos by camera, pickles, and which way is up.

Sources: opencap-core's main.py, utils.py and utilsChecker.py.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from calibration.opencap_pickle import FILE_NAME, board_up
from calibration.readers import read_file
from pipeline.errors import PipelineError
from pipeline.layouts.contents import (
    Found,
    activity_of,
    children,
    descend,
    subject_from,
    visible_videos,
)
from stages.trial import Subject

METADATA = "sessionMetadata.yaml"
NOT_TRIALS = ("extrinsics", "calibration")
"""Recordings of the checkerboard have these in their names."""
SYNCHRONISED = re.compile(r"_sync(d|ed)?(withmocap)?$", re.IGNORECASE)
"""How OpenCap ends the names of videos that it has cut to a common time."""
AXES_OF_PLACEMENTS = {
    "backwall": "y",
    "wall": "y",
    "perpendicular": "y",
    "ground": "z",
    "lying": "z",
}
"""The board's axis that is vertical, by how its placement's name begins: its y goes along its
columns, its z out of it."""

Variants = dict[str, Path]
"""The videos of one camera of one trial: `plain`, `synchronised`, or both."""
Recording = tuple[str, str, Path]
"""A trial, which kind of video it is, and where."""


def read_metadata(folder: Path) -> tuple[dict, list[str]]:
    """Read `sessionMetadata.yaml`; empty, and a note, if it is missing or unreadable."""
    path = descend(folder, METADATA)
    if path is None:
        return {}, [f"there is no {METADATA}: nothing is known of the subject and the board"]
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return {}, [f"{path.name} cannot be read and was left out: {' '.join(str(error).split())}"]
    return (table, []) if isinstance(table, dict) else ({}, [f"{path.name} holds no table"])


def subject_in(metadata: Mapping) -> tuple[Subject, list[str]]:
    """The subject's height and mass; those that no person has are left out with a note."""
    return subject_from(metadata.get("height_m"), metadata.get("mass_kg"), METADATA)


def camera_folders(folder: Path) -> list[Path]:
    """Folders of cameras, `Cam0`, `cam1`, … in a folder."""
    return [each for each in children(folder) if each.name.casefold().startswith("cam")]


def find_trials(
    cameras: Sequence[Path], group: str, placement: str, calibration: Path | None
) -> tuple[list[Found], list[str]]:
    """The trials that some cameras filmed together, and notes.

    A camera without a video of a trial is not in that trial. `placement` is the checkerboard's.
    """
    notes = []
    pickles = {each.name: path for each in cameras if (path := _pickle(each))}
    world_up = None
    if calibration is None:
        world_up, notes = _world_up(pickles, placement)
    filmed, told = _filmed(cameras)
    notes += told
    trials = []
    for name, by_camera in filmed.items():
        chosen, note = _one_kind(name, by_camera)
        notes += [note] if note else []
        known = {camera: pickles[camera] for camera in chosen if camera in pickles}
        trials.append(
            Found(
                name,
                chosen,
                calibration=calibration or known or None,
                world_up=world_up,
                group=group,
                activity=activity_of(name),
            )
        )
    return trials, notes


def _pickle(camera: Path) -> Path | None:
    return descend(camera, FILE_NAME)


def _world_up(pickles: Mapping[str, Path], placement: str) -> tuple[str | None, list[str]]:
    """The board's axis that points up, and notes if that is doubtful."""
    cameras = []
    for path in pickles.values():
        try:
            cameras += read_file(path)
        except PipelineError:  # who reads that camera's calibration is told what is wrong with it
            continue
    if not cameras:
        return None, []
    name = placement.casefold()
    axis = next(
        (axis for start, axis in AXES_OF_PLACEMENTS.items() if name.startswith(start)), None
    )
    seen, stated = board_up(cameras), board_up(cameras, axis)
    where = f"the checkerboard's placement is '{placement}'"
    if axis is None:
        unknown = (
            f"{where}, which is not known"
            if placement
            else "the checkerboard's placement is not given"
        )
        return seen, [
            f"{unknown}: {seen} is taken to be up, since it is so in the cameras' images. If that is "
            'wrong, set world_up in session.toml, such as world_up = "-y".'
        ]
    if seen != stated:
        return stated, [
            f"{where}, so that {stated} is taken to be up; but in the cameras' images {seen} is. Set "
            f'world_up = "{seen}" in session.toml if the person comes out lying.'
        ]
    return stated, []


def _filmed(cameras: Sequence[Path]) -> tuple[dict[str, dict[str, Variants]], list[str]]:
    """Videos by trial and camera, and notes on what was left out.

    A trial is spelt as the first camera spells it, whatever the case of its name in the others'.

    Raises PipelineError for two videos of one kind of a camera.
    """
    spelt: dict[str, str] = {}
    videos: dict[str, dict[str, Variants]] = {}
    notes = []
    for camera in cameras:
        recordings, told = _videos(camera)
        notes += told
        for trial, kind, path in recordings:
            name = spelt.setdefault(trial.casefold(), trial)
            variants = videos.setdefault(name, {}).setdefault(camera.name, {})
            if kind in variants:
                raise PipelineError(
                    f"camera {camera.name} has several videos of trial {name}: {variants[kind]} and "
                    f"{path}. Keep one of them."
                )
            variants[kind] = path
    return dict(sorted(videos.items())), notes


def _videos(camera: Path) -> tuple[list[Recording], list[str]]:
    """What one camera filmed: `TRIAL/TRIAL.avi` or `TRIAL.avi`, in its folder or in `InputMedia`."""
    media = descend(camera, "InputMedia") or camera
    recordings = [
        (SYNCHRONISED.sub("", path.stem), _kind(path), path) for path in visible_videos(media)
    ]
    notes = []
    for folder in children(media):
        if folder.name.startswith("Output"):
            continue
        files = visible_videos(folder)
        named = [path for path in files if _is_of(path, folder.name)]
        if not named and len(files) == 1:  # the app may name a video by its number
            recordings.append((folder.name, "plain", files[0]))
        elif not named and files:
            notes.append(
                f"{camera.name} is left out of {folder.name}: none of "
                f"{', '.join(path.name for path in files)} is named as the trial"
            )
        recordings += [(folder.name, _kind(path), path) for path in named]
    return [each for each in recordings if _is_trial(each[0])], notes


def _is_trial(name: str) -> bool:
    return not any(word in name.casefold() for word in NOT_TRIALS)


def _is_of(path: Path, trial: str) -> bool:
    return SYNCHRONISED.sub("", path.stem).casefold() == trial.casefold()


def _kind(path: Path) -> str:
    return "synchronised" if SYNCHRONISED.search(path.stem) else "plain"


def _one_kind(trial: str, videos: Mapping[str, Variants]) -> tuple[dict[str, Path], str]:
    """Videos by camera, all synchronised or all not if that can be; and a note on the choice."""
    for kind in ("synchronised", "plain"):
        if all(kind in variants for variants in videos.values()):
            chosen = {camera: variants[kind] for camera, variants in videos.items()}
            both = kind == "synchronised" and any("plain" in each for each in videos.values())
            first = next(iter(chosen.values())).name
            return chosen, f"{trial}: the synchronised videos are used ({first})" if both else ""
    chosen = {camera: each.get("synchronised") or each["plain"] for camera, each in videos.items()}
    raw = ", ".join(camera for camera, each in videos.items() if "synchronised" not in each)
    return chosen, (
        f"{trial}: the videos of {raw} are not synchronised, those of the other cameras are. Leave "
        f"them out if need be: [trials.{trial}] cameras = [...]"
    )


def board_placement(metadata: Mapping) -> str:
    """Where the checkerboard stood or lay, as OpenCap names it; empty if it is not said."""
    board = metadata.get("checkerBoard")
    return str(board.get("placement") or "") if isinstance(board, Mapping) else ""


def no_calibration(folder: Path) -> str:
    """What to say of a trial whose cameras have no pickles."""
    return (
        f"no camera of the trial in {folder} has a {FILE_NAME}. Copy them there, or name another "
        'calibration in session.toml: calibration = "FILE"'
    )


def file_of_trial(folder: Path | None, trial: str, suffix: str, group: str) -> Path | None:
    """The file of one trial below a folder: of its name, or its name and something more.

    None if there is none, or if several would do and none is in a folder named as the group is.
    """
    if folder is None:
        return None
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.casefold() == suffix]
    stems = {path: path.stem.casefold() for path in files}
    name = trial.casefold()
    exact = [path for path in files if stems[path] == name]
    candidates = exact or [path for path in files if stems[path].startswith(f"{name}_")]
    grouped = [
        path
        for path in candidates
        if group and group.casefold() in (part.casefold() for part in path.parts)
    ]
    candidates = grouped or candidates
    return candidates[0] if len(candidates) == 1 else None


def model_name(folder: Path | None) -> str:
    """Name of the scaled OpenSim model in a folder, if there is one: that of the generic model."""
    models = sorted(folder.glob("*.osim")) if folder is not None else []
    names = {re.sub(r"_scaled.*$", "", path.stem) for path in models}
    return names.pop() if len(names) == 1 else ""
