"""Trunk: who leans forwards does so by the pelvis and by the lumbar spine, each about half.

Lumbopelvic rhythm (Esola, McClure, Fitzgerald and Siegler, Spine 21(1), 1996). Keypoints of hips and
shoulders tell the sum well, and how it is shared badly. A body's lean is that of its forward axis,
whichever way the person faces; who leans backwards, as in a chair, has the lumbar spine near its neutral.
"""

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


class Trunk:
    """The prior, for a fit's points."""

    def __init__(self, points: Sequence[str], interval_s: float):
        self.pelvis, self.torso = (
            (points.index(f"{name}Origin"), points.index(f"{name}Ahead"))
            for name in ("Pelvis", "Torso")
        )
        spread = torch.deg2rad(torch.tensor(priors()["trunk"]["apart_deg"], dtype=torch.float64))
        self.size = share_of_pose(interval_s) ** 0.5 / float(spread)

    def __call__(
        self, posed: Posed
    ) -> tuple[Float[Tensor, "sample"], Float[Tensor, "sample free"]]:
        """How far the torso leans from what the pelvis's lean lets expect, over its spread, and how that
        changes with the free coordinates.
        """
        pelvis, by_pelvis = _rise(posed, *self.pelvis)
        torso, by_torso = _rise(posed, *self.torso)
        share = 1 + (pelvis < 0).to(pelvis)  # the torso leans twice as far forwards
        return self.size * (torso - share * pelvis), self.size * (
            by_torso - share[:, None] * by_pelvis
        )


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
