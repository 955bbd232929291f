"""Trunk: who leans forwards does so by the pelvis and by the lumbar spine, each about half.

Lumbopelvic rhythm (Esola, McClure, Fitzgerald and Siegler, Spine 21(1), 1996). Keypoints of hips and
shoulders tell the sum well, and how it is shared badly. A body's lean is that of its forward axis,
whichever way the person faces; who leans backwards, as in a chair, has the lumbar spine near its neutral.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from models.fitting.poses import Posed
from models.fitting.priors import priors, share_of_pose

AXES = {
    f"{name}{end}": (name.lower(), place)
    for name in ("Pelvis", "Torso")
    for end, place in (("Origin", (0.0, 0.0, 0.0)), ("Ahead", (1.0, 0.0, 0.0)))
}
"""Points of the bodies' forward axes: the body of each and the place on it, m."""
LEAST_COSINE = 0.2
FARTHEST, ODD = math.radians(45), math.radians(20)
"""The lumbar spine bends no farther for the pelvis's lean; and from there on a difference is odd."""


class Trunk:
    """The prior, for a fit's points."""

    def __init__(self, points: Sequence[str], interval_s: float):
        self.pelvis, self.torso = (
            (points.index(f"{name}Origin"), points.index(f"{name}Ahead"))
            for name in ("Pelvis", "Torso")
        )
        spread = math.radians(priors()["trunk"]["apart_deg"])
        self.information = share_of_pose(interval_s) / spread**2

    def __call__(
        self, posed: Posed
    ) -> tuple[
        Float[Tensor, "sample"], Float[Tensor, "sample free"], Float[Tensor, "sample free free"]
    ]:
        """What the prior costs, its downhill by the free coordinates, and its information.

        The cost ends at a limit (Geman and McClure, Bull Int Stat Inst 52, 1987): who bends otherwise
        altogether, with a straight back or by the spine alone, is hardly held.
        """
        pelvis, by_pelvis = _rise(posed, *self.pelvis)
        torso, by_torso = _rise(posed, *self.torso)
        leaning = ((pelvis < 0) & (pelvis > -FARTHEST)).to(pelvis)
        away = torso - pelvis - pelvis.clamp(-FARTHEST, 0.0)
        slope = by_torso - (1 + leaning)[:, None] * by_pelvis
        odd = 1 + (away / ODD) ** 2
        weight = self.information / odd**2
        cost = self.information * away**2 / odd / 2
        information = weight[:, None, None] * slope[..., None] * slope[:, None]
        return cost, -(weight * away)[:, None] * slope, information


def _rise(
    posed: Posed, origin: int, ahead: int
) -> tuple[Float[Tensor, "sample"], Float[Tensor, "sample free"]]:
    """By how much an axis rises above the horizontal, rad, and how that changes with coordinates."""
    axis = posed.position[:, ahead] - posed.position[:, origin]
    length = axis.norm(dim=-1)
    sine = (axis[:, 1] / length).clamp(-1, 1)
    cosine = (1 - sine**2).clamp(min=LEAST_COSINE**2).sqrt()
    rise = posed.by_coordinate[:, :, ahead, 1] - posed.by_coordinate[:, :, origin, 1]
    return torch.asin(sine), rise / (length * cosine)[:, None]
