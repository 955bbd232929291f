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
FARTHEST, ODD = math.radians(45), math.radians(10)
"""The lumbar spine bends no farther for the pelvis's lean; and a difference that is odd."""


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

        Beyond `ODD` it grows in a straight line (Huber, Ann Math Stat 35(1), 1964): who bends otherwise
        altogether, with a straight back or by the spine alone, is not held as firmly.
        """
        pelvis, by_pelvis = _rise(posed, *self.pelvis)
        torso, by_torso = _rise(posed, *self.torso)
        lumbar, by_lean = _lumbar(pelvis)
        away = torso - pelvis - lumbar
        slope = by_torso - (1 + by_lean)[:, None] * by_pelvis
        size = away.abs()
        weight = self.information * (ODD / size.clamp(min=ODD))
        cost = torch.where(size < ODD, away**2, ODD * (2 * size - ODD)) * self.information / 2
        information = weight[:, None, None] * slope[..., None] * slope[:, None]
        return cost, -(weight * away)[:, None] * slope, information


def _lumbar(
    pelvis: Float[Tensor, "sample"],
) -> tuple[Float[Tensor, "sample"], Float[Tensor, "sample"]]:
    """What the pelvis's lean lets expect of the lumbar spine, rad, and how that changes with it.

    As much again, up to `FARTHEST`, and then ever less: who lies or crawls has a straight back.
    """
    forwards = (pelvis < 0).to(pelvis)
    near = (pelvis > -FARTHEST).to(pelvis)
    there = torch.where(near > 0, pelvis, -2 * FARTHEST - pelvis)
    return forwards * there, forwards * (2 * near - 1)


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
