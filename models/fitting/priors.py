"""Priors: what the fit assumes before it looks at data, from `priors.toml`."""

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

PLACE = ("pelvis_tx", "pelvis_ty", "pelvis_tz", "pelvis_tilt", "pelvis_list", "pelvis_rotation")
"""Where a person is and how they are turned: nothing is assumed of that."""


@cache
def priors() -> dict[str, dict[str, Any]]:
    """The tables of `priors.toml`."""
    text = resources.files("models.fitting").joinpath("priors.toml").read_text("utf-8")
    return tomllib.loads(text)


def stem(coordinate: str) -> str:
    """Name without the side: `knee_angle` of `knee_angle_r`."""
    return coordinate.removesuffix("_r").removesuffix("_l")


def share_of_pose(interval_s: float) -> float:
    """What samples that follow so closely count, for as much as they are of one pose: 1 if far apart."""
    return min(interval_s / priors()["pose"]["independent_after_s"], 1.0)


def pose_information(coordinates: Sequence[str], interval_s: float) -> Float[Tensor, "coordinate"]:
    """What a sample tells of each coordinate before anything is seen, 1/rad²; 0 is nothing.

    One over the variance about the neutral pose, shared among samples of one pose.
    """
    table = priors()["pose_deg"]
    spread = [table.get(stem(name), table["other"]) for name in coordinates]
    known = torch.tensor([name not in PLACE for name in coordinates])
    information = known / torch.deg2rad(torch.tensor(spread, dtype=torch.float64)) ** 2
    return information * share_of_pose(interval_s)


def acceleration_scale(coordinates: Sequence[str]) -> Float[Tensor, "coordinate"]:
    """How fast coordinates usually change their speed, rad/s² or m/s²."""
    table = priors()["acceleration"]
    places = [table["place" if name[-3:-1] == "_t" else "angle"] for name in coordinates]
    return torch.tensor(places, dtype=torch.float64)
