"""Crowd: many random people at once, as scale factors of a skeleton, and where their keypoints are.

The people are those of `subject`, the keypoints those of `landmarks`, in torch.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models.multiview import JOINTS
from models.simulation.detector import parameters
from models.simulation.draws import Draws
from models.simulation.landmarks import SOLE_HEIGHT_M, lengths, placements
from models.simulation.subject import (
    ASYMMETRY_SPREAD,
    GROUPS,
    PERCENTILES,
    SEGMENT_SPREAD,
    STATURE_M,
    group_and_side,
)
from models.skeleton import Skeleton

UPRIGHT = ("knee_angle_r", "knee_angle_l")
"""Are 0, and all others at their default, where stature is measured."""


@dataclass(frozen=True)
class Crowd:
    """One person a window."""

    height_m: Float[Tensor, "window"]
    scale: Float[Tensor, "window body 3"]
    """Of the skeleton's bodies."""
    location: Float[Tensor, "window joint 3"]
    """Where each keypoint is in the frame of its body, m."""


def draw_crowd(
    skeleton: Skeleton, windows: int, noise: Float[Tensor, "window"], draws: Draws
) -> Crowd:
    """Draw people as `subject.draw_person`, whose keypoints are not where the average person's are.

    Raises PipelineError if the skeleton lacks bodies that keypoints are placed on.
    """
    likelihood = draws.uniform(*PERCENTILES, windows)
    mean, spread = noise.new_tensor(list(STATURE_M.values()))[draws.choice((1, 1), windows)].T
    height_m = mean + spread * torch.special.ndtri(likelihood)
    both = 1 + SEGMENT_SPREAD * draws.normal(windows, len(GROUPS)).clamp(-2, 2)
    difference = ASYMMETRY_SPREAD * draws.normal(windows, len(GROUPS)).clamp(-2, 2)
    paired = noise.new_tensor([group not in ("pelvis", "trunk") for group in GROUPS])
    half = difference * paired / 2
    crowd = sized(skeleton, height_m, torch.stack([both * (1 + half), both * (1 - half)], -1))
    appearance = noise[:, None, None] * parameters()["appearance"]["spread_m"]
    moved = crowd.location + appearance * draws.normal(windows, len(JOINTS), 3)
    return Crowd(height_m, crowd.scale, moved)


def sized(
    skeleton: Skeleton,
    height_m: Float[Tensor, "window"],
    factors: Float[Tensor, "window group side"],
) -> Crowd:
    """Average people of some heights and proportions: factors of `GROUPS`, right and left."""
    groups = list(GROUPS)
    where = [group_and_side(body) for body in skeleton.bodies]
    group, side = zip(
        *((groups.index(group), "rl".index(side)) for group, side in where), strict=True
    )
    proportioned = measured(skeleton, factors[:, group, side][..., None].expand(-1, -1, 3))
    size = (height_m / proportioned.height_m)[:, None, None]
    return Crowd(height_m, proportioned.scale * size, proportioned.location * size)


def measured(skeleton: Skeleton, scale: Float[Tensor, "window body 3"]) -> Crowd:
    """People of some scale factors: how tall they are, and where average people's keypoints are."""
    coordinates = upright(skeleton).expand(len(scale), -1)
    position = skeleton(coordinates, scale)[1]
    where = placements(skeleton.bodies)
    spans = [lengths()[where[name][0]] for name in JOINTS]
    start, end = ([skeleton.bodies.index(span[which]) for span in spans] for which in (0, 1))
    reference = scale.new_tensor([span[2] for span in spans])
    length = (position[:, start] - position[:, end]).norm(dim=-1) / reference
    average = torch.stack([scale.new_tensor(where[name][1]) for name in JOINTS])
    crowd = Crowd(length[:, 0], scale, length[..., None] * average)
    up = dict(zip(JOINTS, keypoints(skeleton, crowd, coordinates)[..., 1].unbind(-1), strict=True))
    soles = [up[name] for name in ("RHeel", "LHeel", "RBigToe", "LBigToe")]
    height_m = up["Head"] - torch.stack(soles).amin(0) + SOLE_HEIGHT_M
    return Crowd(height_m, scale, crowd.location)


def upright(skeleton: Skeleton) -> Float[Tensor, "coordinate"]:
    """Coordinates of somebody who stands upright."""
    coordinates = skeleton.default.clone()
    coordinates[[skeleton.coordinates.index(name) for name in UPRIGHT]] = 0.0
    return coordinates


def keypoints(
    skeleton: Skeleton, crowd: Crowd, coordinates: Float[Tensor, "window *pose coordinate"]
) -> Float[Tensor, "window *pose joint 3"]:
    """Where a detector without noise marks these people in some poses, m."""
    poses = coordinates.ndim - 2
    many = (len(crowd.scale), *[1] * poses)
    rotation, position = skeleton(coordinates, crowd.scale.reshape(*many, -1, 3))
    where = placements(skeleton.bodies)
    body = [skeleton.bodies.index(where[name][0]) for name in JOINTS]
    moved = rotation[..., body, :, :] @ crowd.location.reshape(*many, -1, 3, 1)
    return position[..., body, :] + moved[..., 0]
