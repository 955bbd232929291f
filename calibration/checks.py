"""Is this geometry possible? Mistakes of calibration that a small reprojection error hides."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float

from calibration.camera import Camera

SAME_PLACE_M = 0.05
NARROW_DEG = 10.0
"""Rays that meet at a smaller angle tell little about depth."""
BELOW_FLOOR_M = 0.3
UPRIGHT_DEG = 60.0
"""People who stand, walk, sit or bend down keep their shoulders above their ankles within this."""


def check_geometry(
    cameras: Sequence[Camera],
    points: Float[np.ndarray, "time keypoint 3"],
    names: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Return what is impossible, and what is doubtful, about cameras and points in a Y-up world.

    Impossible is a body that is not upright, or whose left and right are mirrored, for most of the
    time. The floor is taken to be where the lowest keypoints are, not at zero: laboratories put the
    origin where they like.
    """
    at = {name: points[:, index] for index, name in enumerate(names)}
    problems = [problem for problem in (_not_upright(at), _mirrored(at)) if problem]
    return problems, _about_places(cameras, points)


def _about_places(cameras, points):
    finite = points[np.isfinite(points).all(-1)]
    if not len(finite):
        return []
    notices = []
    floor, middle = np.percentile(finite[:, 1], 1), np.median(finite, axis=0)
    for camera in cameras:
        if camera.center[1] < floor - BELOW_FLOOR_M:
            notices.append(
                f"camera {camera.name} stands {floor - camera.center[1]:.1f} m under the person's "
                "feet: the calibration's up axis or the camera's pose is wrong."
            )
        if np.isnan(camera.project(middle)).any():
            notices.append(f"the person is behind camera {camera.name}: its pose is wrong.")
    for first, second in combinations(cameras, 2):
        if np.linalg.norm(first.center - second.center) < SAME_PLACE_M:
            notices.append(f"cameras {first.name} and {second.name} stand at the same place.")
    rays = [(middle - camera.center) / np.linalg.norm(middle - camera.center) for camera in cameras]
    widest = max(_line_angle_deg(a, b) for a, b in combinations(rays, 2))
    if widest < NARROW_DEG:
        notices.append(
            f"all cameras look along nearly the same line (within {widest:.0f}°): depth is poor. "
            "Place them 60 to 90° apart."
        )
    return notices


def _line_angle_deg(first, second):
    return float(np.degrees(np.arccos(np.clip(abs(first @ second), 0, 1))))


def _not_upright(at):
    if any(f"{side}{part}" not in at for side in "RL" for part in ("Shoulder", "Ankle")):
        return None
    body = at["RShoulder"] + at["LShoulder"] - at["RAnkle"] - at["LAnkle"]
    body = body[np.isfinite(body).all(-1)]
    if not len(body):
        return None
    lean_deg = np.median(np.degrees(np.arccos(body[:, 1] / np.linalg.norm(body, axis=-1))))
    if lean_deg < UPRIGHT_DEG:
        return None
    return (
        f"from ankles to shoulders the person leans {lean_deg:.0f}° from the vertical for most of the "
        "trial: the calibration's up axis is wrong. Give the right one in session.toml, such as "
        'world_up = "+z" (or "-z" for a board that lay on the floor)'
    )


def _mirrored(at):
    """Toes point forwards, which with up gives the right-hand side; hips say where that really is."""
    needed = ("RHip", "LHip", "RHeel", "LHeel", "RBigToe", "LBigToe")
    if any(name not in at for name in needed):
        return None
    forward = at["RBigToe"] - at["RHeel"] + at["LBigToe"] - at["LHeel"]
    right = np.cross(forward, [0.0, 1.0, 0.0])
    agreement = (right * (at["RHip"] - at["LHip"])).sum(-1)
    agreement = agreement[np.isfinite(agreement)]
    if len(agreement) and (agreement < 0).mean() > 0.5:
        return (
            "left and right are mirrored in most of the trial: the feet point backwards for these "
            "hips. Check for mirrored (front camera) videos and for a mirrored calibration"
        )
    return None
