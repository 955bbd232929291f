"""Landmarks: where keypoints, joint centres and segments are on a moving OpenSim model."""

import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from jaxtyping import Float

from models.opensim_model import BodyPoses
from pipeline.errors import PipelineError

HEAD_ABOVE_TORSO_M = 0.512
SOLE = ("Heel", "BigToe", "SmallToe")
SOLE_HEIGHT_M = 0.01
"""Of those keypoints above the floor when the foot is flat."""
FINGERS = ("Thumb", "Index", "Middle", "Ring", "Pinky")


@dataclass(frozen=True)
class Segment:
    """A round part of the body between two keypoints."""

    start: str
    end: str
    radius_per_height: float


@cache
def _tables() -> dict[str, dict]:
    text = resources.files("models.simulation").joinpath("landmarks.toml").read_text("utf-8")
    return tomllib.loads(text)


def _mirrored(name: str) -> str:
    """The same on the left: `RKnee` to `LKnee`, `femur_r` to `femur_l`."""
    if name.endswith("_r"):
        return f"{name[:-2]}_l"
    return f"L{name[1:]}" if name[:1] == "R" and name[1:2].isupper() else name


def check_bodies(present: Collection[str]) -> None:
    """Raise PipelineError if a model lacks bodies that keypoints are placed on; the head may lack."""
    right = {entry[0] for entry in _tables()["landmarks"].values()} - {"head"}
    right |= {name for *pair, _ in _tables()["lengths"].values() for name in pair}
    right |= set(_tables()["joint_centers"].values())
    if missing := sorted((right | {_mirrored(name) for name in right}) - set(present)):
        raise PipelineError(
            f"the model lacks the bodies {', '.join(missing)}, on which keypoints are placed. Choose a "
            "model of Rajagopal's family, such as LaiUhlrich2022 or Pose2Sim's."
        )


def segments() -> list[Segment]:
    """The body's round parts, both sides."""
    found = {}
    for start, end, radius in _tables()["segments"].values():
        for side in (str, _mirrored):
            found[side(start), side(end)] = Segment(side(start), side(end), radius)
    return list(found.values())


def joint_centers(poses: BodyPoses) -> dict[str, Float[np.ndarray, "time 3"]]:
    """Centres of hips, knees, ankles, shoulders, elbows and wrists, m."""
    return {
        side(name): poses.position[:, poses.names.index(side(body))]
        for name, body in _tables()["joint_centers"].items()
        for side in (str, _mirrored)
    }


def keypoint_positions(
    poses: BodyPoses, offsets_m: Mapping[str, Float[np.ndarray, "3"]] | None = None
) -> dict[str, Float[np.ndarray, "time 3"]]:
    """Where a detector without noise marks each keypoint of every vocabulary, m.

    `offsets_m` moves keypoints in the frame of their body: forwards, upwards, to the right.

    Raises PipelineError if the model lacks a body.
    """
    placed, scale = {}, body_scales(poses)
    for name, (body, location) in placements(poses.names).items():
        index = poses.names.index(body)
        moved = location * scale[body] + (offsets_m or {}).get(name, 0.0)
        placed[name] = poses.position[:, index] + poses.rotation[:, index] @ moved
    return placed


def placements(
    bodies: Collection[str],
) -> dict[str, tuple[str, Float[np.ndarray, "3"]]]:
    """The body of each keypoint, and where on it: forwards, upwards, to the right.

    In metres from the body's origin on a model of the reference `lengths`.

    Raises PipelineError if the model lacks a body.
    """
    check_bodies(bodies)
    placed = {
        name: (body, np.array(location)) for name, (body, *location) in _all_landmarks().items()
    }
    if "head" in bodies:
        return placed
    above = np.array([0, HEAD_ABOVE_TORSO_M, 0])
    return {
        name: ("torso", location + above) if body == "head" else (body, location)
        for name, (body, location) in placed.items()
    }


