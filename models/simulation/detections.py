"""Detections: what image detectors make of many people before many cameras at once.

The errors of `detector`, with its parameters, in undistorted image coordinates. Frames are moments
of their own: what lasts for some frames there happens here in as large a share of them.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.multiview import JOINTS, MIRRORED
from models.simulation.capsules import hidden_joints
from models.simulation.detector import LEGS, by_keypoint, parameters
from models.simulation.draws import Draws
from models.simulation.rigs import Rigs

RATE_HZ = 60.0
"""Of the cameras: bursts are counted, and clocks are off, by its frames."""
SWAPPED_FRAMES = (0.1, 0.9)
"""Share of a window's frames in which a view has the legs exchanged on purpose."""
_HIPS = JOINTS.index("RHip"), JOINTS.index("LHip")
_LEGS_EXCHANGED = [
    MIRRORED[index] if name[1:] in LEGS else index for index, name in enumerate(JOINTS)
]

PerRay = Float[Tensor, "window frame view joint"]


@dataclass(frozen=True)
class Seen:
    """True joints as the views have them."""

    camera: Float[Tensor, "window frame view joint 3"]
    """In the camera's frame, m."""
    velocity: Float[Tensor, "window frame view joint 3"]
    """In the camera's frame, m/s."""
    hidden: Bool[Tensor, "window frame view joint"]

    @property
    def image(self) -> Float[Tensor, "window frame view joint 2"]:
        """Where a pinhole camera shows them."""
        return self.camera[..., :2] / self.camera[..., 2:]


@dataclass(frozen=True)
class Detections:
    """Image coordinates by the calibration, and confidences; 0 where there is nothing."""

    image: Float[Tensor, "window frame view joint 2"]
    confidence: PerRay
    swapped: Bool[Tensor, "window frame view"]


def look(
    position: Float[Tensor, "window frame joint 3"],
    velocity: Float[Tensor, "window frame joint 3"],
    height_m: Float[Tensor, "window"],
    rigs: Rigs,
    late_s: Float[Tensor, "window view"],
) -> Seen:
    """See moving joints (m, m/s) with true cameras that are late by some time."""
    points = position[:, :, None] + velocity[:, :, None] * late_s[:, None, :, None, None]
    rotation = rigs.camera_from_world[:, None, ..., :3].mT
    there = points @ rotation + rigs.camera_from_world[:, None, :, None, :, 3]
    hidden = hidden_joints(points, rigs.center, height_m)
    return Seen(there, velocity[:, :, None] @ rotation, hidden)


def clock_offsets_s(
    noise: Float[Tensor, "window"], views: int, draws: Draws
) -> Float[Tensor, "window view"]:
    """How late cameras are after a synchronisation in whole frames."""
    return noise[:, None] * draws.uniform(-0.5, 0.5, len(noise), views) / RATE_HZ


def detect(
    seen: Seen,
    rigs: Rigs,
    noise: Float[Tensor, "window"],
    forced_swap_share: float,
    draws: Draws,
) -> Detections:
    """Detect joints, with errors of a size by window: 1 as measured or assumed, 0 none."""
    error_m = _error_m(seen, noise, draws)
    swapped = _swapped(seen, noise, forced_swap_share, draws)
    image = seen.image + error_m / seen.camera[..., 2:]
    image = torch.where(swapped[..., None, None], image[..., _LEGS_EXCHANGED, :], image)
    confidence = _confidence(error_m, seen.hidden, noise, draws)
    inside = (image.abs() <= rigs.half_size[:, None, :, None]).all(-1) & (seen.camera[..., 2] > 0)
    found = inside & ~_missed(seen.hidden, noise, draws)
    calibrated = torch.where(found[..., None], rigs.as_calibrated(image), 0.0)
    return Detections(calibrated, torch.where(found, confidence, 0.0), swapped)


