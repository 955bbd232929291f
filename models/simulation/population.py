"""Population: endless examples for training, drawn on the device from the simulator's parts.

A window is one person before one rig, with its calibration's errors, one size of all errors, one
pose model's keypoints, and frames at random moments of one motion. Nothing is read from files but
the tables of the simulator, and no two draws are the same.
"""

from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from models.multiview import JOINTS, Views
from models.simulation.crowd import draw_crowd, keypoints
from models.simulation.detections import clock_offsets_s, detect, look
from models.simulation.draws import Draws
from models.simulation.performances import MOMENT_S, Performances, perform
from models.simulation.random_motion import draw_motion, placed, turned
from models.simulation.rigs import draw_rigs, moved_world
from models.skeleton import Skeleton
from models.vocabulary import vocabulary

VOCABULARIES = ("blazepose-33", "halpe-26", "body-25", "coco-wholebody-133")
"""As likely as each other."""
OTHER_SLOPE, OTHER_SHIFT = (0.3, 1.2), (-3.0, 1.0)
"""Of other pose models' confidences, as logits; assumed."""
ORIGIN_SPREAD_M = 2.0
"""Standard deviation of where the person's place is in the world."""


class Population(BaseModel):
    """What examples are drawn from."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    least_noise: float = Field(0.0, ge=0, le=10)
    most_noise: float = Field(1.5, ge=0, le=10)
    """Size of all errors, even between these: 1 as measured or assumed (`detector.Errors`)."""
    clean_share: float = Field(0.1, ge=0, le=1)
    """Windows without any errors."""
    performed_share: float = Field(0.5, ge=0, le=1)
    """Windows with a built-in movement; the others have motions that nobody performed."""
    performances: int = Field(24, ge=1)
    """How many times each built-in movement is done."""
    front_share: float = Field(0.5, ge=0, le=1)
    """Rigs that stand as usual (`rig.directions_deg`); the others are anywhere around."""
    forced_swap_share: float = Field(0.2, ge=0, le=1)
    """Windows with errors in which one view has the legs' sides exchanged in some frames, whatever
    its direction."""
    other_confidence_share: float = Field(0.5, ge=0, le=1)
    """Windows whose pose model states confidences on another scale: pose models do not agree on it."""
    lost_share: float = Field(0.02, ge=0, le=1)
    """Of the images: the person is not found in them at all."""


@dataclass(frozen=True)
class Examples:
    """What views saw, and what was true; world Y up, m."""

    views: Views
    """With cameras as their calibration has them, with its errors."""
    position: Float[Tensor, "window frame joint 3"]
    """Where a detector without noise marks this person."""
    swapped: Bool[Tensor, "window frame view"]
    """Where a view has the legs' sides exchanged."""
    known: Bool[Tensor, "window joint"]
    """Which joints the window's pose model gives at all."""

    def to(self, device: torch.device | str) -> "Examples":
        """Move to a device."""
        return Examples(*(getattr(self, each.name).to(device) for each in fields(self)))


def draw(
    population: Population,
    skeleton: Skeleton,
    windows: int,
    frames: int,
    views: int,
    generator: torch.Generator,
) -> Examples:
    """Draw examples on the skeleton's device and of its type; the generator must be on that device.

    The skeleton is of an average person. The first draw takes seconds, since movements are performed.

    Raises PipelineError if the skeleton lacks bodies that keypoints are placed on.
    """
    draws = Draws(generator, skeleton.default.dtype)
    noise = draws.uniform(population.least_noise, population.most_noise, windows)
    noise = torch.where(draws.happens(population.clean_share, windows), 0.0, noise)
    crowd = draw_crowd(skeleton, windows, noise, draws)
    poses, performed, walks = draw_motion(
        skeleton,
        _performances(skeleton, population.performances).to(skeleton.default),
        population.performed_share,
        windows,
        frames,
        draws,
    )
    points = placed(keypoints(skeleton, crowd, poses), performed, walks, draws)
    position, velocity = points[:, :, 0], (points[:, :, 1] - points[:, :, 0]) / MOMENT_S
    rigs = draw_rigs(noise, views, population.front_share, draws)
    late_s = clock_offsets_s(noise, views, draws)
    seen = look(position, velocity, crowd.height_m, rigs, late_s)
    detections = detect(seen, rigs, noise, population.forced_swap_share, draws)
    known = _known(windows, draws)
    confidence = _on_other_scale(detections.confidence, population.other_confidence_share, draws)
    found = ~draws.happens(population.lost_share, windows, frames, views, 1)
    given = known[:, None, None] & found
    heading, origin = draws.uniform(-torch.pi, torch.pi, windows), draws.normal(windows, 3)
    origin = origin * origin.new_tensor([ORIGIN_SPREAD_M, 0.0, ORIGIN_SPREAD_M])
    return Examples(
        Views(
            torch.where(given[..., None], detections.image, 0.0),
            torch.where(given, confidence, 0.0),
            moved_world(rigs.calibrated_from_world, heading, origin),
        ),
        turned(position, heading) + origin[:, None, None],
        detections.swapped,
        known,
    )


@lru_cache(maxsize=4)
def _performances(skeleton: Skeleton, times: int) -> Performances:
    """Always the same for a skeleton, and slow."""
    return perform(skeleton, times)


def _on_other_scale(confidence, share: float, draws: Draws):
    """Stretch and shift the logits of the confidences, in a share of the windows."""
    shape = len(confidence), 1, 1, 1
    slope, shift = draws.uniform(*OTHER_SLOPE, *shape), draws.uniform(*OTHER_SHIFT, *shape)
    logit = torch.logit(confidence.clamp(1e-4, 1 - 1e-4))
    other = torch.where(confidence > 0, torch.sigmoid(slope * logit + shift), 0.0)
    return torch.where(draws.happens(share, *shape), other, confidence)


def _known(windows: int, draws: Draws) -> Bool[Tensor, "window joint"]:
    """Draw a vocabulary for each window."""
    names = [vocabulary(name).keypoints for name in VOCABULARIES]
    table = [[joint in each for joint in JOINTS] for each in names]
    which = draws.choice([1.0] * len(VOCABULARIES), windows)
    return torch.tensor(table, device=which.device)[which]
