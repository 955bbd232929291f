"""Pose formats: what OpenPose, AlphaPose and MMPose write, as persons by the number of their frame.

A person is an array (keypoint, 3): x, y, px of the upright image, and confidence. The number is that
of the video's frame, counted from 0, wherever a program says which frame it saw. The sources of what
is known here:

- OpenPose: doc/02_output.md, "UI and Visualization Output" of JSON; Pose2Sim writes the same.
- AlphaPose: alphapose/utils/pPose_nms.py (`write_json`), alphapose/utils/detector.py, which names the
  frames of a video 0.jpg, 1.jpg, ...
- MMPose 1.x: demo/topdown_demo_with_mmdet.py (counts frames from 1), and
  mmpose/apis/inferencers/base_mmpose_inferencer.py (from 0).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from pipeline.errors import PipelineError

Person = Float[np.ndarray, "keypoint 3"]
People = list[Person]
Frames = dict[int, People]
"""Persons by the number of their frame, as the file lists them."""

DAMAGED = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError)
"""What reading a file raises that is not of the format that it seemed to be of."""

OPEN, NECK = 18, 1
COCO_OF_OPEN = [0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10]
"""COCO's 17 keypoints among the 18 of AlphaPose's `--format open` and `cmu`, which adds a neck."""
HALPE_BODY, HALPE_WHOLE = 26, 136
"""Halpe's whole body begins with the 26 keypoints of its body with feet; then come face and hands
(alphapose/utils/pPose_nms.py, `PCK_match_fullbody`)."""
MMPOSE_DATASETS = {"coco", "halpe26", "coco_wholebody"}
"""Data sets of MMPose whose keypoints are those of a vocabulary of their number."""


@dataclass(frozen=True)
class Format:
    """How one program writes keypoints."""

    name: str
    expected: str
    """Its content in short, for messages."""
    fits: Callable[[object], bool]
    """Whether a file's content seems to be of this format."""
    read: Callable[[object], People | Frames]
    """The persons of a file of one frame, or of a file of a whole video."""


def _flat(values: object) -> Person:
    return np.array(values, float).reshape(-1, 3)


def _openpose(content: object) -> People:
    return [_flat(each["pose_keypoints_2d"]) for each in content["people"]]


def _mmpose(instances: object) -> People:
    people = [np.column_stack([each["keypoints"], each["keypoint_scores"]]) for each in instances]
    if any(each.shape[1] != 3 for each in people):
        raise ValueError("keypoints are not x, y")
    return [each.astype(float) for each in people]


def _mmpose_demo(content: object) -> Frames:
    dataset = (content.get("meta_info") or {}).get("dataset_name")
    if dataset is not None and dataset not in MMPOSE_DATASETS:
        raise PipelineError(
            f"its keypoints are those of {dataset}, which are not known here. Known are those of "
            f"{', '.join(sorted(MMPOSE_DATASETS))}: run a model of one of these."
        )
    return {
        number - 1: people for number, people in _mmpose_video(content["instance_info"]).items()
    }


def _mmpose_video(content: object) -> Frames:
    frames: Frames = {}
    for frame in content:
        number = int(frame["frame_id"])
        if number in frames:
            raise ValueError(f"frame_id {number} is there twice")
        frames[number] = _mmpose(frame["instances"])
    return frames


def _alphapose(content: object) -> Frames:
    listed = [(each["image_id"], _flat(each["keypoints"])) for each in content]
    return _by_number([(image, _halpe_body(person)) for image, person in listed])


def _halpe_body(person: Person) -> Person:
    return person[:HALPE_BODY] if len(person) == HALPE_WHOLE else person


def _alphapose_open(content: object) -> Frames:
    return _by_number([
        (image, _coco_of_open(_flat(each.get("pose_keypoints_2d", each.get("joints")))))
        for image, frame in content.items()
        for each in frame.get("people", frame.get("bodies"))
    ])  # fmt: skip


def _coco_of_open(person: Person) -> Person:
    """COCO's keypoints of AlphaPose's 18: the neck, a middle of shoulders, is left out.

    Raises PipelineError if the neck is none: of other than COCO's models, `--format open` and `cmu`
    have the top of the head there.
    """
    if len(person) != OPEN:
        raise ValueError(f"{len(person)} keypoints of a person, not {OPEN}")
    body = person[COCO_OF_OPEN]
    if not np.allclose(person[NECK], body[[5, 6]].mean(axis=0), atol=1e-3):
        raise PipelineError(
            "its necks are not between the shoulders: --format open and cmu mix up the keypoints of "
            "other models than COCO's. Run AlphaPose again without --format."
        )
    return body


