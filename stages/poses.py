"""Poses: 2D keypoints that a session brings, as OpenPose, Pose2Sim, AlphaPose and MMPose write them.

A camera has a folder with a JSON file a frame, or one JSON file of its whole video (`pose_formats`).
In a folder, the last digits of a file's name are its frame's number, and a number without a file is a
dropped frame. A file of a whole video leaves out, or lists as empty, frames in which nobody was
found: those between the first and the last listed were filmed.
"""

import json
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from pipeline.errors import PipelineError
from stages.pose_formats import (
    MMPOSE_FRAME,
    OPENPOSE,
    People,
    frame_number,
    load_json,
    parse,
    read_video_file,
)
from stages.trial import Trial

EXTERNAL = "external"
"""The backend's name in artefacts that rest on keypoints brought by the session."""
NOT_FOUND = (np.nan, np.nan, 0.0)
"""x, y and confidence of a keypoint that was not found."""
CONFIDENT, ENOUGH = 0.3, 3
"""So many keypoints, of at least this confidence, make a person."""
LEAST_LISTED = 0.02
"""Share of the frames between the first and the last in a file of a whole video; with less, their
numbers are none of frames."""


def frame_files(folder: Path) -> dict[int, Path]:
    """JSON files of one camera by the number of their frame, ascending.

    Raises PipelineError if there are none, or if a number is missing or given twice.
    """
    files: dict[int, Path] = {}
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith("."):  # as macOS makes beside each file
            continue
        number = frame_number(path.stem)
        if number is None:
            raise PipelineError(
                f"{path} has no frame number in its name: expected one such as cam1_000012.json"
            )
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


def frame_numbers(source: Path) -> list[int]:
    """Numbers of the frames that a camera filmed, ascending, by its folder or file of keypoints.

    Raises PipelineError for what is no such folder or file; see `frame_files` and `video_frames`.
    """
    return list(frame_files(source) if source.is_dir() else video_frames(source))


def video_frames(path: Path) -> dict[int, People]:
    """Persons by frame, from the first to the last that a file of a whole video lists.

    Raises PipelineError if it is of no known format, or its numbers are no frames.
    """
    listed = read_video_file(path)
    if not listed:
        raise PipelineError(f"{path} lists no frames. Is it the right file?")
    first, last = min(listed), max(listed)
    if first < 0:
        raise PipelineError(f"{path} has a frame before the first: its frame_id must count from 1.")
    if last - first + 1 > len(listed) / LEAST_LISTED:
        raise PipelineError(
            f"{path} lists {len(listed)} frames between number {first} and {last}: these are no numbers "
            "of a video's frames. Number the images by frame before they go to the pose model."
        )
    return {number: listed.get(number, []) for number in range(first, last + 1)}


def clocks(trial: Trial) -> dict[str, Float[np.ndarray, "frame"]]:
    """Time of each frame that has a number by camera, s, from the numbers and rates.

    The cameras share one numbering: the first number of any camera is time 0 of all.

    Raises PipelineError if a rate is missing, or a camera has fewer than two frames.
    """
    if unknown := [name for name in trial.cameras if name not in trial.rate_hz]:
        raise PipelineError(
            f"trial {trial.name} has keypoints without videos, and no rate of camera "
            f"{', '.join(unknown)}. Write the frames per second into session.toml: "
            f"[trials.{trial.name}] rate_hz = 60, or by camera: rate_hz = {{ {unknown[0]} = 60.0 }}"
        )
    numbers = {name: np.array(frame_numbers(trial.poses[name])) for name in trial.cameras}
    for name, each in numbers.items():
        if len(each) < 2:
            raise PipelineError(
                f"{trial.poses[name]} holds keypoints of one frame only: expected a JSON file a frame, or "
                "one of the whole video."
            )
    first = min(each[0] for each in numbers.values())
    return {name: (each - first) / trial.rate_hz[name] for name, each in numbers.items()}


