"""Poses: points of one person's model in many samples, and how they move with all that is sought."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.marker_jacobian import MarkerJacobian
from models.skeleton import Skeleton


@dataclass(frozen=True)
class Posed:
    """Points of the model, and their derivatives."""

    position: Float[Tensor, "sample point 3"]
    """In the world, m."""
    by_coordinate: Float[Tensor, "sample free point 3"]
    by_proportion: Float[Tensor, "sample parameter point 3"] | None = None
    by_offset: Float[Tensor, "sample point 3 3"] | None = None
    """How a point moves with its offset along its body's axes (last): the body's rotation."""


@dataclass(frozen=True)
class Proportions:
    """Parameters of a person's size and shape, each of variance 1 before anything is known."""

    names: tuple[str, ...]
    spread: Float[Tensor, "parameter"]
    """Standard deviation of each, as a logarithm of scale factors."""
    log_scale: Float[Tensor, "parameter body 3"]
    """What a parameter of size 1 adds to the logarithms of the bodies' scale factors."""

    def scale(self, parameter: Float[Tensor, "parameter"]) -> Float[Tensor, "body 3"]:
        """Return the bodies' scale factors."""
        return torch.tensordot(parameter, self.log_scale, 1).exp()


LEAST_LEVER_M = 0.03
"""Points do not tell of a coordinate that moves none of them farther, m per rad or m: it stays neutral."""


def neutral(skeleton: Skeleton) -> Float[Tensor, "coordinate"]:
    """Coordinates of 0, or nearest to it: a model's default may be a T-pose."""
    return torch.zeros_like(skeleton.default).clamp(skeleton.lower, skeleton.upper)


def told_coordinates(skeleton: Skeleton) -> Int[Tensor, "free"]:
    """Coordinates that a skeleton's markers tell of."""
    points = MarkerJacobian(skeleton, skeleton.markers)
    lever = points.jacobian(points(neutral(skeleton))).norm(dim=-1).amax(-1)
    return points.free[lever > LEAST_LEVER_M]


class Person:
    """A model whose markers are the fit's points, at some proportions and offsets (m)."""

    def __init__(
        self,
        skeleton: Skeleton,
        proportions: Proportions,
        parameter: Float[Tensor, "parameter"],
        offset_m: Float[Tensor, "point 3"],
        free: Int[Tensor, "free"],
    ):
        self.skeleton, self.proportions, self.free = skeleton, proportions, free
        self.scale = proportions.scale(parameter)
        self.scaled = skeleton.scaled(self.scale, offset_m)
        self.points = MarkerJacobian(self.scaled, skeleton.markers)
        self._told = torch.isin(self.points.free, free)

    def settled(
        self, coordinates: Float[Tensor, "sample coordinate"]
    ) -> Float[Tensor, "sample coordinate"]:
        """The same with coordinates that points do not tell of neutral, and coupled ones following."""
        settled = neutral(self.skeleton).expand_as(coordinates).clone()
        settled[:, self.free] = coordinates[:, self.free]
        return self.scaled.settled(settled)

    def pose(self, coordinates: Float[Tensor, "sample coordinate"]) -> Posed:
        """Where the points are, and how they move with the free coordinates."""
        moving = self.points(coordinates)
        return Posed(moving.position, self.points.jacobian(moving)[:, self._told])

    def pose_with_shape(self, coordinates: Float[Tensor, "sample coordinate"]) -> Posed:
        """The same, and how they move with proportions and offsets.

        Places are sums of scale factors times what depends on the pose alone, so that a derivative
        by some factors is the place that these alone give.
        """
        moving = self.points(coordinates)
        ways = self.scale * self.proportions.log_scale
        nothing = torch.zeros_like(self.scale)
        place = self.skeleton.marker_positions(
            coordinates[:, None], torch.cat([nothing[None], ways])
        )
        return Posed(
            moving.position,
            self.points.jacobian(moving)[:, self._told],
            place[:, 1:] - place[:, :1],
            moving.rotation,
        )
