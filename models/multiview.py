"""Multi-view: one person's keypoints in calibrated cameras as tensors, and the linear method on them."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.vocabulary import mirrored, vocabulary

JOINTS = vocabulary("halpe-26").keypoints
"""The joints of the learned methods: all of the marker augmenter's 20, and the head's."""
MIRRORED = mirrored(JOINTS)
"""Index of each joint's partner on the other side; of itself on the midline."""
FAR_M = 3.0
"""A person's joints are so near to their middle, or nearer: a prior so weak that it only decides
where the views do not."""


@dataclass(frozen=True)
class Views:
    """What calibrated cameras saw of one person in windows of frames; a trial is one window.

    World right-handed, Y up, metres. All tensors are on one device and of one type.
    """

    image: Float[Tensor, "window frame view joint 2"]
    """Undistorted image coordinates (focal length 1); 0 where not seen."""
    confidence: Float[Tensor, "window frame view joint"]
    """0 to 1; 0 where not seen."""
    camera_from_world: Float[Tensor, "window view 3 4"]

    @property
    def seen(self) -> Bool[Tensor, "window frame view joint"]:
        """Where a view shows a joint."""
        return self.confidence > 0

    def to(self, *args, **kwargs) -> "Views":
        """Move to a device, or change the type."""
        return Views(*(getattr(self, each.name).to(*args, **kwargs) for each in fields(self)))

    def of_frames(self, frames: slice) -> "Views":
        """Keep some frames of every window."""
        return Views(self.image[:, frames], self.confidence[:, frames], self.camera_from_world)


@dataclass(frozen=True)
class Estimate:
    """Joints in space and how sure of them a method is."""

    position: Float[Tensor, "window frame joint 3"]
    """m."""
    covariance: Float[Tensor, "window frame joint 3 3"]
    """m²."""

    @property
    def standard_deviation(self) -> Float[Tensor, "window frame joint 3"]:
        """Along each axis, m."""
        return self.covariance.diagonal(dim1=-2, dim2=-1).sqrt()


@dataclass(frozen=True)
class BodyFrames:
    """A frame of reference at the person in every frame: X forwards, Y up, Z to their right.

    What a network sees in it does not change when cameras and person are moved or turned together.
    """

    rotation: Float[Tensor, "window frame 3 3"]
    """World from body."""
    origin: Float[Tensor, "window frame 3"]
    """The middle of the hips, m, in the world."""

    def cameras(
        self, camera_from_world: Float[Tensor, "window view 3 4"]
    ) -> Float[Tensor, "window frame view 3 4"]:
        """Extrinsics of the cameras in the body's frame."""
        rotation, translation = (
            camera_from_world[:, None, ..., :3],
            camera_from_world[:, None, ..., 3],
        )
        moved = torch.einsum(
            "wtvij,wtj->wtvi", rotation.expand(-1, self.origin.shape[1], -1, -1, -1), self.origin
        )
        turned = rotation @ self.rotation[:, :, None]
        return torch.cat([turned, (moved + translation)[..., None]], -1)

    def to_world(self, estimate: Estimate) -> Estimate:
        """Put an estimate in the body's frame into the world."""
        rotation = self.rotation[:, :, None]
        position = (rotation @ estimate.position[..., None])[..., 0] + self.origin[:, :, None]
        return Estimate(position, rotation @ estimate.covariance @ rotation.mT)

    def from_world(
        self, position: Float[Tensor, "window frame joint 3"]
    ) -> Float[Tensor, "window frame joint 3"]:
        """Put points of the world into the body's frame."""
        return (position - self.origin[:, :, None]) @ self.rotation


def body_frames(
    hips: Float[Tensor, "window frame 3"], rightwards: Float[Tensor, "window frame 3"]
) -> BodyFrames:
    """Frames at the middle of the hips whose Z is the horizontal part of a direction; world Y up."""
    horizontal = rightwards * rightwards.new_tensor([1.0, 0.0, 1.0])
    right = torch.nn.functional.normalize(horizontal, dim=-1)
    up = torch.zeros_like(right)
    up[..., 1] = 1.0
    return BodyFrames(torch.stack([torch.linalg.cross(up, right), up, right], -1), hips)


def rightwards(
    position: Float[Tensor, "window frame joint 3"],
) -> Float[Tensor, "window frame 3"]:
    """From the left hip and shoulder to the right ones: a direction, m."""
    pairs = [(JOINTS.index(f"R{part}"), JOINTS.index(f"L{part}")) for part in ("Hip", "Shoulder")]
    return sum(position[:, :, right] - position[:, :, left] for right, left in pairs)


def ray_equations(
    image: Float[Tensor, "window frame view joint 2"],
    extrinsics: Float[Tensor, "window frame view 3 4"],
) -> Float[Tensor, "window frame view joint 2 4"]:
    """Rows that a point in homogeneous coordinates makes zero, in metres.

    The inhomogeneous linear method (Hartley and Zisserman, Multiple View Geometry, 2nd ed., section
    12.2), left unscaled: for any point, a row's value is how far it passes beside the view's ray, m,
    along the image's x or y at the point's depth.
    """
    extrinsics = extrinsics[..., None, :, :]
    return image[..., None] * extrinsics[..., 2:, :] - extrinsics[..., :2, :]


def residuals(
    equations: Float[Tensor, "window frame view joint 2 4"],
    position: Float[Tensor, "window frame joint 3"],
) -> Float[Tensor, "window frame view joint 2"]:
    """How far points pass beside the views' rays, m, along the image's x and y."""
    moved = (equations[..., :3] @ position[:, :, None, :, :, None])[..., 0]
    return moved + equations[..., 3]


def solve(
    equations: Float[Tensor, "window frame view joint 2 4"],
    precision: Float[Tensor, "window frame view joint"],
) -> Estimate:
    """Most likely points and their covariances for rays of known precision (1/m²); differentiable.

    The inverse of the normal matrix is the covariance. Where views are too few, a weak prior around
    the origin (`FAR_M`) decides, and the covariance says so.
    """
    normal = torch.einsum("wtvj,wtvjri,wtvjrk->wtjik", precision, equations, equations)
    prior = torch.eye(3, dtype=normal.dtype, device=normal.device) / FAR_M**2
    covariance = torch.linalg.inv_ex(normal[..., :3, :3] + prior)[0]
    return Estimate(-(covariance @ normal[..., :3, 3:])[..., 0], covariance)


def robust(
    equations: Float[Tensor, "window frame view joint 2 4"],
    weight: Float[Tensor, "window frame view joint"],
    scale_m: float = 0.03,
    rounds: int = 5,
) -> Estimate:
    """Points by least squares, repeated with less and less trust in rays that pass far (Cauchy)."""
    precision = weight / scale_m**2
    estimate = solve(equations, precision)
    for _ in range(rounds):
        distance = residuals(equations, estimate.position).square().sum(-1)
        estimate = solve(equations, precision / (1 + distance / (2 * scale_m) ** 2))
    return estimate
