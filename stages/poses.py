"""Poses: 2D keypoints that a session brings, as OpenPose and Pose2Sim write them.

One folder a camera, one JSON file a frame: `{"people": [{"pose_keypoints_2d": [x, y, confidence,
...]}]}`, px of the upright image. The last digits of a file's name are its frame's number; a number
without a file is a dropped frame.
"""

import json
import re
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from pipeline.errors import PipelineError
from stages.trial import Trial

EXTERNAL = "external"
"""The backend's name in artefacts that rest on keypoints brought by the session."""
NOT_FOUND = (np.nan, np.nan, 0.0)
"""x, y and confidence of a keypoint that was not found."""
CONFIDENT, ENOUGH = 0.3, 3
"""So many keypoints, of at least this confidence, make a person."""


def frame_files(folder: Path) -> dict[int, Path]:
    """JSON files of one camera by the number of their frame, ascending.

    Raises PipelineError if there are none, or if a number is missing or given twice.
    """
    files: dict[int, Path] = {}
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith("."):  # as macOS makes beside each file
            continue
        digits = re.findall(r"[0-9]+", path.stem)
        if not digits:
            raise PipelineError(
                f"{path} has no frame number in its name: expected one such as cam1_000012.json"
            )
        number = int(digits[-1])
        if number in files:
            raise PipelineError(
                f"{files[number]} and {path.name} are both of frame {number}, the last digits of their "
                "names. Keep one of each frame."
            )
        files[number] = path
    if not files:
        raise PipelineError(
            f"there are no JSON files in {folder}: expected one a frame, such as cam1_000012.json"
        )
    return dict(sorted(files.items()))


def clocks(trial: Trial) -> dict[str, Float[np.ndarray, "frame"]]:
    """Time of each JSON file's frame by camera, s, from the frames' numbers and rates.

    The cameras share one numbering: the first number of any camera is time 0 of all.

    Raises PipelineError if a rate is missing, or a camera has fewer than two frames.
    """
    if unknown := [name for name in trial.cameras if name not in trial.rate_hz]:
        raise PipelineError(
            f"trial {trial.name} has keypoints without videos, and no rate of camera "
            f"{', '.join(unknown)}. Write the frames per second into session.toml: "
            f"[trials.{trial.name}] rate_hz = 60, or by camera: rate_hz = {{ {unknown[0]} = 60.0 }}"
        )
    numbers = {name: np.array(list(frame_files(trial.poses[name]))) for name in trial.cameras}
    for name, each in numbers.items():
        if len(each) < 2:
            raise PipelineError(
                f"{trial.poses[name]} holds keypoints of one frame only: expected a JSON file a frame."
            )
    first = min(each[0] for each in numbers.values())
    return {name: (each - first) / trial.rate_hz[name] for name, each in numbers.items()}


def read_poses(
    trial: Trial, camera: str, timeline: xr.Dataset
) -> Float[np.ndarray, "frame person keypoint 3"]:
    """Read what a camera's JSON files list, on the camera's frames in `timeline`.

    Persons are in each file's order, which changes from frame to frame. The last axis is x, y (px)
    and confidence (0 to 1; higher ones, as RTMPose gives, are taken as 1); `NOT_FOUND` where there
    is nothing.
    """
    files = frame_files(trial.poses[camera])
    poses = read_people(list(files.values()))
    if not trial.videos:  # the frames are the files
        return poses
    frames = int(np.isfinite(timeline.frame_time.sel(camera=camera)).sum())
    on_video = np.full((frames, *poses.shape[1:]), NOT_FOUND)
    on_video[list(files)] = poses
    return on_video


def read_people(files: list[Path]) -> Float[np.ndarray, "file person keypoint 3"]:
    """Read one camera's JSON files; see `read_poses`.

    Raises PipelineError for a file that is no OpenPose JSON, for files that differ in their number
    of keypoints, and if nobody is in any of them.
    """
    people = [_people(path) for path in files]
    sizes = {len(each): path for path, listed in zip(files, people, strict=True) for each in listed}
    if not sizes:
        raise PipelineError(
            f"nobody is in any of the {len(files)} files of {files[0].parent}. Are they the right ones? "
            "Leave the camera out with cameras = [...] in session.toml."
        )
    if len(sizes) > 1:
        found = ", ".join(f"{size} in {path.name}" for size, path in sizes.items())
        raise PipelineError(
            f"{files[0].parent}: persons differ in their number of keypoints: {found}. Keep the files "
            "of one pose model."
        )
    counts = [len(listed) for listed in people]
    values = np.stack([each for listed in people for each in listed])
    values[~(np.isfinite(values).all(-1) & (values[..., 2] > 0))] = NOT_FOUND
    values[..., 2] = np.minimum(values[..., 2], 1.0)
    poses = np.full((len(files), max(counts), *values.shape[1:]), NOT_FOUND)
    poses[np.arange(max(counts)) < np.array(counts)[:, None]] = values
    return poses


def _people(path: Path) -> list[Float[np.ndarray, "keypoint 3"]]:
    try:
        people = json.loads(path.read_bytes())["people"]
        return [np.array(each["pose_keypoints_2d"], float).reshape(-1, 3) for each in people]
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(
            f"{path} is no OpenPose JSON, or damaged ({error!r}): expected "
            '{"people": [{"pose_keypoints_2d": [x, y, confidence, ...]}]}. Write it again, or remove it '
            "if the frame can be missed."
        ) from error


def boxes_around(
    poses: Float[np.ndarray, "frame person keypoint 3"],
) -> dict[str, Float[np.ndarray, "frame person *any"]]:
    """Boxes (x1 y1 x2 y2, px) around each person's confident keypoints, as the detector gives them.

    Rotations (rad) are 0, scores the mean confidence, and places those in the JSON file. NaN, 0 and
    -1 where there is no person.
    """
    confidence = poses[..., 2]
    sure = confidence >= CONFIDENT
    person = sure.sum(-1) >= ENOUGH
    low = np.where(sure[..., None], poses[..., :2], np.inf).min(-2)
    high = np.where(sure[..., None], poses[..., :2], -np.inf).max(-2)
    return {
        "box": np.where(person[..., None], np.concatenate([low, high], -1), np.nan),
        "rotation": np.where(person, 0.0, np.nan),
        "score": np.where(person, confidence.mean(-1), 0.0),
        "place": np.where(person, np.arange(poses.shape[1]), -1),
    }


def write_poses(
    folder: Path,
    numbers: Int[np.ndarray, "frame"],
    position: Float[np.ndarray, "frame keypoint 2"],
    confidence: Float[np.ndarray, "frame keypoint"],
) -> None:
    """Write one person's keypoints (px, NaN where missing) as OpenPose JSON, a file a frame."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder.name.removesuffix("_json")
    values = np.nan_to_num(np.concatenate([position, confidence[..., None]], axis=-1)).round(3)
    for number, frame in zip(numbers, values, strict=True):
        people = [{"person_id": [-1], "pose_keypoints_2d": frame.ravel().tolist()}]
        text = json.dumps({"version": 1.3, "people": people})
        (folder / f"{stem}_{number:06d}.json").write_text(text, encoding="utf-8")
