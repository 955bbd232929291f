"""Sequences: moving people, keypoints as they are after smoothing, and their anatomical markers.

For training what works on whole movements. As in `population`, examples are endless and drawn on the
device; other than there, a window's samples follow each other, and no camera is simulated: errors are
those that triangulated and smoothed keypoints have (`smoothed_errors`).
"""

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from models.augmenter import MARKERS, RATE_HZ, VIDEO_KEYPOINTS, small_toe
from models.multiview import JOINTS
from models.opensim_model import add_markers, generic_model, load_model, stripped_copy
from models.simulation import movements, random_motion
from models.simulation.crowd import draw_crowd, keypoints
from models.simulation.draws import Draws
from models.simulation.performances import MOTIONS, Performances, perform
from models.simulation.smoothed_errors import draw_errors
from models.simulation.subject import BODY_MASS_INDEX
from models.skeleton import Skeleton, read_skeleton

FASTEST_HZ = (1.0, 3.0)
"""Of the waves that a window's angles are made of: even between these."""
STATED_HEIGHT_SPREAD_M = 0.01
"""How wrongly people state their height, or measure it in shoes."""
ESTIMATED_HEIGHT_SPREAD = 0.03
"""Of a height that was estimated from the legs, as a share of it."""
HELD_DEG = (5.0, 15.0)
"""By how much coordinates are held differently: standard deviations, even between these."""
Poses = Float[Tensor, "window frame coordinate"]


class Sequences(BaseModel):
    """What sequences are drawn from."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    least_noise: float = Field(0.0, ge=0, le=10)
    most_noise: float = Field(1.5, ge=0, le=10)
    """Size of all errors, even between these: 1 as measured (`smoothed_errors.toml`)."""
    clean_share: float = Field(0.15, ge=0, le=1)
    """Windows without any errors of keypoints."""
    performed_share: float = Field(0.5, ge=0, le=1)
    """Windows with a built-in movement; the others have motions that nobody performed."""
    held_share: float = Field(0.6, ge=0, le=1)
    """Of those with a built-in movement: the body is held differently all through, such as on toes."""
    performances: int = Field(40, ge=1)
    """How many times each built-in movement is done."""
    kept_performances: int = Field(8, ge=1)
    """As many more are done for validation only."""
    derived_share: float = Field(0.5, ge=0, le=1)
    """Windows whose neck and mid-hip are middles, as of pose models that have none; as many have
    estimated small toes."""
    estimated_height_share: float = Field(0.1, ge=0, le=1)
    """Windows of people whose height nobody stated."""


@dataclass(frozen=True)
class Sequence:
    """Windows of samples at `augmenter.RATE_HZ`; world Y up, m, the person near to +X's heading."""

    keypoints: Float[Tensor, "window frame 20 3"]
    """`VIDEO_KEYPOINTS`, with errors."""
    markers: Float[Tensor, "window frame 43 3"]
    """`MARKERS`, without."""
    height_m: Float[Tensor, "window"]
    """As it was stated or estimated."""
    mass_kg: Float[Tensor, "window"]

    def to(self, device: torch.device | str) -> "Sequence":
        """Move to a device."""
        return Sequence(*(getattr(self, each.name).to(device) for each in fields(self)))


def marked_skeleton(model: str) -> Skeleton:
    """Make the average person, with the augmenter's markers, of a packaged model; on the CPU."""
    known = generic_model(model)
    loaded = load_model(known.folder / known.model)
    add_markers(loaded, known.folder / known.markers)
    return read_skeleton(stripped_copy(loaded)[0]).float()


def draw_sequence(
    population: Sequences,
    skeleton: Skeleton,
    windows: int,
    frames: int,
    generator: torch.Generator,
    kept: bool = False,
) -> Sequence:
    """Draw examples on the skeleton's device and of its type; the generator must be on that device.

    `kept` takes the performances that are never trained on. The skeleton is `marked_skeleton`'s. The
    first draw takes seconds, since movements are performed.
    """
    draws = Draws(generator, skeleton.default.dtype)
    noise = draws.uniform(population.least_noise, population.most_noise, windows)
    noise = torch.where(draws.happens(population.clean_share, windows), 0.0, noise)
    crowd = draw_crowd(skeleton, windows, noise, draws)
    performances = _performances(skeleton, population, kept).to(skeleton.default)
    coordinates = _moving(skeleton, performances, population, windows, frames, draws)
    chosen = [JOINTS.index(name) for name in VIDEO_KEYPOINTS]
    true = keypoints(skeleton, crowd, coordinates)[:, :, chosen]
    number = [skeleton.markers.index(name) for name in MARKERS]
    markers = skeleton.marker_positions(coordinates, crowd.scale[:, None])[:, :, number]
    seen = true + draw_errors(noise, frames, draws)
    return Sequence(
        _derived(seen, population.derived_share, draws),
        markers,
        *_body(crowd.height_m, population.estimated_height_share, draws),
    )


