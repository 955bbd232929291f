"""Heatmaps: where a pose model sees each joint in its map of the image, as density in space.

Unprojection as by Iskakov et al., Learnable triangulation of human pose, ICCV 2019, section 3.2, but
through the whole camera model, and with a map's height in 1/m², so that it weighs like a keypoint.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from calibration import Camera
from models.multiview import BodyFrames

COEFFICIENTS = 14
LEAST_PEAK = 0.5
"""Maps that nowhere reach this probability say nothing: MediaPipe does not use them either."""
STEP_M = 0.05
"""Over which a map's cells at the person are measured."""
SAMPLING_VARIANCE, LEAST_VARIANCE = 1 / 6, 0.01
"""Cells². Bilinear sampling blurs by as much on average, so that a map is blurred by that much less."""
STEEPEST, RADII = 4.0, 1000
"""Distances from the axis (focal length 1), and how many, at which lenses are examined."""


@dataclass(frozen=True)
class Projection:
    """Calibrated cameras, as OpenCV defines them."""

    extrinsics: Float[Tensor, "*camera 3 4"]
    """From the frame that points are given in to the camera's, m."""
    intrinsics: Float[Tensor, "*camera 3 3"]
    """px."""
    distortion: Float[Tensor, "*camera 14"]
    """k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4 τx τy; 0 where a calibration has fewer."""


def projection_of(cameras: Sequence[Camera], like: Tensor) -> Projection:
    """Calibrations as tensors with an axis of cameras, of one type and device with `like`."""
    padded = [np.pad(c.distortion, (0, COEFFICIENTS - len(c.distortion))) for c in cameras]
    stacked = (
        np.stack([camera.camera_from_world[:3] for camera in cameras]),
        np.stack([camera.intrinsics for camera in cameras]),
        np.stack(padded),
    )
    return Projection(*(torch.from_numpy(each).to(like) for each in stacked))


def project(
    points: Float[Tensor, "*camera point 3"], camera: Projection
) -> Float[Tensor, "*camera point 2"]:
    """Project points (m) to the distorted image (px); NaN for points behind the camera.

    The model of OpenCV's projectPoints, all of its coefficients (OpenCV documentation, Camera
    calibration and 3D reconstruction). As there, what is far outside the image may be folded back
    into it by the polynomials: `within_reach` tells. Differentiable.
    """
    there = _in_camera(points, camera)
    ahead = there[..., 2:] > 0
    x, y = (there[..., :2] / torch.where(ahead, there[..., 2:], torch.nan)).unbind(-1)
    k = [each[..., None] for each in camera.distortion.unbind(-1)]
    square = x * x + y * y
    radial = _radial(square, k)
    across = 2 * x * y
    bent_x = x * radial + k[2] * across + k[3] * (square + 2 * x * x)
    bent_y = y * radial + k[2] * (square + 2 * y * y) + k[3] * across
    bent_x = bent_x + square * (k[8] + square * k[9])
    bent_y = bent_y + square * (k[10] + square * k[11])
    bent = torch.stack([bent_x, bent_y, torch.ones_like(bent_x)], -1) @ _tilt(camera.distortion).mT
    image = bent[..., :2] / bent[..., 2:]
    focal = camera.intrinsics.diagonal(dim1=-2, dim2=-1)[..., None, :2]
    return image * focal + camera.intrinsics[..., None, :2, 2]


def _in_camera(points, camera):
    return points @ camera.extrinsics[..., :3].mT + camera.extrinsics[..., None, :, 3]


def _radial(square, k):
    """Factor of the distance from the axis, at squared distances."""
    above = 1 + square * (k[0] + square * (k[1] + square * k[4]))
    return above / (1 + square * (k[5] + square * (k[6] + square * k[7])))


def _tilt(distortion: Float[Tensor, "*camera 14"]) -> Float[Tensor, "*camera 3 3"]:
    """Homography of a tilted sensor (Scheimpflug)."""
    sin_x, sin_y = distortion[..., 12:].sin().unbind(-1)
    cos_x, cos_y = distortion[..., 12:].cos().unbind(-1)
    zero, one = torch.zeros_like(sin_x), torch.ones_like(sin_x)
    about_x = _matrix([[one, zero, zero], [zero, cos_x, sin_x], [zero, -sin_x, cos_x]])
    about_y = _matrix([[cos_y, zero, -sin_y], [zero, one, zero], [sin_y, zero, cos_y]])
    turned = about_y @ about_x
    depth = turned[..., 2, 2]
    back = [[depth, zero, -turned[..., 0, 2]], [zero, depth, -turned[..., 1, 2]], [zero, zero, one]]
    return _matrix(back) @ turned


def _matrix(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(list(row), -1) for row in rows], -2)


def within_reach(
    points: Float[Tensor, "*camera point 3"], camera: Projection
) -> Bool[Tensor, "*camera point"]:
    """Whether the lens maps points ahead of the camera one to one: its radial part still grows."""
    radius = torch.linspace(0, STEEPEST, RADII, device=points.device, dtype=points.dtype)
    k = [each[..., None] for each in camera.distortion.unbind(-1)]
    grows = (radius * _radial(radius**2, k)).diff(dim=-1) > 0
    steps = grows.long().cumprod(-1).sum(-1, keepdim=True)
    reach = torch.where(steps == RADII - 1, torch.inf, radius[steps])
    there = _in_camera(points, camera)
    return there[..., :2].norm(dim=-1) < reach * there[..., 2]


