"""Equations of a trial's motion: its likeliest coordinates, given the person, evidence and smoothness.

Where points are filtered first, each alone, a limb's length changes with the noise. Here the skeleton's
coordinates are what moves smoothly: their accelerations are Student's t, so that they may be quick
now and then. All samples are sought together by Gauss and Newton's method; neighbours in time
alone depend on each other, which makes the normal equations banded: what a Kalman smoother with
the skeleton as its state, relinearised until nothing changes, would give (Bell, SIAM J Optim 4(3), 1994).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.linalg import LinAlgError, solveh_banded
from torch import Tensor

from models.fitting.descent import Pace, descend
from models.fitting.pose_prior import LEAST_INFORMATION, PosePrior
from models.fitting.poses import Person
from models.fitting.priors import acceleration_scale, priors
from models.fitting.rows import Layout, Measured, compare, weigh

PACE = Pace(most_steps=30, first_damping=1e-4, least_damping=1e-8)
TOGETHER = 256
"""Samples whose derivatives are made at once."""
DIFFERENCE = (1.0, -2.0, 1.0)


@dataclass(frozen=True)
class _Look:
    """Cost of some coordinates, and the normal equations of each sample and of the smoothness."""

    cost: float
    normal: Float[Tensor, "sample free free"]
    downhill: Float[Tensor, "sample free"]
    smooth: Float[Tensor, "inner free"]
    """Information on each second difference."""


class MotionFit:
    """The equations of one trial's motion: a person, evidence at equal intervals, and priors."""

    def __init__(
        self,
        person: Person,
        layout: Layout,
        evidence: Measured,
        constant_m: Float[Tensor, "row"],
        noise: Float[Tensor, "kind"],
        interval_s: float,
    ):
        self.person, self.layout, self.evidence = person, layout, evidence
        self.constant_m, self.noise = constant_m, noise
        self.free = person.free
        self.poses = PosePrior(person.skeleton, self.free, interval_s)
        usual = acceleration_scale(person.skeleton.coordinates)
        self.scale = (usual * interval_s**2)[self.free]
        self.variance = layout.variance(interval_s, noise)

    def solve(
        self, coordinates: Float[Tensor, "sample coordinate"], progress=lambda done, total: None
    ) -> Float[Tensor, "sample coordinate"]:
        """Go down from some coordinates (rad, m) until nothing changes."""
        coordinates = self.person.settled(coordinates)
        position = self.person.points(coordinates).position
        self.evidence = self.evidence.seen_at(self.layout, position)
        coordinates = descend(coordinates, self._look, self._stepped, PACE, progress)
        progress(PACE.most_steps, PACE.most_steps)
        return coordinates

    def errors(
        self, coordinates: Float[Tensor, "sample coordinate"]
    ) -> tuple[Float[Tensor, "sample row"], Bool[Tensor, "sample row"]]:
        """What is left of each row, m, constant errors taken off; and which rows were measured."""
        position = self.person.points(coordinates).position
        compared = compare(self.evidence, self.layout, position)
        known = self.evidence.certainty > 0
        return torch.where(known, compared.residual - self.constant_m, 0.0), known

    def deviation(
        self, coordinates: Float[Tensor, "sample coordinate"]
    ) -> Float[Tensor, "sample coordinate"]:
        """Standard deviations given the evidence and smoothness, were the person known, rad and m.

        Of a normal distribution about the solution (Laplace's approximation). NaN for coordinates that
        points do not tell of.
        """
        here = self._look(coordinates)
        least = LEAST_INFORMATION * torch.eye(len(self.free), dtype=coordinates.dtype)
        spread = torch.full_like(coordinates, torch.nan)
        variance = marginal_variances((here.normal + least).numpy(), here.smooth.numpy())
        spread[:, self.free] = torch.from_numpy(variance).sqrt()
        return spread

    def _look(self, coordinates: Tensor) -> _Look:
        parts = [
            self._sample_equations(coordinates[chosen], self.evidence.of(chosen))
            for chosen in torch.arange(len(coordinates)).split(TOGETHER)
        ]
        cost, normal, downhill = (torch.cat(each) for each in zip(*parts, strict=True))
        bend = _second_differences(coordinates[:, self.free])
        freedom = priors()["acceleration"]["degrees_of_freedom"]
        square = (bend / self.scale) ** 2
        smooth = (freedom + 1) / (freedom + square) / self.scale**2
        downhill = downhill - _spread(smooth * bend)
        rough = (freedom + 1) / 2 * torch.log1p(square / freedom).sum()
        return _Look(float(cost.sum() + rough), normal, downhill, smooth)

    def _sample_equations(self, coordinates, evidence) -> tuple[Tensor, Tensor, Tensor]:
        posed = self.person.pose(coordinates)
        compared = compare(evidence, self.layout, posed.position)
        error = compared.residual - self.constant_m
        weighed = weigh(error, evidence, self.layout, self.variance, self.noise)
        along = posed.by_coordinate[:, :, self.layout.point]
        rows = torch.einsum("srx,scrx->scr", compared.direction, along)
        heavy = rows * weighed.weight[:, None]
        usual, pulled, assumed = self.poses(posed, coordinates)
        downhill = (heavy @ error[..., None])[..., 0] + pulled
        return weighed.cost + usual, heavy @ rows.mT + assumed, downhill

    def _stepped(self, coordinates: Tensor, here: _Look, damping: float) -> Tensor | None:
        """Coordinates after a step, those at limits held; None if the equations are not definite."""
        normal = self.poses.damped(here.normal, coordinates, here.downhill, damping)
        bands = _banded(normal.numpy(), here.smooth.numpy())
        try:
            step = solveh_banded(bands, here.downhill.flatten().numpy(), lower=True)
        except LinAlgError:
            return None
        return self.poses.moved(coordinates, torch.from_numpy(step).reshape(here.downhill.shape))


