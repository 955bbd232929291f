"""The camera model: a pinhole with lens distortion, as OpenCV defines both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float

from pipeline.errors import PipelineError

Y_UP_FROM = {
    "+x": np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    "+y": np.eye(3),
    "+z": np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]),
    "-y": np.diag([1.0, -1, -1]),
    "-z": np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]),
    "-x": np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]),
}
"""Rotations (points: y_up = R @ file) by the axis of the file's world that points up. Z up is
turned by permuting axes, (x, y, z) to (y, z, x), as Pose2Sim does."""


@dataclass(frozen=True, eq=False)
class Camera:
    """One calibrated camera.

    The camera's own frame is OpenCV's: x to the right of the image, y down, z into the scene.
    """

    name: str
    image_size: tuple[int, int]
    """Width and height, px."""
    intrinsics: Float[np.ndarray, "3 3"]
    """Focal lengths and principal point, px."""
    distortion: Float[np.ndarray, "n"]
    """All of OpenCV's coefficients that the file has: 4, 5, 8, 12 or 14."""
    camera_from_world: Float[np.ndarray, "4 4"]
    """Extrinsics, m."""
    world_up: str = "+y"
    """The axis of the world that points up, a key of `Y_UP_FROM`."""

    def __post_init__(self):
        rotation = self.camera_from_world[:3, :3]
        problem = None
        if not all(
            np.isfinite(a).all() for a in (self.intrinsics, self.distortion, self.camera_from_world)
        ):
            problem = "its calibration holds values that are not finite"
        elif min(self.intrinsics[0, 0], self.intrinsics[1, 1]) <= 0:
            problem = "its focal length is not positive"
        elif len(self.distortion) not in (4, 5, 8, 12, 14):
            problem = f"it has {len(self.distortion)} distortion coefficients; OpenCV knows 4, 5, 8, 12, 14"
        elif not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3):
            problem = "its rotation is not orthonormal"
        elif np.linalg.det(rotation) < 0:
            problem = "its rotation is a reflection: left and right would be swapped"
        elif self.world_up not in Y_UP_FROM:
            problem = f"its world's up axis is '{self.world_up}', not one of {', '.join(Y_UP_FROM)}"
        if problem:
            raise PipelineError(f"camera {self.name}: {problem}. Check the calibration file.")

    @property
    def center(self) -> Float[np.ndarray, "3"]:
        """The camera's position in the world, m."""
        return -self.camera_from_world[:3, :3].T @ self.camera_from_world[:3, 3]

    def project(self, points: Float[np.ndarray, "*any 3"]) -> Float[np.ndarray, "*any 2"]:
        """Project world points (m) to the distorted image (px); NaN for points behind the camera."""
        points = np.asarray(points, float)
        flat = points.reshape(-1, 3)
        depth = flat @ self.camera_from_world[2, :3] + self.camera_from_world[2, 3]
        visible = depth > 0  # never so for NaN
        pixels = np.full((len(flat), 2), np.nan)
        if visible.any():
            rotation = cv2.Rodrigues(self.camera_from_world[:3, :3])[0]
            translation = self.camera_from_world[:3, 3]
            projected, _ = cv2.projectPoints(
                flat[visible, None], rotation, translation, self.intrinsics, self.distortion
            )
            pixels[visible] = projected[:, 0]
        return pixels.reshape(*points.shape[:-1], 2)

    def undistort(self, pixels: Float[np.ndarray, "*any 2"]) -> Float[np.ndarray, "*any 2"]:
        """Turn pixels into undistorted image coordinates of focal length 1; NaN stays NaN."""
        pixels = np.asarray(pixels, float)
        flat = pixels.reshape(-1, 2)
        finite = np.isfinite(flat).all(-1)
        image = np.full(flat.shape, np.nan)
        if finite.any():
            stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-10)
            image[finite] = cv2.undistortPoints(
                flat[finite, None], self.intrinsics, self.distortion, criteria=stop
            )[:, 0]
        return image.reshape(pixels.shape)

    def in_y_up_world(self) -> "Camera":
        """Return the same camera in a right-handed world whose +Y points up."""
        turned = self.camera_from_world.copy()
        turned[:3, :3] = turned[:3, :3] @ Y_UP_FROM[self.world_up].T
        return replace(self, camera_from_world=turned, world_up="+y")

    def in_world(self, up: str) -> "Camera":
        """Return a camera of a Y-up world in one whose axis `up` points up: a key of `Y_UP_FROM`."""
        turned = self.camera_from_world.copy()
        turned[:3, :3] = turned[:3, :3] @ Y_UP_FROM[up]
        return replace(self, camera_from_world=turned, world_up=up)

    def scaled_to(self, image_size: tuple[int, int]) -> "Camera":
        """Return the camera for images resized to another width and height."""
        factors = np.array(image_size) / self.image_size
        scaled = np.diag([*factors, 1.0]) @ self.intrinsics
        # Pixel centres are at whole numbers: the image's corner is at -0.5.
        scaled[:2, 2] += (factors - 1) / 2
        return replace(self, image_size=tuple(image_size), intrinsics=scaled)


def camera_from(
    name: str,
    image_size: Sequence[float],
    intrinsics: np.ndarray,
    distortion: Sequence[float],
    rotation: np.ndarray,
    translation: Sequence[float],
    world_up: str,
) -> Camera:
    """Build a camera from the pieces that files hold: rotation as matrix or Rodrigues vector; m.

    Raises PipelineError if a piece has not the shape that it must have.
    """
    if np.size(rotation) == 3:
        rotation = cv2.Rodrigues(_numbers(name, "rotation", rotation, (3,)))[0]
    extrinsics = np.eye(4)
    extrinsics[:3, :3] = _numbers(name, "rotation", rotation, (3, 3))
    extrinsics[:3, 3] = _numbers(name, "translation", np.ravel(translation), (3,))
    size = _numbers(name, "image size", np.ravel(image_size), (2,))
    if not (np.isfinite(size).all() and (size >= 1).all()):
        raise PipelineError(f"camera {name}: its image size is {size.tolist()}")
    return Camera(
        name=name,
        image_size=(round(size[0]), round(size[1])),
        intrinsics=_numbers(name, "intrinsic matrix", intrinsics, (3, 3)),
        distortion=_numbers(name, "distortion", np.ravel(distortion), (np.size(distortion),)),
        camera_from_world=extrinsics,
        world_up=world_up,
    )


def _numbers(name, what, values, shape):
    try:
        array = np.asarray(values, float)
    except (TypeError, ValueError):
        array = None
    if array is None or array.shape != shape:
        raise PipelineError(
            f"camera {name}: expected a {what} of {' x '.join(map(str, shape))} numbers, got {values}"
        )
    return array
