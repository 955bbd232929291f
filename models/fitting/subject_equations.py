"""Equations of the fit of a person: proportions, points on the body, constant errors, and poses.

The most likely parameters given all measurements and priors (maximum a posteriori), by Levenberg and
Marquardt's method. Poses of different samples depend on each other through the person alone, so that
they are eliminated sample by sample (Schur's complement, as in bundle adjustment: Triggs, McLauchlan,
Hartley and Fitzgibbon, Bundle adjustment: a modern synthesis, 2000, section 6).
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from models.fitting.descent import Pace, descend
from models.fitting.person import heights_m
from models.fitting.pose_prior import PosePrior
from models.fitting.poses import Person, Proportions, told_coordinates
from models.fitting.rows import BIAS, KINDS, NOISE, Layout, Measured, compare, weigh
from models.skeleton import Skeleton

ROUNDS, ROUND = 6, Pace(most_steps=6, first_damping=1e-3, least_damping=1e-7)
"""Sizes of errors are estimated anew after each round of steps."""
LONGEST_STEP = 0.5
"""rad or m: no coordinate goes farther in one step."""


@dataclass(frozen=True)
class Prior:
    """What is assumed of the parameters: each is of variance 1, times these."""

    proportions: Proportions
    point_m: Float[Tensor, "point"]
    """Standard deviation of each point's offset, along each axis."""
    height_m: tuple[float, float] | None
    """The person's height and its standard deviation, if known."""
    upright: Skeleton
    """The same skeleton with the points that stature is measured between."""


@dataclass(frozen=True)
class Estimate:
    """All that is sought, and the sizes of errors."""

    coordinates: Float[Tensor, "sample coordinate"]
    parameter: Float[Tensor, "parameter"]
    """Proportions, offsets of points (x, y, z of each), constant errors: each over its prior's
    standard deviation."""
    noise: Float[Tensor, "kind"]
    """Size of errors that change, by kind (`rows.KINDS`), 1 as the priors say."""
    bias: Float[Tensor, "kind"]
    """Of those that stay."""


@dataclass(frozen=True)
class _Look:
    """Cost at an estimate, and the normal equations of what would lessen it."""

    cost: float
    of_pose: Float[Tensor, "sample free free"]
    of_both: Float[Tensor, "sample free parameter"]
    of_parameter: Float[Tensor, "parameter parameter"]
    downhill_pose: Float[Tensor, "sample free"]
    downhill_parameter: Float[Tensor, "parameter"]
    squares: Float[Tensor, "row"]
    """Sums over samples of squared errors over their variance, outliers less."""
    data: Float[Tensor, "sample free free"]
    """The part of `of_pose` that is not prior."""
    rows: Float[Tensor, "row"]
    """In how many samples each was measured."""