def _by_number(listed: list[tuple[object, Person]]) -> Frames:
    """Persons by the number in their image's name."""
    frames: Frames = {}
    images: dict[int, object] = {}
    for image, person in listed:
        number = frame_number(Path(str(image)).stem)
        if number is None:
            raise PipelineError(
                f"{image} has no frame number in its name: expected one such as 12.jpg"
            )
        if images.setdefault(number, image) != image:
            raise PipelineError(
                f"{images[number]} and {image} are both of frame {number}, the last digits of their "
                "names. Write a file for each camera."
            )
        frames.setdefault(number, []).append(person)
    return frames


def frame_number(stem: str) -> int | None:
    """The last digits of a file's name without its ending; None if it has none."""
    digits = re.findall(r"[0-9]+", stem)
    return int(digits[-1]) if digits else None


def _lists(*keys: str) -> Callable[[object], bool]:
    """Whether content is a list of tables with these keys."""
    return lambda content: (
        isinstance(content, list)
        and bool(content)
        and isinstance(content[0], dict)
        and set(keys) <= set(content[0])
    )


def _has(*keys: str) -> Callable[[object], bool]:
    """Whether content is a table with one of these keys."""
    return lambda content: isinstance(content, dict) and any(key in content for key in keys)


OPENPOSE = Format(
    "OpenPose JSON",
    '{"people": [{"pose_keypoints_2d": [x, y, confidence, ...]}]}',
    _has("people"),
    _openpose,
)
MMPOSE_FRAME = Format(
    "MMPose JSON of one image",
    '[{"keypoints": [[x, y], ...], "keypoint_scores": [...]}]',
    _lists("keypoints", "keypoint_scores"),
    _mmpose,
)
OF_VIDEOS = (
    Format(
        "AlphaPose JSON",
        '[{"image_id": "12.jpg", "keypoints": [x, y, confidence, ...]}]',
        _lists("image_id", "keypoints"),
        _alphapose,
    ),
    Format(
        "AlphaPose JSON (--format open or cmu)",
        '{"12.jpg": {"people": [{"pose_keypoints_2d": [x, y, confidence, ...]}]}}',
        lambda content: (
            isinstance(content, dict)
            and bool(content)
            and all(map(_has("people", "bodies"), content.values()))
        ),
        _alphapose_open,
    ),
    Format(
        "MMPose JSON of its demo",
        '{"instance_info": [{"frame_id": 1, "instances": [...]}]}',
        _has("instance_info"),
        _mmpose_demo,
    ),
    Format(
        "MMPose JSON of its inferencer",
        '[{"frame_id": 0, "instances": [...]}]',
        _lists("frame_id", "instances"),
        _mmpose_video,
    ),
)  # fmt: skip


def read_video_file(path: Path) -> Frames:
    """Read a file with the keypoints of a whole video; its format is told by its content.

    Raises PipelineError if it is of no known format, or damaged.
    """
    content = load_json(path)
    found = next((each for each in OF_VIDEOS if each.fits(content)), None)
    if found is None:
        of_frame = OPENPOSE.fits(content) or MMPOSE_FRAME.fits(content)
        hint = f" It is of one frame: put such files into {path.stem}_json/." if of_frame else ""
        known = "; ".join(f"{each.name}: {each.expected}" for each in OF_VIDEOS)
        raise PipelineError(
            f"{path} lists nobody, or has no known format of 2D keypoints.{hint} Known are {known}"
        )
    return parse(found, content, path)


def parse(of: Format, content: object, path: Path) -> People | Frames:
    """Read content of a known format.

    Raises PipelineError, with the file's name, if it turns out to be damaged.
    """
    try:
        return of.read(content)
    except PipelineError as error:
        raise PipelineError(f"{path} is {of.name}, but {error}") from error
    except DAMAGED as error:
        raise _no(of, path, error) from error


def load_json(path: Path, expected: Format | None = None) -> object:
    """Return a JSON file's content. Raises PipelineError, with what was `expected`, if it is none."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if expected:
            raise _no(expected, path, error) from error
        raise PipelineError(
            f"{path} is no JSON, or damaged ({error}). Write or copy it again."
        ) from error


def _no(of: Format, path: Path, error: Exception) -> PipelineError:
    return PipelineError(
        f"{path} is no {of.name}, or damaged ({error!r}): expected {of.expected}. Write it again, or "
        "remove it if the frame can be missed."
    )
