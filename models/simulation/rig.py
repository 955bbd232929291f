"""Rig: phone-like cameras around a person, and how wrong their calibration is."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from calibration import Camera

IMAGE_SIZE = (1920, 1080)
FOCAL_LENGTH_PER_WIDTH = 913.4 / 1280
"""Of an iPhone 12 Pro at 1280 x 720, and its lens below (OpenCap's intrinsics of iPhone13,3)."""
DISTORTION = np.array([0.1278, -0.2842, -0.00034, 0.00007, 0.2134])
PRINCIPAL_POINT_SPREAD = 0.005
"""Of the image's width."""
DISTANCE_M, HEIGHT_M = (4.0, 5.0), (1.1, 1.6)
IN_FRONT_DEG = {
    2: (-35.0, 35.0),
    3: (-50.0, 0.0, 50.0),
    5: (-70.0, -45.0, 0.0, 45.0, 70.0),
}
"""To the person's front, as OpenCap recommends: 60 to 80° between two, up to 45° or more aside; five
as in the laboratory of its validation data."""
RING_STARTS_DEG = 20.0
"""So that some cameras of a ring see the person nearly from the front, and some from the side."""
ROTATION_ERROR_DEG, CENTER_ERROR_M, FOCAL_ERROR, PRINCIPAL_POINT_ERROR_PX = 0.1, 0.005, 0.002, 3.0
"""Standard deviations of a careful calibration, per axis."""


def directions_deg(count: int) -> Sequence[float]:
    """Bearing of each camera seen from the person: 0 in front, 90 to their right.

    Two, three and five stand in front, as in OpenCap; four and other numbers on a ring.
    """
    return IN_FRONT_DEG.get(count) or [RING_STARTS_DEG + 360 * i / count for i in range(count)]


def place_cameras(
    count: int, target: Float[np.ndarray, "3"], random: np.random.Generator
) -> list[Camera]:
    """Cameras `cam1` … that look at a target (m), Y up, each with its own lens and place."""
    cameras = []
    for number, bearing_deg in enumerate(directions_deg(count), start=1):
        bearing = np.radians(bearing_deg + random.normal(0, 3))
        away = random.uniform(*DISTANCE_M) * np.array([np.cos(bearing), 0, np.sin(bearing)])
        center = target + away
        center[1] = random.uniform(*HEIGHT_M)
        width, height = IMAGE_SIZE
        focal = FOCAL_LENGTH_PER_WIDTH * width * random.normal(1, 0.01)
        spread = PRINCIPAL_POINT_SPREAD * width
        middle = np.array([(width - 1) / 2, (height - 1) / 2]) + random.normal(0, spread, 2)
        extrinsics = np.eye(4)
        extrinsics[:3] = looking_at(center, target + random.normal(0, 0.05, 3))
        cameras.append(
            Camera(
                f"cam{number}",
                IMAGE_SIZE,
                np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]]),
                DISTORTION * random.normal(1, 0.05),
                extrinsics,
            )
        )
    return cameras


def looking_at(
    center: Float[np.ndarray, "3"], target: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3 4"]:
    """Extrinsics of a camera held upright at `center` that looks at `target`; world Y up."""
    forward = (target - center) / np.linalg.norm(target - center)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return np.column_stack([rotation, -rotation @ center])


def miscalibrated(camera: Camera, size: float, random: np.random.Generator) -> Camera:
    """Return the camera as a calibration with errors has it; `size` 1 is a careful one."""
    turn = Rotation.from_rotvec(random.normal(0, size * ROTATION_ERROR_DEG, 3), degrees=True)
    rotation = turn.as_matrix() @ camera.camera_from_world[:3, :3]
    center = camera.center + random.normal(0, size * CENTER_ERROR_M, 3)
    extrinsics = np.eye(4)
    extrinsics[:3, :3], extrinsics[:3, 3] = rotation, -rotation @ center
    intrinsics = camera.intrinsics.copy()
    intrinsics[[0, 1], [0, 1]] *= 1 + random.normal(0, size * FOCAL_ERROR)
    intrinsics[:2, 2] += random.normal(0, size * PRINCIPAL_POINT_ERROR_PX, 2)
    return replace(camera, intrinsics=intrinsics, camera_from_world=extrinsics)
