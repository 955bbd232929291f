"""Rendering: the body as shaded capsules, drawn into the images of a camera."""

from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from calibration import Camera
from models.simulation.landmarks import Segment

BACKGROUND, FLOOR = (168, 160, 150), (120, 125, 130)
RIGHT, LEFT, MIDDLE = (70, 80, 190), (190, 110, 60), (110, 150, 110)
"""BGR: red for the right side, blue for the left, as in the report."""
DISKS = 14
"""A capsule is drawn as so many disks along its axis."""
TILES_M = np.array([
    [(x, 0, z), (x, 0, z + 1), (x + 1, 0, z + 1), (x + 1, 0, z)]
    for x in range(-3, 3) for z in range(-3, 3)
], float)  # fmt: skip
"""The floor, in pieces: a lens's polynomial says nothing of what is far outside the image."""


def draw_frames(
    camera: Camera,
    positions: Mapping[str, Float[np.ndarray, "time 3"]],
    segments: Sequence[Segment],
    height_m: float,
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield a BGR image for each sample of the keypoints' positions (m), lens distortion included."""
    share = np.linspace(0, 1, DISKS)[:, None]
    ends = [(positions[each.start], positions[each.end]) for each in segments]
    disks = np.stack([s[:, None] * (1 - share) + e[:, None] * share for s, e in ends], axis=1)
    pixels = camera.project(disks)  # (time, segment, disk, 2)
    depth = disks @ camera.camera_from_world[2, :3] + camera.camera_from_world[2, 3]
    focal = camera.intrinsics[0, 0]
    radii = np.array([each.radius_per_height * height_m for each in segments])[:, None]
    radius_px = focal * radii / np.maximum(depth, 0.1)
    background = _background(camera)
    for index in range(len(pixels)):
        yield _draw(background.copy(), pixels[index], depth[index], radius_px[index], segments)


def _draw(image, pixels, depth, radius_px, segments):
    """Draw the farthest disks first."""
    for flat in np.argsort(-depth, axis=None):
        segment, disk = np.unravel_index(flat, depth.shape)
        center = pixels[segment, disk]
        if not np.isfinite(center).all() or np.abs(center).max() > 1e5:
            continue
        shade = 0.65 + 0.35 * disk / DISKS
        colour = tuple(shade * value for value in _colour(segments[segment]))
        place = tuple(int(value) for value in center.round())
        size = max(int(radius_px[segment, disk]), 1)
        cv2.circle(image, place, size, colour, -1, cv2.LINE_AA)
    return image


def _colour(segment: Segment):
    sides = {segment.start[0], segment.end[0]}
    return RIGHT if sides == {"R"} else LEFT if sides == {"L"} else MIDDLE


def _background(camera: Camera):
    width, height = camera.image_size
    image = np.full((height, width, 3), BACKGROUND, np.uint8)
    for corners in camera.project(TILES_M):
        if np.isfinite(corners).all() and np.abs(corners).max() < 1e4:
            cv2.fillConvexPoly(image, corners.round().astype(np.int32), FLOOR)
    return image