def _second_differences(values: Float[Tensor, "sample free"]) -> Float[Tensor, "inner free"]:
    return values[2:] - 2 * values[1:-1] + values[:-2]


def _spread(inner: Float[Tensor, "inner free"]) -> Float[Tensor, "sample free"]:
    """The transpose of `_second_differences`."""
    pad = torch.nn.functional.pad
    return sum(
        factor * pad(inner, (0, 0, late, 2 - late)) for late, factor in enumerate(DIFFERENCE)
    )


def _banded(
    normal: Float[np.ndarray, "sample free free"], smooth: Float[np.ndarray, "inner free"]
) -> Float[np.ndarray, "band unknown"]:
    """The lower bands, as `solveh_banded` has them, of all samples' equations together."""
    samples, free, _ = normal.shape
    bands = np.zeros((2 * free + 1, samples, free))
    for column in range(free):
        bands[: free - column, :, column] = normal[:, column:, column].T
    for earlier, first in enumerate(DIFFERENCE):
        for later in range(earlier, 3):
            reached = slice(earlier, samples - 2 + earlier)
            bands[(later - earlier) * free, reached] += first * DIFFERENCE[later] * smooth
    return bands.reshape(2 * free + 1, -1)


def marginal_variances(
    normal: Float[np.ndarray, "sample free free"], smooth: Float[np.ndarray, "inner free"]
) -> Float[np.ndarray, "sample free"]:
    """The diagonal of the inverse of all samples' equations together.

    Two samples a block make them block tridiagonal: a Kalman filter in information form forwards, and
    Rauch, Tung and Striebel's smoother of covariances backwards (AIAA J 3(8), 1965).
    """
    samples, free, _ = normal.shape
    diagonal, beyond = _blocks(normal, smooth)
    filtered = np.empty_like(diagonal)
    for block, here in enumerate(diagonal):
        before = beyond[block - 1].T @ filtered[block - 1] @ beyond[block - 1] if block else 0.0
        filtered[block] = np.linalg.inv(here - before)
    covariance = filtered.copy()
    for block in range(len(diagonal) - 2, -1, -1):
        gain = filtered[block] @ beyond[block]
        covariance[block] += gain @ covariance[block + 1] @ gain.T
    return np.einsum("bii->bi", covariance).reshape(-1, free)[:samples]


def _blocks(normal, smooth) -> tuple[np.ndarray, np.ndarray]:
    """The equations' blocks of two samples on the diagonal, and those beside it; the last may be padded."""
    samples, free, _ = normal.shape
    count = (samples + 1) // 2
    between = np.zeros(
        (3, 2 * count + 2, free)
    )  # of each sample with itself, the next, and the next but one
    for earlier, first in enumerate(DIFFERENCE):
        for later in range(earlier, 3):
            product = first * DIFFERENCE[later] * smooth
            between[later - earlier, earlier : samples - 2 + earlier] += product
    each = np.arange(free)
    diagonal = np.zeros((count, 2, free, 2, free))
    beyond = np.zeros((count, 2, free, 2, free))
    padded = np.concatenate([normal, np.tile(np.eye(free), (2 * count - samples, 1, 1))])
    for half in range(2):
        diagonal[:, half, :, half] = padded[half::2]
        diagonal[:, half, each, half, each] += between[0, half : 2 * count : 2]
        beyond[:, half, each, half, each] = between[2, half : 2 * count : 2]
    diagonal[:, 0, each, 1, each] = diagonal[:, 1, each, 0, each] = between[1, 0 : 2 * count : 2]
    beyond[:, 1, each, 0, each] = between[1, 1 : 2 * count : 2]
    shape = count, 2 * free, 2 * free
    return diagonal.reshape(shape), beyond.reshape(shape)[:-1]
