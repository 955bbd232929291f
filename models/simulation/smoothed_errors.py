"""Smoothed errors: how far keypoints are off after triangulation and smoothing, without any camera.

Sizes are measured on simulated sessions, and are in `smoothed_errors.toml`.
"""

import math
import tomllib
from functools import cache
from importlib import resources

import torch
from jaxtyping import Float
from torch import Tensor

from models.augmenter import RATE_HZ, VIDEO_KEYPOINTS
from models.simulation.draws import Draws
from models.simulation.random_motion import FRONT_DEG, FRONT_SHARE, about_vertical

GROUPS = ("trunk", "shoulder", "elbow", "wrist", "hip", "knee", "ankle", "heel", "toe")
"""Of keypoints that err alike; `trunk` is neck and mid-hip."""
WAVES = 4
"""Of which wandering is made."""


def group_of(keypoint: str) -> str:
    """Name the group of a keypoint."""
    stem = keypoint.lower()
    return next((group for group in GROUPS if stem.endswith(group) and stem != "midhip"), "trunk")


@cache
def table() -> dict[str, dict]:
    """Sizes by number of cameras and group, and how wandering goes on."""
    text = resources.files("models.simulation").joinpath("smoothed_errors.toml").read_text("utf-8")
    return tomllib.loads(text)


def draw_errors(
    noise: Float[Tensor, "window"], frames: int, draws: Draws
) -> Float[Tensor, "window frame 20 3"]:
    """Errors (m) of the augmenter's keypoints, for some size of all errors by window.

    As of sessions with some number of cameras, most often in front of the person, who faces +X. What
    moves all keypoints alike is left out.
    """
    windows, count = len(noise), len(VIDEO_KEYPOINTS)
    cameras = draws.choice([1.0] * len(_rigs()), windows)
    shift_m, wander_m = (
        noise.new_tensor([[rig[group_of(name)][what] for name in VIDEO_KEYPOINTS] for rig in _rigs()])
        for what in ("shift_m", "wander_m")
    )  # fmt: skip
    shift = shift_m[cameras][:, None] * draws.normal(windows, 1, count, 3)
    least, most = table()["correlation_s"]
    lasts_s = draws.uniform(least, most, windows, 1, 1, 1, 1)
    shape = windows, 1, count, 3, WAVES
    pace = draws.normal(*shape) / lasts_s  # then correlation falls as a normal curve of this width
    phase = draws.uniform(0, 2 * math.pi, *shape)
    time_s = torch.arange(frames, device=noise.device)[:, None, None, None] / RATE_HZ
    waves = math.sqrt(2 / WAVES) * torch.sin(pace * time_s + phase).sum(-1)
    uneven = table()["unevenness"]
    size = torch.exp(uneven * draws.normal(windows, 1, count, 1) - uneven**2)  # mean square 1
    wander = wander_m[cameras][:, None] * size * waves
    error = noise[:, None, None, None] * (shift + wander)
    front = torch.deg2rad(FRONT_DEG * draws.normal(windows))
    anywhere = draws.uniform(-math.pi, math.pi, windows)
    depth = torch.where(draws.happens(FRONT_SHARE, windows), front, anywhere)
    return error @ about_vertical(depth).mT[:, None]


def _rigs() -> list[dict]:
    return list(table()["cameras"].values())
