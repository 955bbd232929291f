"""Performances: built-in movements done many times, a store of plausible poses for training."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.interpolate import CubicSpline
from torch import Tensor

from models.multiview import JOINTS
from models.simulation.crowd import Crowd, keypoints, measured
from models.simulation.draws import Draws
from models.simulation.motion import ALIASES
from models.simulation.movements import MOVEMENTS, RATE_HZ, Movement
from models.simulation.scene import random_for
from models.skeleton import Skeleton

MOTIONS = ("squats", "gait", "sit-to-stand", "static")
"""Drop jumps are kept for tests: nothing is ever trained on them."""
WALKING = MOTIONS.index("gait")
FIRST_SEED = 100_000
"""Training draws movements from this seed on, tests from smaller ones."""
MOMENT_S = 1 / RATE_HZ
"""Between the two moments of a pose that moves."""
_EVERY = 5
"""The feet are kept apart in each so-manieth sample, and in between by a spline."""
_FEET = [[JOINTS.index(f"{side}{end}") for end in ("Heel", "BigToe")] for side in "RL"]


@dataclass(frozen=True)
class Performances:
    """Coordinates (rad; pelvis not placed) at `RATE_HZ`, one performance after the other."""

    coordinates: Float[Tensor, "sample coordinate"]
    start: Int[Tensor, "motion performance"]
    """The first sample of each."""
    count: Int[Tensor, "motion performance"]
    """How many samples each has."""

    def to(self, like: Tensor) -> "Performances":
        """Move to the device and type of another tensor."""
        device = like.device
        return Performances(self.coordinates.to(like), self.start.to(device), self.count.to(device))

    def draw(
        self, motion: Int[Tensor, "window"], frames: int, draws: Draws
    ) -> Float[Tensor, "window frame 2 coordinate"]:
        """Random moments of a random performance, each with the pose `MOMENT_S` later.

        Performances are faster or slower, and larger or smaller, than the built-in ones.
        """
        windows = len(motion)
        which = draws.choice([1.0] * self.start.shape[1], windows)
        start, count = self.start[motion, which], self.count[motion, which]
        share = draws.uniform(0, 1, windows, frames)
        sample = start[:, None] + (share * (count[:, None] - 1)).long().clamp(min=0)
        here, later = self.coordinates[sample], self.coordinates[sample + 1]
        speed = draws.uniform(0.7, 1.4, windows)[:, None, None]
        size = draws.uniform(0.8, 1.1, windows)[:, None, None, None]
        return size * torch.stack([here, here + speed * (later - here)], 2)


def perform(skeleton: Skeleton, times: int) -> Performances:
    """Do each of `MOTIONS` so many times, on the skeleton's device."""
    average = measured(skeleton, skeleton.default.new_ones(1, len(skeleton.bodies), 3))
    done = [
        _performed(MOVEMENTS[motion](random_for(FIRST_SEED + time, motion)), skeleton, average)
        for motion in MOTIONS
        for time in range(times)
    ]
    count = torch.tensor([len(each) for each in done], device=skeleton.default.device)
    shape = len(MOTIONS), times
    return Performances(
        torch.cat(done), (count.cumsum(0) - count).reshape(shape), count.reshape(shape)
    )


def _performed(
    movement: Movement, skeleton: Skeleton, average: Crowd
) -> Float[Tensor, "time coordinate"]:
    """Coordinates of a movement; those that it does not speak of are 0, or nearest to it."""
    angles = np.zeros((len(movement.time_s), len(skeleton.coordinates)))
    for name, curve in movement.curves.items():
        known = name if name in skeleton.coordinates else ALIASES.get(name)
        if known in skeleton.coordinates:
            angles[:, skeleton.coordinates.index(known)] = np.radians(curve)
    lower, upper = (bound.double().cpu().numpy() for bound in (skeleton.lower, skeleton.upper))
    angles = torch.from_numpy(np.clip(angles, lower, upper)).to(skeleton.default)
    return angles if movement.walks else _feet_kept_apart(angles, skeleton, average)


def _feet_kept_apart(angles, skeleton: Skeleton, average: Crowd):
    """Turn the hips so that the feet stay where they are in the first sample, as `motion.on_model`."""
    both = [
        [skeleton.coordinates.index(f"{hip}_{side}") for side in "rl"]
        for hip in ("hip_adduction", "hip_rotation")
    ]

    def sideways(poses) -> Float[Tensor, "time side 2"]:
        return keypoints(skeleton, average, poses[None])[0][:, _FEET, 2]

    chosen = torch.arange(0, len(angles) + _EVERY - 1, _EVERY).clamp(max=len(angles) - 1).unique()
    coarse, step = angles[chosen], np.radians(0.5)
    wanted = sideways(angles[:1])
    for _ in range(2):  # Newton's method
        here, slopes = sideways(coarse), []
        for hip in both:
            turned = coarse.clone()
            turned[:, hip] += step
            slopes.append((sideways(turned) - here) / step)
        turn = torch.linalg.solve(torch.stack(slopes, -1), wanted - here)
        for column, hip in enumerate(both):
            coarse[:, hip] += turn[..., column]
    columns = sum(both, [])
    spline = CubicSpline(chosen.numpy(), coarse[:, columns].double().cpu().numpy())
    kept = angles.clone()
    kept[:, columns] = torch.from_numpy(spline(np.arange(len(angles)))).to(angles)
    return kept
