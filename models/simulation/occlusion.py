"""Occlusion: which keypoints the body's own segments hide from a camera."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from models.simulation.landmarks import Segment

AHEAD_M = 0.05
"""A line of sight must come nearest to a segment's axis by its radius and so much before a keypoint:
else the keypoint is the segment's own, or beside it."""

Points = Float[np.ndarray, "time 3"]


def hidden(
    keypoints: Float[np.ndarray, "time keypoint 3"],
    positions: Mapping[str, Points],
    segments: Sequence[Segment],
    height_m: float,
    center: Float[np.ndarray, "3"],
) -> Bool[np.ndarray, "time keypoint"]:
    """Whether a segment (a capsule) stands between a camera's centre and each keypoint.

    Keypoints inside a segment are not hidden by it, even if the camera looks along it; nor are those
    just behind its surface. All in metres.
    """
    away = keypoints - center
    distance = np.linalg.norm(away, axis=-1)
    found = np.zeros(distance.shape, bool)
    for segment in segments:
        radius = segment.radius_per_height * height_m
        start, end = (positions[name][:, None] for name in (segment.start, segment.end))
        nearest, along = _between_ray_and_segment(center, away, start, end)
        behind = distance * (1 - along) - radius
        inside = _distance_to_axis(keypoints, start, end) < radius
        found |= (nearest < radius) & (behind > AHEAD_M) & (along > 0) & ~inside
    return found


def _distance_to_axis(points, start, end):
    axis = end - start
    length = np.maximum((axis**2).sum(-1), 1e-12)
    along = np.clip(((points - start) * axis).sum(-1) / length, 0, 1)
    return np.linalg.norm(points - start - along[..., None] * axis, axis=-1)


def _between_ray_and_segment(center, away, start, end):
    """Least distance between the lines of sight and an axis, and where on the line (0 to 1) it is."""
    axis, gap = end - start, start - center
    a, b, c = (away**2).sum(-1), (away * axis).sum(-1), (axis**2).sum(-1)
    d, e = (away * gap).sum(-1), (axis * gap).sum(-1)
    determinant = np.maximum(a * c - b * b, 1e-12)
    on_axis = np.clip((b * d - a * e) / determinant, 0, 1)
    on_ray = np.clip((d + b * on_axis) / a, 0, 1)
    on_axis = np.clip((b * on_ray - e) / np.maximum(c, 1e-12), 0, 1)
    difference = gap + on_axis[..., None] * axis - on_ray[..., None] * away
    return np.linalg.norm(difference, axis=-1), on_ray
