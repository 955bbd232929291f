"""How a skeleton's markers move with its coordinates: positions and their derivatives together.

The geometric Jacobian: a marker turns about each axis of rotation, and slides along each axis of
translation, of the joints between it and the ground.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.skeleton import Skeleton


class MarkerJacobian(nn.Module):
    """Positions of some of a skeleton's markers, and their derivatives by what moves them."""

    free: Int[Tensor, "free"]
    """The coordinates that move any of the markers and are neither locked nor coupled."""

    def __init__(self, skeleton: Skeleton, markers: Sequence[str]):
        super().__init__()
        self.skeleton = skeleton
        chosen = [skeleton.markers.index(name) for name in markers]
        self.register_buffer("frame", skeleton.marker_frame[chosen])
        self.register_buffer("location", skeleton.marker_location[chosen].sum(-1))
        driven_by = skeleton.driven_by
        carries = skeleton.hanging()[:, self.frame].repeat_interleave(6, 0)
        carries &= ((driven_by >= 0) & ~skeleton.locked[driven_by])[:, None]
        axis, marker = carries.nonzero(as_tuple=True)  # of each pair of both that move together
        free, column = driven_by[axis].unique(return_inverse=True)
        self.register_buffer("free", free)
        self.register_buffer("axis", axis)
        self.register_buffer("marker", marker)
        self.register_buffer("place", column * len(chosen) + marker)
        self.register_buffer("turns", (axis % 6 < 3)[:, None])

    def forward(self, coordinates: Float[Tensor, "*batch coordinate"]) -> "MovingMarkers":
        """Return where the markers are and how they move."""
        at = self.skeleton.frames_and_axes(coordinates)
        rotation = at.rotation[..., self.frame, :, :]
        turned = (rotation @ self.location[..., None])[..., 0]
        position = at.position[..., self.frame, :] + turned
        velocity = at.velocity[..., self.axis, :]
        arm = position[..., self.marker, :] - at.origin[..., self.axis // 6, :]
        moves = torch.where(self.turns, torch.linalg.cross(velocity, arm), velocity)
        return MovingMarkers(position, rotation, moves)

    def jacobian(self, moving: "MovingMarkers") -> Float[Tensor, "*batch free marker 3"]:
        """Return how the markers move with the free coordinates, m per rad or m."""
        size = len(self.free), len(self.frame)
        flat = moving.moves.new_zeros(*moving.moves.shape[:-2], size[0] * size[1], 3)
        return flat.index_add(-2, self.place, moving.moves).unflatten(-2, size)


class MovingMarkers(NamedTuple):
    """Where markers are, and what moves them."""

    position: Float[Tensor, "*batch marker 3"]
    """In ground, m."""
    rotation: Float[Tensor, "*batch marker 3 3"]
    """From the frame of each one's body to ground."""
    moves: Float[Tensor, "*batch pair 3"]
    """Of a marker by an axis, per rad or m of the coordinate that drives it."""
