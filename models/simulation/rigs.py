"""Rigs: many random cameras at once around a person, and their calibrations with errors.

Wider than the rigs of `rig`: nearer and farther, lower and higher, any lens, upright images too.
Image coordinates are undistorted, of focal length 1; lenses do not distort.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models.simulation.draws import Draws
from models.simulation.random_motion import about_vertical
from models.simulation.rig import (
    CENTER_ERROR_M,
    FOCAL_ERROR,
    IMAGE_SIZE,
    PRINCIPAL_POINT_ERROR_PX,
    ROTATION_ERROR_DEG,
    directions_deg,
)

DISTANCE_M, HEIGHT_M, FOCAL_LENGTH = (2.5, 7.0), (0.5, 2.5), (0.55, 1.1)
"""Focal lengths are shares of the image's longer side."""
WHOLE_BODY_SHARE, WHOLE_BODY_M = 0.9, 2.1
"""Most lenses are so wide that something of this height fits in at the person's distance."""
UPRIGHT_SHARE = 0.3
"""Of the rigs have images that are higher than wide."""
TARGET_M, TARGET_SPREAD_M = 0.9, 0.1
"""Height of what cameras look at, and how differently along each axis."""
BEARING_SPREAD_DEG, APART_DEG = 3.0, 20.0


@dataclass(frozen=True)
class Rigs:
    """The cameras of each window, as they are and as their calibration has them."""

    camera_from_world: Float[Tensor, "window view 3 4"]
    half_size: Float[Tensor, "window view 2"]
    """From the middle of the image to its edges, along x and y, for focal length 1."""
    calibrated_from_world: Float[Tensor, "window view 3 4"]
    calibrated_focal: Float[Tensor, "window view"]
    """The calibration's focal length, of the true one."""
    calibrated_middle: Float[Tensor, "window view 2"]
    """The calibration's principal point, from the true one, for the true focal length 1."""

    @property
    def center(self) -> Float[Tensor, "window view 3"]:
        """Where the cameras are, m."""
        return -(self.camera_from_world[..., :3].mT @ self.camera_from_world[..., 3:])[..., 0]

    def as_calibrated(
        self, image: Float[Tensor, "window frame view joint 2"]
    ) -> Float[Tensor, "window frame view joint 2"]:
        """Return what the calibration makes of true image coordinates."""
        shifted = image - self.calibrated_middle[:, None, :, None]
        return shifted / self.calibrated_focal[:, None, :, None, None]


def draw_rigs(noise: Float[Tensor, "window"], views: int, front_share: float, draws: Draws) -> Rigs:
    """Cameras around the world's origin, some of them to the front (+X) as `rig.directions_deg`."""
    windows = len(noise)
    bearing = torch.where(
        draws.happens(front_share, windows, 1),
        torch.deg2rad(_usual_deg(windows, views, draws)),
        torch.deg2rad(_around_deg(windows, views, draws)),
    )
    away_m = draws.uniform(*DISTANCE_M, windows, views)
    height_m = draws.uniform(*HEIGHT_M, windows, views)
    center = torch.stack([away_m * bearing.cos(), height_m, away_m * bearing.sin()], -1)
    target = TARGET_SPREAD_M * draws.normal(windows, views, 3)
    target[..., 1] += TARGET_M
    true = looking_at(center, target)
    half_size, focal = _lenses(away_m, draws)
    size = noise[:, None, None]
    turn = torch.deg2rad(size * ROTATION_ERROR_DEG * draws.normal(windows, views, 3))
    rotation = _rotations(turn) @ true[..., :3]
    moved = center + size * CENTER_ERROR_M * draws.normal(windows, views, 3)
    pixel = 1 / (focal * max(IMAGE_SIZE))
    return Rigs(
        true,
        half_size,
        torch.cat([rotation, -(rotation @ moved[..., None])], -1),
        1 + size[..., 0] * FOCAL_ERROR * draws.normal(windows, views),
        size * PRINCIPAL_POINT_ERROR_PX * pixel[..., None] * draws.normal(windows, views, 2),
    )


def _usual_deg(windows, views, draws) -> Float[Tensor, "window view"]:
    spread = BEARING_SPREAD_DEG * draws.normal(windows, views)
    return spread + spread.new_tensor(directions_deg(views))


def _around_deg(windows, views, draws) -> Float[Tensor, "window view"]:
    """Bearings all around, no two nearer than `APART_DEG`, in a random order."""
    gaps = -torch.log1p(-draws.uniform(0, 1, windows, views))  # of as many points on a circle
    gaps = gaps / gaps.sum(-1, keepdim=True) * (360 - views * APART_DEG) + APART_DEG
    around = gaps.cumsum(-1) + draws.uniform(0, 360, windows, 1)
    return around.gather(1, draws.uniform(0, 1, windows, views).argsort(1))


def _lenses(away_m, draws):
    """Half sizes of the images (window, view, 2), and focal lengths per longer side (window, view)."""
    windows = len(away_m)
    upright = draws.happens(UPRIGHT_SHARE, windows, 1)
    narrow = min(IMAGE_SIZE) / max(IMAGE_SIZE)
    high = torch.where(upright, 1.0, narrow).to(away_m)
    longest = torch.where(
        draws.happens(WHOLE_BODY_SHARE, *away_m.shape), high * away_m / WHOLE_BODY_M, torch.inf
    )
    focal = torch.minimum(draws.uniform(*FOCAL_LENGTH, *away_m.shape), longest)
    size = torch.stack([high.new_tensor(1 + narrow) - high, high], -1)
    return size / (2 * focal[..., None]), focal


def looking_at(
    center: Float[Tensor, "*many 3"], target: Float[Tensor, "*many 3"]
) -> Float[Tensor, "*many 3 4"]:
    """Extrinsics of cameras held upright that look at points; world Y up, as `rig.looking_at`."""
    forward = torch.nn.functional.normalize(target - center, dim=-1)
    up = torch.zeros_like(forward)
    up[..., 1] = 1.0
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], -2)
    return torch.cat([rotation, -(rotation @ center[..., None])], -1)


def _rotations(vector: Float[Tensor, "*many 3"]) -> Float[Tensor, "*many 3 3"]:
    """Matrices of rotation vectors, rad."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    return torch.linalg.matrix_exp(skew)


def moved_world(
    camera_from_world: Float[Tensor, "window view 3 4"],
    angle: Float[Tensor, "window"],
    origin: Float[Tensor, "window 3"],
) -> Float[Tensor, "window view 3 4"]:
    """The same cameras after the world's content was turned about Y (rad) and then moved (m)."""
    rotation = camera_from_world[..., :3] @ about_vertical(angle).mT[:, None]
    return torch.cat(
        [rotation, camera_from_world[..., 3:] - rotation @ origin[:, None, :, None]], -1
    )
