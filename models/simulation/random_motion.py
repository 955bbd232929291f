"""Random motion: poses that move smoothly, some of built-in movements, some that nobody performed.

A pose comes with the one a moment later, since fast keypoints blur and cameras are not quite
synchronous. The pelvis is not placed: that is `placed`.
"""

import math
import tomllib
from collections.abc import Callable
from functools import cache
from importlib import resources

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.multiview import JOINTS
from models.simulation.draws import Draws
from models.simulation.landmarks import SOLE, SOLE_HEIGHT_M
from models.simulation.performances import MOMENT_S, MOTIONS, WALKING, Performances
from models.skeleton import Skeleton

WAVES = 3
SLOWEST_HZ, FASTEST_HZ = 0.1, 1.0
"""Of the sinusoids that add up to a coordinate's course."""
LASTS_S = 60.0
WHOLE_RANGE_SHARE = 0.15
"""Of free motions: whole ranges of the model, not only the usual ones."""
FEET_LEVEL_SHARE, FEET_LEVEL_DEG = 0.6, 12.0
"""Of free motions: hips bend as much as it takes to have the feet level, give or take so much."""
STEADY_SHARE, UNSTEADY_DEG = 0.5, (2.0, 20.0)
"""Of performances: changed by no more than the lower number, standard deviation; the others by up to
the higher one."""
FRONT_SHARE, FRONT_DEG = 0.7, 10.0
"""Of performances: the person faces the front of the rig, with this standard deviation."""
IN_THE_AIR_SHARE, HIGHEST_M = 0.1, 0.4
ASIDE_M, WALKS_M = 0.25, 1.8
"""Standard deviation of where a person is, and how far walkers go to either side."""
_SOLES = [[JOINTS.index(f"{side}{part}") for part in SOLE] for side in "RL"]
_HIPS = JOINTS.index("midHip")

Poses = Float[Tensor, "window frame 2 coordinate"]
"""Coordinates, rad, now and `MOMENT_S` later."""


def draw_motion(
    skeleton: Skeleton,
    performances: Performances,
    performed_share: float,
    windows: int,
    frames: int,
    draws: Draws,
) -> tuple[Poses, Bool[Tensor, "window"], Bool[Tensor, "window"]]:
    """Draw a motion for each window, and random moments of it.

    Returns the poses, which windows are performances, and which of these walk.
    """
    motion = draws.choice([1.0] * len(MOTIONS), windows)
    performed = draws.happens(performed_share, windows)
    size = unsteadiness(windows, draws)[:, None, None, None]
    unsteady = performances.draw(motion, frames, draws) + size * _waves(
        skeleton, windows, frames, draws
    )
    free = free_poses(skeleton, windows, 2, draws, lambda: _waves(skeleton, windows, frames, draws))
    poses = torch.where(performed[:, None, None, None], unsteady, free)
    return in_one_place(poses, skeleton), performed, performed & (motion == WALKING)


def in_one_place(
    poses: Float[Tensor, "*pose coordinate"], skeleton: Skeleton
) -> Float[Tensor, "*pose coordinate"]:
    """The poses within the model's ranges, with the pelvis at the origin."""
    poses = poses.clamp(skeleton.lower, skeleton.upper)
    rooted = [
        name.startswith("pelvis_t") and name != "pelvis_tilt" for name in skeleton.coordinates
    ]
    poses[..., rooted] = 0.0
    return poses


def unsteadiness(windows: int, draws: Draws) -> Float[Tensor, "window"]:
    """By how much people change a performance, rad, standard deviation."""
    least, most = UNSTEADY_DEG
    steady = draws.happens(STEADY_SHARE, windows)
    drawn = torch.where(
        steady, draws.uniform(0, least, windows), draws.uniform(least, most, windows)
    )
    return torch.deg2rad(drawn)


def _waves(skeleton, windows, frames, draws) -> Poses:
    """Sums of sinusoids of variance 1 at random moments, which are the same for all coordinates."""
    shape = windows, 1, 1, len(skeleton.coordinates), WAVES
    pace = 2 * math.pi * draws.uniform(SLOWEST_HZ, FASTEST_HZ, *shape)
    phase = draws.uniform(0, 2 * math.pi, *shape)
    now = draws.uniform(0, LASTS_S, windows, frames)
    time_s = torch.stack([now, now + MOMENT_S], -1)[..., None, None]
    return math.sqrt(2 / WAVES) * torch.sin(pace * time_s + phase).sum(-1)


