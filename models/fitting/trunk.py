"""Trunk: who leans forwards does so by the pelvis and by the lumbar spine, each about half.

Lumbopelvic rhythm (Esola, McClure, Fitzgerald and Siegler, Spine 21(1), 1996). Keypoints of hips and
shoulders tell the sum well, and how it is shared badly. The pelvis's lean is that of its forward axis,
whichever way the person faces; who leans backwards, as in a chair, has the lumbar spine near its neutral.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from models.fitting.poses import Posed
from models.fitting.priors import priors, share_of_pose

AXIS = {"PelvisOrigin": ("pelvis", (0.0, 0.0, 0.0)), "PelvisAhead": ("pelvis", (1.0, 0.0, 0.0))}
"""Points of the pelvis's forward axis: the body and the place on it, m."""
LEAST_COSINE = 0.2


class Trunk:
    """The prior, for a skeleton's points, coordinates and those of them that are free."""

    def __init__(
        self,
        points: Sequence[str],
        coordinates: Sequence[str],
        free: Sequence[int],
        interval_s: float,
    ):
        table = priors()["trunk"]
        found = [place for place, index in enumerate(free) if coordinates[index] in table["lumbar"]]
        self.lumbar = found[0] if len(found) == 1 and set(AXIS) <= set(points) else None
        if self.lumbar is not None:
            self.origin, self.ahead = (points.index(name) for name in AXIS)
            spread = torch.deg2rad(torch.tensor(table["apart_deg"], dtype=torch.float64))
            self.size = share_of_pose(interval_s) ** 0.5 / float(spread)

    def __call__(
        self, posed: Posed, free: Float[Tensor, "sample free"]
    ) -> tuple[Float[Tensor, "sample"], Float[Tensor, "sample free"]]:
        """How far the lumbar spine is from what the pelvis lets expect, over its spread, and how that
        changes with the free coordinates; zeros for a model without one lumbar joint.
        """
        if self.lumbar is None:
            return torch.zeros_like(free[:, 0]), torch.zeros_like(free)
        axis = posed.position[:, self.ahead] - posed.position[:, self.origin]
        length = axis.norm(dim=-1)
        sine = axis[:, 1] / length
        cosine = (1 - sine**2).clamp(min=LEAST_COSINE**2).sqrt()
        rise = posed.by_coordinate[:, :, self.ahead, 1] - posed.by_coordinate[:, :, self.origin, 1]
        forwards = (sine < 0).to(free)
        away = free[:, self.lumbar] - forwards * torch.asin(sine.clamp(-1, 1))
        slope = -(forwards / (length * cosine))[:, None] * rise
        slope[:, self.lumbar] += 1.0
        return self.size * away, self.size * slope