class SubjectFit:
    """The fit's equations: a skeleton whose markers are the points, evidence, and priors."""

    def __init__(
        self,
        skeleton: Skeleton,
        prior: Prior,
        layout: Layout,
        evidence: Measured,
        interval_s: float,
    ):
        self.skeleton, self.prior = skeleton, prior
        self.layout, self.evidence, self.interval_s = layout, evidence, interval_s
        self.constants = len(layout.point) + layout.shared_columns().shape[1]
        self.free = told_coordinates(skeleton)
        self.poses = PosePrior(skeleton, self.free, interval_s)

    def knowing(self, height_m: tuple[float, float]) -> "SubjectFit":
        """The same with a height that is known, and its standard deviation."""
        prior = replace(self.prior, height_m=height_m)
        return SubjectFit(self.skeleton, prior, self.layout, self.evidence, self.interval_s)

    @property
    def parts(self) -> tuple[slice, slice, slice]:
        """Where proportions, offsets and constant errors are among the parameters."""
        first = len(self.prior.proportions.names)
        second = first + 3 * len(self.skeleton.markers)
        return slice(first), slice(first, second), slice(second, second + self.constants)

    def person(self, parameter: Float[Tensor, "parameter"]) -> Person:
        """The person of some parameters."""
        shape = parameter[: len(self.prior.proportions.names)]
        return Person(
            self.skeleton, self.prior.proportions, shape, self.offset_m(parameter), self.free
        )

    def offset_m(self, parameter: Float[Tensor, "parameter"]) -> Float[Tensor, "point 3"]:
        """How far points are from where people usually have them, along their bodies' axes, m."""
        offset = parameter[self.parts[1]].reshape(-1, 3)
        return offset * self.prior.point_m[:, None]

    def start(self, coordinates: Float[Tensor, "sample coordinate"]) -> Estimate:
        """The generic model's person in some poses."""
        usual = torch.ones(len(KINDS), dtype=torch.float64)
        average = self.person(coordinates.new_zeros(self.parts[-1].stop))
        coordinates = average.settled(coordinates)
        return Estimate(coordinates, coordinates.new_zeros(self.parts[-1].stop), usual, usual)

    def constant_of(self, estimate: Estimate) -> Float[Tensor, "row parameter"]:
        """How rows move with the parameters of constant errors."""
        layout, bias = self.layout, estimate.bias[self.layout.kind]
        return torch.cat([torch.diag(bias * layout.bias_m), layout.shared_columns()], 1)

    def solve(self, estimate: Estimate, progress=lambda done, total: None) -> Estimate:
        """Go down from an estimate until nothing changes, sizes of errors included."""
        for step in range(ROUNDS):
            estimate = descend(estimate, self.look, self._stepped, ROUND)
            progress(step + 1, ROUNDS)
            if step + 1 < ROUNDS:
                estimate = self._resized(estimate)
        return estimate

    def look(self, estimate: Estimate) -> _Look:
        """Cost and normal equations at an estimate."""
        person, layout = self.person(estimate.parameter), self.layout
        posed = person.pose_with_shape(estimate.coordinates)
        compared = compare(self.evidence, layout, posed.position)
        constant = self.constant_of(estimate)
        error = compared.residual - constant @ estimate.parameter[self.parts[-1]]
        variance = layout.variance(self.interval_s, estimate.noise)
        weighed = weigh(error, self.evidence, layout, variance, estimate.noise)
        by_pose, by_shape = self._row_derivatives(posed, compared.direction)
        weight = weighed.weight[..., None]
        heavy_pose, heavy_shape = weight * by_pose, weight * by_shape
        normal = by_pose.mT @ heavy_pose
        shape_rows = by_shape.flatten(0, 1)
        of_shape = shape_rows.mT @ heavy_shape.flatten(0, 1)
        cross = heavy_shape.sum(0).mT @ constant
        of_constant = constant.mT @ (weighed.weight.sum(0)[:, None] * constant)
        of_parameter = torch.cat(
            [torch.cat([of_shape, cross], 1), torch.cat([cross.mT, of_constant], 1)]
        )
        pull = weighed.weight * error
        downhill = torch.cat([shape_rows.mT @ pull.flatten(), constant.mT @ pull.sum(0)])
        tall, tall_slope = self._too_tall(person)
        usual, pulled, assumed = self.poses(posed, estimate.coordinates)
        cost = (weighed.cost + usual).sum()
        cost = cost + (estimate.parameter**2).sum() / 2 + tall**2 / 2
        downhill = downhill - estimate.parameter
        downhill[self.parts[0]] -= tall * tall_slope
        of_parameter.diagonal().add_(1.0)
        of_parameter[self.parts[0], self.parts[0]] += torch.outer(tall_slope, tall_slope)
        return _Look(
            float(cost),
            normal + assumed,
            torch.cat([by_pose.mT @ heavy_shape, heavy_pose.mT @ constant], -1),
            of_parameter,
            (by_pose.mT @ pull[..., None])[..., 0] + pulled,
            downhill,
            weighed.squares.sum(0),
            normal,
            (self.evidence.certainty > 0).double().sum(0),
        )

    def _row_derivatives(self, posed, direction) -> tuple[Tensor, Tensor]:
        """How rows move with coordinates, and with proportions and offsets."""
        point, samples, rows = self.layout.point, *direction.shape[:2]
        by_pose = torch.einsum("srx,scrx->src", direction, posed.by_coordinate[:, :, point])
        by_size = torch.einsum("srx,sprx->srp", direction, posed.by_proportion[:, :, point])
        turned = torch.einsum("srx,srxy->sry", direction, posed.by_offset[:, point])
        turned = turned * self.prior.point_m[point][:, None]
        count = len(self.skeleton.markers)
        by_offset = direction.new_zeros(samples, rows, count, 3)
        by_offset[:, torch.arange(rows), point] = turned
        return by_pose, torch.cat([by_size, by_offset.flatten(-2)], -1)

    def stature(self, estimate: Estimate) -> tuple[float, Float[Tensor, "parameter"]]:
        """How tall the person is, m, and how that changes with each of the proportions."""
        return self._stature(self.person(estimate.parameter))

    def _stature(self, person: Person) -> tuple[float, Float[Tensor, "parameter"]]:
        ways = person.scale * self.prior.proportions.log_scale
        whole = torch.cat([person.scale[None], torch.zeros_like(person.scale)[None], ways])
        heights = heights_m(self.prior.upright, whole)
        tall, nothing, *slopes = heights[:, heights[0].argmax()]
        return float(tall), torch.stack(slopes) - nothing

    def _too_tall(self, person: Person) -> tuple[float, Float[Tensor, "parameter"]]:
        """How much the person is too tall, over its standard deviation; 0 if nobody knows."""
        tall_m, slope = self._stature(person)
        if self.prior.height_m is None:
            return 0.0, 0 * slope
        wanted_m, spread_m = self.prior.height_m
        return (tall_m - wanted_m) / spread_m, slope / spread_m

    def _reduced(self, estimate: Estimate, here: _Look, damping: float = 0.0) -> "_Reduced":
        """The normal equations with poses eliminated; coordinates held at limits have none."""
        downhill = here.downhill_pose
        normal = self.poses.damped(here.of_pose, estimate.coordinates, downhill, damping)
        factor = torch.linalg.cholesky(normal)
        solved = torch.cholesky_solve(torch.cat([here.of_both, downhill[..., None]], -1), factor)
        by_parameter, alone = solved[..., :-1], solved[..., -1]
        flat = by_parameter.flatten(0, 1).mT @ here.of_both.flatten(0, 1)
        left = here.of_parameter - flat
        left = left + torch.diag(damping * here.of_parameter.diagonal())
        rest = here.downhill_parameter - (here.of_both.mT @ alone[..., None])[..., 0].sum(0)
        return _Reduced(factor, by_parameter, alone, left, rest)

    def _stepped(self, estimate: Estimate, here: _Look, damping: float) -> Estimate:
        reduced = self._reduced(estimate, here, damping)
        step = torch.linalg.solve(reduced.left, reduced.downhill)
        poses = reduced.alone - reduced.by_parameter @ step
        poses = poses * (LONGEST_STEP / poses.abs().amax(-1, keepdim=True)).clamp(max=1)
        coordinates = self.poses.moved(estimate.coordinates, poses)
        return replace(estimate, coordinates=coordinates, parameter=estimate.parameter + step)

    def _resized(self, estimate: Estimate) -> Estimate:
        """Estimate how large errors are: those that change by what is left over, as many numbers
        as were not used up for what was sought; those that stay by what was found and is open.
        """
        here = self.look(estimate)
        reduced = self._reduced(estimate, here)
        spent = torch.cholesky_solve(here.data, reduced.factor).diagonal(dim1=-2, dim2=-1).sum()
        unspent = max(1 - float(spent / here.rows.sum()), 0.1)
        first = self.parts[2].start
        own = slice(first, first + len(self.layout.point))
        size = estimate.parameter[own] ** 2 + torch.linalg.inv(reduced.left).diagonal()[own]
        noise, bias, parameter = (
            estimate.noise.clone(),
            estimate.bias.clone(),
            estimate.parameter.clone(),
        )
        for kind in range(len(KINDS)):
            rows = (self.layout.kind == kind) & (here.rows > 0)
            if not rows.any():
                continue
            left = here.squares[rows].sum() / (unspent * here.rows[rows].sum())
            noise[kind] = (noise[kind] * left.sqrt()).clamp(*NOISE[kind])
            bias[kind] = (bias[kind] * size[rows].mean().sqrt()).clamp(*BIAS[kind])
            parameter[own][rows] *= estimate.bias[kind] / bias[kind]
        return replace(estimate, parameter=parameter, noise=noise, bias=bias)

    def covariance(self, estimate: Estimate) -> Float[Tensor, "parameter parameter"]:
        """Covariance of the parameters given all evidence."""
        return torch.linalg.inv(self._at(estimate).left)

    def _at(self, estimate: Estimate) -> "_Reduced":
        return self._reduced(estimate, self.look(estimate))

    def deviations(self, estimate: Estimate) -> tuple[Tensor, Tensor]:
        """Standard deviations given all evidence: of the parameters, and of each sample's coordinates by
        what is not known of the person.

        Of a normal distribution about the estimate (Laplace's approximation). NaN for coordinates that
        points do not tell of.
        """
        reduced = self._at(estimate)
        covariance = torch.linalg.inv(reduced.left)
        shared = ((reduced.by_parameter @ covariance) * reduced.by_parameter).sum(-1)
        spread = torch.full_like(estimate.coordinates, torch.nan)
        spread[:, self.free] = shared.sqrt()
        return covariance.diagonal().sqrt(), spread


@dataclass(frozen=True)
class _Reduced:
    """Normal equations of the parameters alone."""

    factor: Float[Tensor, "sample free free"]
    """Cholesky's, of each pose's equations."""
    by_parameter: Float[Tensor, "sample free parameter"]
    """How poses give way to parameters, less their sign."""
    alone: Float[Tensor, "sample free"]
    """What poses would do if the parameters stayed."""
    left: Float[Tensor, "parameter parameter"]
    downhill: Float[Tensor, "parameter"]