@cache
def lengths() -> dict[str, tuple[str, str, float]]:
    """From which body's origin to which the length of each body is, and the reference, m.

    Hands are as long as their forearms, the head as the torso.
    """
    found = {}
    for body, (start, end, reference) in _tables()["lengths"].items():
        for side in (str, _mirrored) if _mirrored(body) != body else (str,):
            found[side(body)] = (side(start), side(end), reference)
    found |= {f"hand_{side}": found[f"radius_{side}"] for side in "rl"}
    return found | {"head": found["torso"]}


@cache
def _all_landmarks() -> dict[str, tuple]:
    """Both sides of the table, and hands and face of COCO-WholeBody."""
    landmarks: dict[str, tuple] = {}
    for name, (body, *location) in _tables()["landmarks"].items():
        landmarks[name] = (body, *location)
        landmarks[_mirrored(name)] = (_mirrored(body), *_flipped(location, name))
    for name, location in _hand(landmarks).items():
        landmarks[f"R{name}"] = ("hand_r", *location)
        landmarks[f"L{name}"] = ("hand_l", *location * [1, 1, -1])
    landmarks |= {name: ("head", *location) for name, location in _face().items()}
    return landmarks


def _flipped(location, name):
    return location if _mirrored(name) == name else [*location[:2], -location[2]]


def _hand(landmarks) -> dict[str, np.ndarray]:
    """21 points of the right hand: the wrist, and four along each finger to its tip."""
    tips = {finger: np.array(landmarks[f"R{finger}"][1:]) for finger in ("Thumb", "Index", "Pinky")}
    index, little = tips["Index"], tips["Pinky"]
    tips |= {"Middle": index + (little - index) / 3, "Ring": index + (little - index) * 2 / 3}
    points = {"Hand1": np.zeros(3)}
    for number, finger in enumerate(FINGERS):
        for joint, share in enumerate((0.45, 0.65, 0.82, 1.0)):
            points[f"Hand{2 + 4 * number + joint}"] = share * tips[finger]
    return points


def _face() -> dict[str, np.ndarray]:
    """68 points of the face in the iBUG order, on arcs in front of the head's middle."""

    def arc(count, start_deg, end_deg, width, height, up):
        angle = np.radians(np.linspace(start_deg, end_deg, count))
        return np.stack([width * np.cos(angle), up + height * np.sin(angle)], 1)  # (right, up)

    eye = arc(6, 180, -120, 0.013, 0.006, 0.047)
    mouth = arc(12, 180, -150, 0.025, 0.010, -0.025), arc(8, 180, -135, 0.018, 0.004, -0.025)
    brow = arc(5, 150, 30, 0.018, 0.012, 0.055)
    parts = [
        arc(17, 180, 360, 0.07, 0.09, 0.03),
        brow - [0.032, 0], brow + [0.032, 0],
        np.stack([np.zeros(4), np.linspace(0.045, 0.013, 4)], 1), arc(5, 200, 340, 0.014, 0.008, 0.006),
        eye - [0.031, 0], eye + [0.031, 0], *mouth,
    ]  # fmt: skip
    right_up = np.concatenate(parts) * [-1, 1]  # the subject's right is on the image's left
    depth = 0.11 - 14 * right_up[:, 0] ** 2
    flat = np.stack([depth, right_up[:, 1], -right_up[:, 0]], 1)
    return {f"Face{number}": point for number, point in enumerate(flat * [1, 1, -1], start=1)}


def body_scales(poses: BodyPoses) -> dict[str, float]:
    """Length of each body, relative to the reference model's."""
    first = dict(zip(poses.names, poses.position[0], strict=True))
    return {
        body: float(np.linalg.norm(first[start] - first[end])) / reference
        for body, (start, end, reference) in lengths().items()
    }


def stacked(
    positions: Mapping[str, Float[np.ndarray, "time 3"]], names: Sequence[str]
) -> Float[np.ndarray, "time keypoint 3"]:
    """Positions of some keypoints, in the order of their names."""
    return np.stack([positions[name] for name in names], axis=1)