def free_poses(
    skeleton: Skeleton,
    windows: int,
    moments: int,
    draws: Draws,
    waves: Callable[[], Float[Tensor, "window *moment coordinate"]],
) -> Float[Tensor, "window *moment coordinate"]:
    """Angles that wander about a random pose, for most people within the usual ranges.

    `waves` draws how they wander, over so many axes of moments.
    """
    one, count = [1] * moments, len(skeleton.coordinates)
    usual_low, usual_high = usual_ranges(skeleton)
    whole = draws.happens(WHOLE_RANGE_SHARE, windows, *one, 1)
    low = torch.where(whole, skeleton.lower, usual_low)
    high = torch.where(whole, skeleton.upper, usual_high)
    middle = draws.uniform(0, 1, windows, *one, count)
    size = draws.uniform(0, 0.3, windows, *one, 1)
    wandering = waves()
    poses = low + (high - low) * (middle + size * wandering).clamp(0, 1)
    level = draws.happens(FEET_LEVEL_SHARE, windows, *one, 1)
    hip, knee, ankle = (
        [skeleton.coordinates.index(f"{joint}_{side}") for side in "rl"]
        for joint in ("hip_flexion", "knee_angle", "ankle_angle")
    )
    tilt = poses[..., [skeleton.coordinates.index("pelvis_tilt")]]
    flat = poses[..., knee] - poses[..., ankle] - tilt
    uneven = math.radians(FEET_LEVEL_DEG) * wandering[..., hip]
    poses[..., hip] = torch.where(level, flat + uneven, poses[..., hip])
    return poses


def usual_ranges(
    skeleton: Skeleton,
) -> tuple[Float[Tensor, "coordinate"], Float[Tensor, "coordinate"]]:
    """How far people usually move each coordinate, rad, within the model's ranges."""
    stems = [name.removesuffix("_r").removesuffix("_l") for name in skeleton.coordinates]
    known_deg = [_usual_deg().get(stem, (math.nan, math.nan)) for stem in stems]
    known = torch.deg2rad(skeleton.lower.new_tensor(known_deg))
    quarter = (skeleton.upper - skeleton.lower) / 4
    middle_half = torch.stack([skeleton.lower + quarter, skeleton.upper - quarter], -1)
    low, high = torch.where(known.isnan(), middle_half, known).unbind(-1)
    return low.clamp(min=skeleton.lower), high.clamp(max=skeleton.upper)


@cache
def _usual_deg() -> dict[str, list[float]]:
    text = resources.files("models.simulation").joinpath("random_motion.toml").read_text("utf-8")
    return tomllib.loads(text)


def placed(
    points: Float[Tensor, "window frame 2 joint 3"],
    performed: Bool[Tensor, "window"],
    walks: Bool[Tensor, "window"],
    draws: Draws,
) -> Float[Tensor, "window frame 2 joint 3"]:
    """Put people on the floor about the world's origin, some of them in the air, facing somewhere.

    The sole that is lowest stays where it is from the one moment to the next: that of the foot which
    is lower as a whole, as the toes of a swinging foot may come near to the floor.
    """
    windows, frames = points.shape[:2]
    front = torch.deg2rad(FRONT_DEG * draws.normal(windows))
    anywhere = draws.uniform(-math.pi, math.pi, windows)
    heading = torch.where(performed & draws.happens(FRONT_SHARE, windows), front, anywhere)
    points = turned(points, heading)
    aside = ASIDE_M * draws.normal(windows, 1, 2)
    along = draws.uniform(-WALKS_M, WALKS_M, windows, frames)[..., None]
    forwards = torch.stack([heading.cos(), -heading.sin()], -1)[:, None]
    aside = aside + torch.where(walks[:, None, None], along * forwards, 0.0)
    in_air = draws.happens(IN_THE_AIR_SHARE, windows, frames)
    lift_m = torch.where(in_air, draws.uniform(0, HIGHEST_M, windows, frames), 0.0)

    now = points[:, :, 0]
    lowest_m = now[..., 1].amin(-1)  # of all joints: hands do not go into the floor
    start = torch.stack(
        [
            aside[..., 0] - now[..., _HIPS, 0],
            SOLE_HEIGHT_M + lift_m - lowest_m,
            aside[..., 1] - now[..., _HIPS, 2],
        ],
        -1,
    )
    slip = _standing_slip(points)
    return points + torch.stack([start, start - slip], 2)[..., None, :]


def _standing_slip(points) -> Float[Tensor, "window frame 3"]:
    """How far the lowest sole of the lower foot moves from the one moment to the next."""
    soles = points[..., _SOLES, :]  # window frame 2 side part 3
    foot = soles[:, :, 0, ..., 1].mean(-1).argmin(-1)
    part = torch.take_along_dim(soles[:, :, 0, ..., 1], foot[..., None, None], 2).argmin(-1)
    here = torch.take_along_dim(soles, foot[:, :, None, None, None, None], 3)
    here = torch.take_along_dim(here, part[:, :, None, :, None, None], 4)[..., 0, 0, :]
    return here[:, :, 1] - here[:, :, 0]


def turned(
    vectors: Float[Tensor, "window *many 3"], angle: Float[Tensor, "window"]
) -> Float[Tensor, "window *many 3"]:
    """Turn about the vertical, anticlockwise seen from above; rad."""
    return vectors @ about_vertical(angle).mT.reshape(-1, *[1] * (vectors.ndim - 3), 3, 3)


def about_vertical(angle: Float[Tensor, "window"]) -> Float[Tensor, "window 3 3"]:
    """Rotation matrices about world Y."""
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = [cosine, zero, sine, zero, zero + 1, zero, -sine, zero, cosine]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))