@dataclass(frozen=True)
class Heatmaps:
    """A pose model's maps of one person, for windows of frames of calibrated cameras."""

    probability: Float[Tensor, "window frame view joint row column"]
    """That the joint is in the cell, each cell for itself; all 0 where there is no map."""
    map_from_image: Float[Tensor, "window frame view 2 3"]
    """Affine from px to cells (column, row), whose centres are at whole numbers; NaN without maps."""
    projection: Projection
    """Of every window, frame and view."""

    def to(self, device: str | torch.device) -> "Heatmaps":
        """Move to a device."""
        moved = [getattr(self.projection, each.name).to(device) for each in fields(Projection)]
        return Heatmaps(
            self.probability.to(device), self.map_from_image.to(device), Projection(*moved)
        )

    def at(self, frames: Bool[Tensor, "window frame"]) -> "Heatmaps":
        """Keep some frames, as one window."""
        kept = [getattr(self.projection, e.name)[frames][None] for e in fields(Projection)]
        return Heatmaps(
            self.probability[frames][None], self.map_from_image[frames][None], Projection(*kept)
        )

    def in_body(self, frames: BodyFrames) -> "Heatmaps":
        """Give the cameras in the body's frame, for points that are given there."""
        extrinsics = self.projection.extrinsics
        rotation = extrinsics[..., :3] @ frames.rotation[:, :, None]
        moved = extrinsics[..., :3] @ frames.origin[:, :, None, :, None] + extrinsics[..., 3:]
        there = replace(self.projection, extrinsics=torch.cat([rotation, moved], -1))
        return replace(self, projection=there)

    def cells(
        self, points: Float[Tensor, "*any point 3"]
    ) -> Float[Tensor, "window frame view point 2"]:
        """Column and row at which every view's maps show points; NaN where they cannot."""
        pixels = project(points, self.projection)
        pixels = torch.where(within_reach(points, self.projection)[..., None], pixels, torch.nan)
        return pixels @ self.map_from_image[..., :2].mT + self.map_from_image[..., None, :, 2]


def density(
    heatmaps: Heatmaps, points: Float[Tensor, "point 3"], blur_m: float
) -> Float[Tensor, "window frame view joint point"]:
    """Density of each view's maps at points around the origin, which is the person's middle, 1/m².

    As likelihoods of an image they do not depend on how far along the ray a point is: 1/m² are of the
    plane through the origin that the image shows upright. 0 outside of a map; NaN for joints that it
    does not show. The maps are blurred by a Gaussian of the standard deviation `blur_m` there.
    """
    stretch = _cells_per_m(heatmaps)
    variance = (blur_m * stretch).square().sum(-1) - SAMPLING_VARIANCE
    deviation = variance.clamp(min=LEAST_VARIANCE).sqrt()
    maps = _blurred(heatmaps.probability, deviation[..., None, :])
    cells = heatmaps.cells(points)
    size = torch.tensor(maps.shape[:-3:-1], device=maps.device)
    place = torch.nan_to_num((2 * cells + 1) / size - 1, nan=-3.0, posinf=3.0, neginf=-3.0)
    sampled = torch.nn.functional.grid_sample(
        maps.flatten(0, 2), place.flatten(0, 2)[:, None], align_corners=False
    )
    peak, mass = heatmaps.probability.amax((-1, -2)), heatmaps.probability.sum((-1, -2))
    scale = torch.linalg.det(stretch).abs()[..., None] / torch.where(
        peak >= LEAST_PEAK, mass, torch.nan
    )
    return sampled[:, :, 0].unflatten(0, maps.shape[:3]).mul_(scale[..., None])


def _cells_per_m(heatmaps: Heatmaps) -> Float[Tensor, "window frame view 2 2"]:
    """How columns and rows (first axis) change along the image's x and y (m) at the origin."""
    extrinsics = heatmaps.projection.extrinsics
    steps = torch.zeros(3, 3, device=extrinsics.device, dtype=extrinsics.dtype)
    steps[1, 0] = steps[2, 1] = STEP_M
    cells = heatmaps.cells(steps @ extrinsics[..., :3])  # steps along the camera's axes
    return ((cells[..., 1:, :] - cells[..., :1, :]) / STEP_M).mT


def _blurred(
    maps: Float[Tensor, "*map row column"], deviation: Float[Tensor, "*map 2"]
) -> Float[Tensor, "*map row column"]:
    """Blur maps by Gaussians along columns and rows (cells); what they hold in all is kept."""
    across, down = (
        _kernel(count, deviation[..., axis]) for axis, count in enumerate(maps.shape[:-3:-1])
    )
    return down @ maps @ across.mT


def _kernel(count, deviation):
    at = torch.arange(count, device=deviation.device, dtype=deviation.dtype)
    apart = (at[:, None] - at) / deviation[..., None, None]
    return torch.softmax(-0.5 * apart.square(), -2)