def read_poses(
    trial: Trial, camera: str, timeline: xr.Dataset
) -> Float[np.ndarray, "frame person keypoint 3"]:
    """Read the keypoints that a camera brings, on its frames in `timeline`.

    Persons are in the order in which they are listed, which changes from frame to frame. The last
    axis is x, y (px) and confidence (0 to 1; higher ones, as RTMPose gives, are taken as 1);
    `NOT_FOUND` where there is nothing.
    """
    numbers, poses = read_source(trial.poses[camera])
    if not trial.videos:  # the frames are those that have a number
        return poses
    frames = int(np.isfinite(timeline.frame_time.sel(camera=camera)).sum())
    on_video = np.full((frames, *poses.shape[1:]), NOT_FOUND)
    on_video[numbers] = poses
    return on_video


def read_source(source: Path) -> tuple[list[int], Float[np.ndarray, "frame person keypoint 3"]]:
    """Read a camera's folder or file: the frames' numbers, and the persons; see `read_poses`."""
    if not source.is_dir():
        frames = video_frames(source)
        names = [f"frame {number}" for number in frames]
        return list(frames), as_array(list(frames.values()), names, source)
    files = frame_files(source)
    return list(files), read_people(list(files.values()))


def read_people(files: list[Path]) -> Float[np.ndarray, "file person keypoint 3"]:
    """Read one camera's JSON files, one a frame; see `read_poses`.

    Raises PipelineError for a file that is not of their format, for persons who differ in their
    number of keypoints, and if nobody is in any of the files.
    """
    contents = (load_json(path, OPENPOSE) for path in files)  # [] is MMPose's of nobody
    first = next((content for content in contents if content != []), None)
    of = MMPOSE_FRAME if MMPOSE_FRAME.fits(first) else OPENPOSE
    people = [parse(of, load_json(path, of), path) for path in files]
    return as_array(people, [path.name for path in files], files[0].parent)


def as_array(
    people: list[People], names: list[str], source: Path
) -> Float[np.ndarray, "frame person keypoint 3"]:
    """Persons of each frame as one array; see `read_poses`.

    `names` say which frame each is, for messages. Raises PipelineError if persons differ in
    their number of keypoints, or there are none.
    """
    sizes = {len(each): name for name, listed in zip(names, people, strict=True) for each in listed}
    if not sizes:
        raise PipelineError(
            f"nobody is in any of the {len(people)} frames of {source}. Are they the right ones? "
            "Leave the camera out with cameras = [...] in session.toml."
        )
    if len(sizes) > 1:
        found = ", ".join(f"{size} in {name}" for size, name in sizes.items())
        raise PipelineError(
            f"{source}: persons differ in their number of keypoints: {found}. Keep those of one pose "
            "model."
        )
    counts = [len(listed) for listed in people]
    values = np.stack([each for listed in people for each in listed])
    values[~(np.isfinite(values).all(-1) & (values[..., 2] > 0))] = NOT_FOUND
    values[..., 2] = np.minimum(values[..., 2], 1.0)
    poses = np.full((len(people), max(counts), *values.shape[1:]), NOT_FOUND)
    poses[np.arange(max(counts)) < np.array(counts)[:, None]] = values
    return poses


def boxes_around(
    poses: Float[np.ndarray, "frame person keypoint 3"],
) -> dict[str, Float[np.ndarray, "frame person *any"]]:
    """Boxes (x1 y1 x2 y2, px) around each person's confident keypoints, as the detector gives them.

    Rotations (rad) are 0, scores the mean confidence, and places those in the list. NaN, 0 and
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
    position: Float[np.ndarray, "frame *person keypoint 2"],
    confidence: Float[np.ndarray, "frame *person keypoint"],
) -> None:
    """Write the keypoints of a person, or of several (px, NaN where missing), as OpenPose JSON.

    A file a frame, in which persons are in their order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder.name.removesuffix("_json")
    values = np.nan_to_num(np.concatenate([position, confidence[..., None]], axis=-1)).round(3)
    values = values.reshape(len(numbers), -1, 3 * position.shape[-2])
    for number, frame in zip(numbers, values, strict=True):
        people = [{"person_id": [-1], "pose_keypoints_2d": each} for each in frame.tolist()]
        text = json.dumps({"version": 1.3, "people": people})
        (folder / f"{stem}_{number:06d}.json").write_text(text, encoding="utf-8")