def _error_m(seen: Seen, noise, draws: Draws):
    """Errors in the image's plane at the person, m (window, frame, view, joint, 2)."""
    table, (windows, frames, views, joints) = parameters(), seen.hidden.shape
    shape, size = (windows, frames, views, joints, 2), noise[:, None, None, None, None]
    bias, wander, jitter = (
        noise.new_tensor(by_keypoint(JOINTS, key))[:, None]
        for key in ("bias_m", "wander_m", "jitter_m")
    )
    extra = math.sqrt(table["hidden"]["error_factor"] ** 2 - 1)
    covered = torch.where(seen.hidden[..., None], extra * wander * draws.normal(*shape), 0.0)
    error = bias * draws.normal(windows, 1, views, joints, 2) + covered
    error = error + torch.hypot(wander, jitter) * draws.normal(*shape)
    moving = seen.velocity[..., :2] - seen.image * seen.velocity[..., 2:]
    error = error + table["blur"]["half_exposure_s"] * moving * draws.normal(*shape[:4], 1)
    outliers = table["outliers"]
    share = burst_share(noise * outliers["starts_per_s"], outliers["duration_s"])
    out = draws.happens(share[:, None, None, None], *shape[:4])
    thrown = outliers["size_m"] * draws.normal(*shape)
    return size * error + torch.where(out[..., None], thrown, 0.0)


def burst_share(
    starts_per_s: Float[Tensor, "window"], duration_s: float
) -> Float[Tensor, "window"]:
    """In which share of frames something lasts that starts at random, as `detector.bursts` has it.

    A start at any frame with probability p ends what lasted, and lasts itself for k frames or more
    with probability exp(-k / duration): the sum over the frames since the latest start.
    """
    start = starts_per_s / RATE_HZ
    return start / (1 - (1 - start) * math.exp(-1 / (duration_s * RATE_HZ)))


def _swapped(seen: Seen, noise, forced_share: float, draws: Draws):
    """Where legs are exchanged: where hips are seen nearly edge on, and anywhere on purpose."""
    table, (windows, frames, views, _) = parameters()["swaps"], seen.hidden.shape
    across = seen.camera[..., _HIPS[0], :] - seen.camera[..., _HIPS[1], :]
    edge_on = across[..., :2].norm(dim=-1) < table["edge_on"] * across.norm(dim=-1)
    share = burst_share(noise * table["starts_per_s"], table["duration_s"])
    by_itself = edge_on & draws.happens(share[:, None, None], windows, frames, views)
    forced = (noise > 0) & draws.happens(forced_share, windows)
    one = torch.arange(views, device=noise.device) == draws.choice([1.0] * views, windows)[:, None]
    often = draws.uniform(*SWAPPED_FRAMES, windows)[:, None, None]
    on_purpose = (forced[:, None] & one)[:, None] & draws.happens(often, windows, frames, views)
    return by_itself | on_purpose


def _missed(hidden, noise, draws: Draws):
    """Where joints are not found: anywhere, and the more so where they are hidden."""
    table = parameters()["missed"]
    shares = [
        burst_share(noise * table[key], table["duration_s"])[:, None, None, None]
        for key in ("starts_per_s", "starts_per_s_hidden")
    ]
    anywhere, covered = (draws.happens(share, *hidden.shape) for share in shares)
    return anywhere | (covered & hidden)


def _confidence(error_m, hidden, noise, draws: Draws) -> PerRay:
    """Confidences that tell a little about errors; 1 where there are none."""
    table, noise = parameters()["confidence"], noise[:, None, None, None]
    size = torch.log(error_m.norm(dim=-1).clamp(min=1e-3) / 0.03)
    covered = noise.clamp(max=1) * table["hidden"] * hidden
    spread = table["spread"] * draws.normal(*hidden.shape)
    sure = torch.sigmoid(table["at_30_mm"] + table["per_log_error"] * size + covered + spread)
    return torch.where(noise > 0, sure, 1.0)
