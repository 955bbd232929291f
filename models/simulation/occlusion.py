"""Occlusion: which keypoints the body's own segments hide from a camera."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from models.simulation.landmarks import Segment

AHEAD_M = 0.05
"""A segment hides what is at least so far behind its surface; nearer, it is the keypoint's own."""

Points = Float[np.ndarray, "time 3"]


def hidden(
    keypoints: Float[np.ndarray, "time keypoint 3"],
    positions: Mapping[str, Points],
    segments: Sequence[Segment],
    height_m: float,
    center: Float[np.ndarray, "3"],
) -> Bool[np.ndarray, "time keypoint"]:
    """Whether a segment (a capsule) stands between a camera's centre and each keypoint.

    Keypoints inside a segment, or just under its surface, are not hidden by it. All in metres.
    """
    away = keypoints - center
    distance = np.linalg.norm(away, axis=-1)
    found = np.zeros(distance.shape, bool)
    for segment in segments:
        radius = segment.radius_per_height * height_m
        start, end = (positions[name][:, None] for name in (segment.start, segment.end))
        nearest, along = _between_ray_and_segment(center, away, start, end)
        # The ray enters the capsule before its nearest approach to the axis, by this at most.
        behind = distance * (1 - along) - radius
        found |= (nearest < radius) & (behind > AHEAD_M) & (along > 0)
    return found


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
