"""Validation: how far networks are off on a fixed suite of simulated people, as they will be used."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import nn

from models.context import segment_lengths
from models.losses import mean_distance_mm, uncertain_frames
from models.multiview import Views
from models.simulation.population import Examples, Population, draw
from models.skeleton import Skeleton
from models.training.steps import VALIDATED_ON, not_a_number, random_numbers

FRAMES = 8
"""Of a window."""
DRAWN, PLACED = range(2)
"""What random numbers are for: the examples, and where a person is taken to be at first."""


@dataclass(frozen=True)
class Entry:
    """A part of the suite: examples with so many views and errors of one size."""

    views: int
    noise: float
    seed: int

    def __str__(self) -> str:
        return f"{self.views} views, noise {self.noise:g}"


SUITE = tuple(
    Entry(views, noise, 3 * row + column)
    for row, views in enumerate((2, 3, 4, 8))
    for column, noise in enumerate((0.5, 1.0, 1.5))
)
"""The same for all methods and recipes. No training draws from its seeds."""


def draw_suite(population: Population, skeleton: Skeleton, windows: int) -> list[Examples]:
    """Draw the examples of `SUITE`. On the CPU, they are always the same."""
    return [
        draw(
            population.model_copy(
                update={"least_noise": entry.noise, "most_noise": entry.noise, "clean_share": 0.0}
            ),
            skeleton,
            windows,
            FRAMES,
            entry.views,
            random_numbers(skeleton.default.device, VALIDATED_ON, DRAWN, entry.seed),
        )
        for entry in SUITE
    ]


def validate(network: nn.Module, suite: Sequence[Examples]) -> dict[str, float]:
    """Mean per joint position error (MPJPE, mm) by entry of the suite, drawn on the network's device.

    Joints are estimated window by window as those of a trial, with the subject's segment lengths
    from a first estimate; counted are those that two views see. Raises PipelineError if an error is
    not a number.
    """
    scores = {}
    for entry, examples in zip(SUITE, suite, strict=True):
        device = examples.position.device
        generator = random_numbers(device, VALIDATED_ON, PLACED, entry.seed)
        errors = [_error_mm(network, window, generator) for window in _windows(examples)]
        scores[str(entry)] = sum(errors) / len(errors)
    if not all(map(math.isfinite, scores.values())):
        raise not_a_number(f"validation gave {scores}")
    return scores


@torch.no_grad()
def _error_mm(network: nn.Module, examples: Examples, generator: torch.Generator) -> float:
    views, frames = examples.views, uncertain_frames(examples.position, generator)
    several = views.seen.sum(2) > 1
    first = network.algebraic(views, frames)[0]
    estimate = network.estimate(views, frames, segment_lengths(first, several))
    counted = several & examples.known[:, None]
    return float(mean_distance_mm(estimate, frames.from_world(examples.position), counted))


def _windows(examples: Examples) -> Iterator[Examples]:
    """One by one: a cube for each frame and view takes much memory."""
    for index in range(len(examples.position)):
        one = slice(index, index + 1)
        views = Views(*(getattr(examples.views, each.name)[one] for each in fields(Views)))
        yield Examples(views, examples.position[one], examples.swapped[one], examples.known[one])