@lru_cache(maxsize=4)
def _performances(skeleton: Skeleton, population: Sequences, kept: bool) -> Performances:
    """Always the same for a skeleton, and slow; the last of each motion are kept for validation."""
    count = population.performances
    everything = perform(skeleton, count + population.kept_performances)
    chosen = slice(count, None) if kept else slice(count)
    return Performances(
        everything.coordinates, everything.start[:, chosen], everything.count[:, chosen]
    )


def _body(height_m, estimated_share, draws: Draws) -> tuple[Tensor, Tensor]:
    """Heights, m, with errors, and masses, kg."""
    windows = len(height_m)
    mean, spread = BODY_MASS_INDEX
    mass_kg = (mean + spread * draws.normal(windows)) * height_m**2
    stated = height_m + STATED_HEIGHT_SPREAD_M * draws.normal(windows)
    estimated = height_m * (1 + ESTIMATED_HEIGHT_SPREAD * draws.normal(windows))
    return torch.where(draws.happens(estimated_share, windows), estimated, stated), mass_kg


def _moving(skeleton, performances, population, windows, frames, draws) -> Poses:
    """A motion for each window: a performance with unsteadiness, or one that nobody performed."""
    motion = draws.choice([1.0] * len(MOTIONS), windows)
    performed = draws.happens(population.performed_share, windows)[:, None, None]
    waves = _waves(skeleton, windows, frames, draws)
    unsteady = random_motion.unsteadiness(windows, draws)[:, None, None] * waves
    held_deg = draws.uniform(*HELD_DEG, windows, 1, 1)
    held_deg = torch.where(draws.happens(population.held_share, windows, 1, 1), held_deg, 0.0)
    held = torch.deg2rad(held_deg) * draws.normal(windows, 1, len(skeleton.coordinates))
    followed = _followed(performances, motion, frames, draws) + unsteady + held
    free = random_motion.free_poses(skeleton, windows, 1, draws, lambda: waves)
    return random_motion.in_one_place(torch.where(performed, followed, free), skeleton)


def _followed(performances: Performances, motion, frames: int, draws: Draws) -> Poses:
    """Samples of a random stretch of a random performance, faster or slower, larger or smaller."""
    windows = len(motion)
    which = draws.choice([1.0] * performances.start.shape[1], windows)
    start, count = performances.start[motion, which], performances.count[motion, which]
    pace = draws.uniform(0.7, 1.4, windows) * movements.RATE_HZ / RATE_HZ
    begin = draws.uniform(0, 1, windows) * (count - 1 - pace * (frames - 1)).clamp(min=0)
    at = begin[:, None] + pace[:, None] * torch.arange(frames, device=begin.device)
    at = torch.minimum(at, (count - 1)[:, None].to(at))  # who is done stands still
    before = torch.minimum(at.long(), (count - 2)[:, None])
    sample = start[:, None] + before
    here, later = performances.coordinates[sample], performances.coordinates[sample + 1]
    size = draws.uniform(0.8, 1.1, windows)[:, None, None]
    return size * (here + (at - before)[..., None] * (later - here))


def _waves(skeleton, windows: int, frames: int, draws: Draws) -> Poses:
    """Sums of sinusoids of variance 1 over the window's time."""
    shape = windows, 1, len(skeleton.coordinates), random_motion.WAVES
    fastest = draws.uniform(*FASTEST_HZ, windows, 1, 1, 1)
    slowest = random_motion.SLOWEST_HZ
    pace = 2 * math.pi * (slowest + (fastest - slowest) * draws.uniform(0, 1, *shape))
    phase = draws.uniform(0, 2 * math.pi, *shape)
    time_s = torch.arange(frames, device=pace.device)[:, None, None] / RATE_HZ
    return math.sqrt(2 / random_motion.WAVES) * torch.sin(pace * time_s + phase).sum(-1)


def _derived(seen: Float[Tensor, "window frame 20 3"], share: float, draws: Draws):
    """Put middles and estimated small toes in the place of seen ones, each in a share of windows."""
    at = {name: index for index, name in enumerate(VIDEO_KEYPOINTS)}
    middles = seen.clone()
    for name, part in (("Neck", "Shoulder"), ("midHip", "Hip")):
        middles[:, :, at[name]] = (seen[:, :, at[f"R{part}"]] + seen[:, :, at[f"L{part}"]]) / 2
    seen = torch.where(draws.happens(share, len(seen), 1, 1, 1), middles, seen)
    estimated = seen.clone()
    for side in "RL":
        parts = [seen[:, :, at[f"{side}{part}"]] for part in ("Heel", "BigToe", "Ankle")]
        estimated[:, :, at[f"{side}SmallToe"]] = small_toe(*parts, side=side)
    return torch.where(draws.happens(share, len(seen), 1, 1, 1), estimated, seen)
