"""How cameras stand to each other, and what is doubtful about it before anybody was filmed."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from calibration.camera import Camera
from calibration.checks import NARROW_DEG, SAME_PLACE_M

ROLLED_DEG = 45.0
"""A camera that leans more than this aside films its picture lying."""
ABOVE_DEG = 60.0
"""A camera that looks down or up by more than this is a rare sight in a movement laboratory."""


class Pair(NamedTuple):
    """Two cameras."""

    first: str
    second: str
    angle_deg: float
    """Between their directions to where all cameras look; 180 is face to face."""
    distance_m: float


def looked_at(cameras: Sequence[Camera]) -> Float[np.ndarray, "3"]:
    """Return the point nearest to all optical axes (least squares), m; of parallel axes, any such."""
    directions = np.stack([camera.camera_from_world[2, :3] for camera in cameras])
    across = np.eye(3) - directions[:, :, None] * directions[:, None]
    centers = np.stack([camera.center for camera in cameras])
    return np.linalg.lstsq(across.sum(0), np.einsum("nij,nj->i", across, centers), rcond=None)[0]


def pairs(cameras: Sequence[Camera]) -> list[Pair]:
    """Angle and distance of every two cameras."""
    target = looked_at(cameras)
    found = []
    for first, second in combinations(cameras, 2):
        one, other = first.center - target, second.center - target
        length = np.linalg.norm(one) * np.linalg.norm(other)
        cosine = one @ other / length if length else 1.0
        found.append(
            Pair(
                first.name,
                second.name,
                float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
                float(np.linalg.norm(first.center - second.center)),
            )
        )
    return found


def doubts(cameras: Sequence[Camera]) -> list[str]:
    """What is doubtful about cameras in a Y-up world, as far as can be told without points."""
    found = []
    target = looked_at(cameras)
    for camera in cameras:
        right, down, forward = camera.camera_from_world[:3, :3]
        roll_deg = np.degrees(np.arctan2(right[1], -down[1]))
        if abs(forward[1]) > np.sin(np.radians(ABOVE_DEG)):
            found.append(
                f"camera {camera.name} looks {'up' if forward[1] > 0 else 'down'} steeply: is the axis "
                "that points up (world_up) right?"
            )
        elif abs(roll_deg) > ROLLED_DEG:
            found.append(
                f"camera {camera.name} is turned by {roll_deg:.0f}° about its line of sight: its picture "
                "is not upright, or the axis that points up (world_up) is wrong."
            )
        if (target - camera.center) @ forward < 0:
            found.append(f"camera {camera.name} looks away from where the others look.")
    every = pairs(cameras)
    found += [
        f"cameras {pair.first} and {pair.second} stand at the same place."
        for pair in every
        if pair.distance_m < SAME_PLACE_M
    ]
    if every and all(min(pair.angle_deg, 180 - pair.angle_deg) < NARROW_DEG for pair in every):
        found.append(
            "all cameras look along nearly the same line: depth is poor. Place them 60 to 90° apart."
        )
    return found
