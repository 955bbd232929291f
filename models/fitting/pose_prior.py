"""Pose prior: what is assumed of a sample's coordinates before anything is seen, and their limits."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.fitting.poses import Posed, neutral
from models.fitting.priors import pose_information
from models.fitting.trunk import Trunk
from models.skeleton import Skeleton

HELD, LEAST_INFORMATION = 1e12, 1e-3
"""Information, 1/rad² or 1/m², that keeps a coordinate at a limit of its range, and that all have."""


class PosePrior:
    """Of the free coordinates of a skeleton whose markers are a fit's points."""

    def __init__(self, skeleton: Skeleton, free: Int[Tensor, "free"], interval_s: float):
        self.free, self.neutral = free, neutral(skeleton)[free]
        self.information = pose_information(skeleton.coordinates, interval_s)[free]
        self.trunk = Trunk(skeleton.markers, interval_s)
        self.lower, self.upper = (limit[free] for limit in skeleton.limits())

    def __call__(
        self, posed: Posed, coordinates: Float[Tensor, "sample coordinate"]
    ) -> tuple[
        Float[Tensor, "sample"], Float[Tensor, "sample free"], Float[Tensor, "sample free free"]
    ]:
        """What poses cost, its downhill by the free coordinates, and its information."""
        away = self.neutral - coordinates[:, self.free]
        bent, unbending, stiffness = self.trunk(posed)
        cost = bent + (self.information * away**2).sum(-1) / 2
        return cost, self.information * away + unbending, torch.diag(self.information) + stiffness

    def damped(
        self,
        normal: Float[Tensor, "sample free free"],
        coordinates: Float[Tensor, "sample coordinate"],
        downhill: Float[Tensor, "sample free"],
        damping: float,
    ) -> Float[Tensor, "sample free free"]:
        """Normal equations that steps are made by: coordinates that would leave their range are held."""
        held = self._held(coordinates[:, self.free], downhill)
        size = normal.diagonal(dim1=-2, dim2=-1)
        return normal + torch.diag_embed(damping * size + LEAST_INFORMATION + HELD * held)

    def _held(self, at: Tensor, downhill: Tensor) -> Bool[Tensor, "sample free"]:
        return ((at <= self.lower) & (downhill < 0)) | ((at >= self.upper) & (downhill > 0))

    def moved(
        self, coordinates: Float[Tensor, "sample coordinate"], step: Float[Tensor, "sample free"]
    ) -> Float[Tensor, "sample coordinate"]:
        """The coordinates after a step, within their ranges."""
        moved = coordinates.clone()
        moved[:, self.free] = (coordinates[:, self.free] + step).clamp(self.lower, self.upper)
        return moved
