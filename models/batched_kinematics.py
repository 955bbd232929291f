"""Inverse kinematics of many samples at once: what OpenSim's solver minimises, by Levenberg-Marquardt.

That is the weighted squared distances of markers from where the model has them, within the ranges
of clamped coordinates (Lu and O'Connor, J Biomech 32(2), 1999). Marquardt, J SIAM 11(2), 1963; bounds
as an active set: Kelley, Iterative methods for optimization, 1999, chapter 5.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.marker_jacobian import MarkerJacobian
from models.opensim_model import Motion, tracked_markers
from models.skeleton import Skeleton, read_skeleton

TOGETHER = 128
"""Samples in one batch: more outgrow a processor's cache, and take longer."""
EVERY = 16
"""Every so many samples are solved first; the others start between them."""
JUMP, ALIKE = 1.0, 0.01
"""rad between two of these: another solution that follows is then taken if its cost is so near."""
MOST_STEPS = 100
LONGEST_STEP, SMALL_STEP = 0.5, 3e-4
"""rad or m: no step is trusted further, and one so small is the last: it leaves about its square."""
NEGLIGIBLE, NEGLIGIBLE_M = 1e-9, 1e-6
"""A step that lessens the cost by no more than such a share, or by such distances, is not worth it."""
FIRST_DAMPING, LEAST_DAMPING = 1e-5, 1e-9
"""As shares of the normal equations' diagonal."""
HOLD = 1e-6
"""What keeps a coordinate that no marker tells of where it starts; of the weights' scale."""


def solve_inverse_kinematics_batched(
    model,
    ik_setup: Path,
    time_s: Float[np.ndarray, "time"],
    markers: dict[str, np.ndarray],
    progress,
    device: str,
) -> Motion:
    """Do what `opensim_model.solve_inverse_kinematics` does, for all samples together.

    Raises PipelineError if the model has joints or constraints that `read_skeleton` does not know.
    """
    tracked = tracked_markers(model, ik_setup, markers)
    weights = dict(zip(tracked.names, tracked.weight, strict=True))
    solver = Solver(read_skeleton(model), weights, device)
    target = torch.from_numpy(tracked.position[tracked.solvable]).to(device)
    coordinates = solver.solve(target, progress)
    distance = solver.distances(coordinates, target)
    index = pd.Index(time_s[tracked.solvable], name="time")
    angles = pd.DataFrame(coordinates.cpu().numpy(), index, list(solver.skeleton.coordinates))
    return Motion(angles, pd.DataFrame(distance.cpu().numpy(), index, tracked.names))


class Solver:
    """Inverse kinematics of one model and some of its markers, with their weights."""

    def __init__(self, skeleton: Skeleton, weights: dict[str, float], device: str):
        self.skeleton = skeleton.to(device)
        self.markers = MarkerJacobian(self.skeleton, list(weights)).to(device)
        self.weight = torch.tensor(list(weights.values()), dtype=torch.float64, device=device)
        self.free = self.markers.free
        self.lower = skeleton.lower.masked_fill(~skeleton.clamped, -torch.inf)[self.free]
        self.upper = skeleton.upper.masked_fill(~skeleton.clamped, torch.inf)[self.free]
        self.negligible = self.weight.sum() * NEGLIGIBLE_M**2
        self.cyclic = _cyclic(self.skeleton)
        self.heading, self.travel = _root(self.skeleton)

    def solve(
        self, target: Float[Tensor, "sample marker 3"], progress=lambda done, total: None
    ) -> Float[Tensor, "sample coordinate"]:
        """Return the coordinates, rad and m, that bring the markers nearest to targets, m.

        Targets that are NaN do not count. Samples follow one another in time, and each starts from
        what its neighbours found, so that angles go on beyond half a turn.
        """
        count = len(target)
        if not count:
            return target.new_empty(0, len(self.skeleton.coordinates))
        rough = torch.arange(0, count + EVERY - 1, EVERY, device=target.device).clamp(max=count - 1)
        solved = self._joined(
            self.improve(self._starts(target[rough]), target[rough]), target[rough]
        )
        starts = _between(rough, solved, torch.arange(count, device=target.device))
        found = []
        for part in torch.arange(count, device=target.device).split(TOGETHER):
            found.append(self.improve(starts[part], target[part]))
            progress(int(part[-1]) + 1, count)
        return self.skeleton.settled(torch.cat(found))

    def distances(
        self, coordinates: Float[Tensor, "sample coordinate"], target: Tensor
    ) -> Float[Tensor, "sample marker"]:
        """Return how far each marker is from its target, m."""
        return (self.markers(coordinates).position - target).norm(dim=-1)

    def improve(
        self, start: Float[Tensor, "sample coordinate"], target: Float[Tensor, "sample marker 3"]
    ) -> Float[Tensor, "sample coordinate"]:
        """Go down from a start, each sample until it moves no more; return where that is."""
        solution, running = start.clone(), torch.arange(len(start), device=start.device)
        here, damping = self._look(start, target), start.new_full((len(start),), FIRST_DAMPING)
        for _ in range(MOST_STEPS):
            step = self._step(here, damping)
            step = (
                step
                * ((here.gradient * step).sum(-1) > self.negligible + NEGLIGIBLE * here.cost)[
                    :, None
                ]
            )
            tried = here.coordinates.clone()
            tried[:, self.free] = (tried[:, self.free] + step).clamp(self.lower, self.upper)
            going = (tried - here.coordinates).abs().amax(-1) > SMALL_STEP
            solution[running] = torch.where(going[:, None], here.coordinates, tried)
            if not going.any():
                break
            here, damping, running = here.of(going), damping[going], running[going]
            there = self._look(tried[going], target[running])
            better = there.cost <= here.cost
            here = there.where(better, here)
            damping = torch.where(better, (damping / 10).clamp(min=LEAST_DAMPING), damping * 10)
        return solution

    def _look(self, coordinates: Tensor, target: Tensor) -> "_Place":
        """The cost, and the normal equations of what would lessen it."""
        moving = self.markers(coordinates)
        known = target.isfinite().all(-1)
        away = torch.where(known[..., None], target - moving.position, 0.0)
        weight = (self.weight * known)[..., None]
        pull = weight * away
        jacobian = (self.markers.jacobian(moving) * weight[:, None].sqrt()).flatten(-2)
        curvature = self.markers.curvature(moving, pull)
        gradient = (jacobian @ (weight.sqrt() * away).flatten(-2)[..., None])[..., 0]
        cost = (pull * away).sum((-2, -1))
        return _Place(coordinates, cost, jacobian @ jacobian.mT, curvature, gradient)

    def _step(self, here: "_Place", damping: Float[Tensor, "sample"]) -> Tensor:
        """A step of the free coordinates; those at a bound and pushed beyond it stay."""
        at, downhill = here.coordinates[:, self.free], here.gradient
        held = ((at <= self.lower) & (downhill < 0)) | ((at >= self.upper) & (downhill > 0))
        apart = ~held
        both = apart[:, None] & apart[..., None]
        size = here.normal.diagonal(dim1=-2, dim2=-1)
        hold = torch.diag_embed(damping[:, None] * size + HOLD * self.weight.sum() + held)
        factor, failed = torch.linalg.cholesky_ex((here.normal - here.curvature) * both + hold)
        if failed.any():  # far from a solution: without the curvature it always goes down
            factor[failed > 0] = torch.linalg.cholesky((here.normal * both + hold)[failed > 0])
        step = torch.cholesky_solve((downhill * apart)[..., None], factor)[..., 0]
        return step * (LONGEST_STEP / step.abs().amax(-1, keepdim=True)).clamp(max=1)

    def _starts(self, target: Float[Tensor, "sample marker 3"]) -> Tensor:
        """Poses to start from: of the sample with most markers, moved and turned as the others are."""
        known = (target.isfinite().all(-1) * self.weight).sum(-1)
        fullest = target[known.argmax()]
        pose = self.skeleton.default.clone()
        turned = [self._placed(pose, angle, fullest) for angle in torch.pi / 2 * torch.arange(4)]
        alike = fullest.expand(4, -1, -1)
        poses = self.improve(torch.stack(turned), alike)
        poses = self._near(poses, pose)
        cost, far = self._look(poses, alike).cost, (poses - pose).abs().amax(-1)
        pose = poses[torch.where(cost <= cost.min() * (1 + ALIKE), far, torch.inf).argmin()]
        angle = _unwrapped(_turn(fullest, target, self.weight))
        angle = angle - angle[known.argmax()]
        return torch.stack([self._placed(pose, *each) for each in zip(angle, target, strict=True)])

    def _joined(self, solved: Tensor, target: Tensor) -> Tensor:
        """Solutions that go on from each other where they can: arms have more than one for a pose."""
        joined = [solved[0]]
        for pose, marker in zip(solved[1:], target[1:], strict=True):
            pose = self._near(pose, joined[-1])
            if (pose - joined[-1]).abs().amax() > JUMP:
                both = torch.stack([pose, self.improve(joined[-1][None], marker[None])[0]])
                cost = self._look(both, marker.expand(2, -1, -1)).cost
                pose = both[int(cost[1] <= cost[0] * (1 + ALIKE))]
            joined.append(pose)
        return torch.stack(joined)

    def _near(self, pose: Tensor, other: Tensor) -> Tensor:
        """The pose with full turns taken off where that brings it nearer to another."""
        turns = ((pose - other) / (2 * torch.pi)).round() * self.cyclic
        return pose - 2 * torch.pi * turns

    def _placed(self, pose: Tensor, angle: Tensor, target: Float[Tensor, "marker 3"]) -> Tensor:
        """A pose turned about the vertical, with its markers' centre moved to that of the targets."""
        known = target.isfinite().all(-1)
        pose = pose + angle * self.heading
        away = (target - self.markers(pose).position)[known].mean(0)
        return pose + self.travel @ away


class _Place(NamedTuple):
    """Poses of some samples, and what is seen there."""

    coordinates: Float[Tensor, "sample coordinate"]
    cost: Float[Tensor, "sample"]
    """m² times weights."""
    normal: Float[Tensor, "sample free free"]
    """Second derivatives of half the cost, but for ..."""
    curvature: Float[Tensor, "sample free free"]
    """... what the markers' curved paths take off them."""
    gradient: Float[Tensor, "sample free"]
    """Downhill."""

    def of(self, chosen: Bool[Tensor, "sample"]) -> "_Place":
        """These of the samples."""
        return _Place(*(each[chosen] for each in self))

    def where(self, chosen: Bool[Tensor, "sample"], other: "_Place") -> "_Place":
        """These of the samples, and the others of another place."""
        mixed = []
        for mine, others in zip(self, other, strict=True):
            flags = chosen.reshape(-1, *[1] * (mine.ndim - 1))
            mixed.append(torch.where(flags, mine, others))
        return _Place(*mixed)


def _cyclic(skeleton: Skeleton) -> Bool[Tensor, "coordinate"]:
    """Whether a coordinate means the same after a full turn, which its range has room for."""
    axis = torch.arange(len(skeleton.driven_by), device=skeleton.slope.device)
    turning = (axis % 6 < 3) & (skeleton.slope.abs() == 1) & (skeleton.source == skeleton.driven_by)
    cyclic = ~skeleton.clamped | (skeleton.upper - skeleton.lower > 4 * torch.pi)
    cyclic[skeleton.driven_by[(skeleton.driven_by >= 0) & ~turning]] = False
    return cyclic


def _root(skeleton: Skeleton) -> tuple[Float[Tensor, "coordinate"], Float[Tensor, "coordinate 3"]]:
    """How the joint on the ground turns and moves everything, if its coordinates do just that.

    Change of the coordinates per rad about the vertical, and per m along x, y and z.
    """
    axes = skeleton.frames_and_axes(skeleton.default).velocity[:6]
    driven_by = skeleton.driven_by[:6].tolist()
    heading = skeleton.default.new_zeros(len(skeleton.coordinates))
    travel = skeleton.default.new_zeros(len(skeleton.coordinates), 3)
    for index, (coordinate, axis) in enumerate(zip(driven_by, axes, strict=True)):
        if coordinate < 0 or skeleton.locked[coordinate]:
            continue
        if index < 3 and axis[1].abs() > 0.9:
            heading[coordinate] = axis[1].sign()
        elif index >= 3:
            travel[coordinate] = axis
    return heading, travel


def _turn(
    reference: Float[Tensor, "marker 3"],
    target: Float[Tensor, "sample marker 3"],
    weight: Float[Tensor, "marker"],
) -> Float[Tensor, "sample"]:
    """By how much markers are turned about the vertical, rad, from a reference: least squares."""
    known = (reference + target).isfinite().all(-1) * weight
    share = (known / known.sum(-1, keepdim=True))[..., None]

    def flat(points):  # z to x is the way that a positive angle about y turns
        points = torch.where(share > 0, points, 0.0)[..., [2, 0]]
        return points - (share * points).sum(-2, keepdim=True)

    before, now = flat(reference.expand_as(target)), flat(target)
    along = (share * before * now).sum((-2, -1))
    across = (share[..., 0] * (before[..., 0] * now[..., 1] - before[..., 1] * now[..., 0])).sum(-1)
    return torch.atan2(across, along)


def _unwrapped(angle: Float[Tensor, "sample"]) -> Float[Tensor, "sample"]:
    return torch.from_numpy(np.unwrap(angle.cpu().numpy())).to(angle)


def _between(
    at: Float[Tensor, "known"],
    values: Float[Tensor, "known value"],
    wanted: Float[Tensor, "sample"],
) -> Float[Tensor, "sample value"]:
    """Linear interpolation."""
    after = torch.searchsorted(at, wanted).clamp(1, max(len(at) - 1, 1)).clamp(max=len(at) - 1)
    before = (after - 1).clamp(min=0)
    share = (wanted - at[before]) / (at[after] - at[before]).clamp(min=1)
    return torch.lerp(values[before], values[after], share[:, None].to(values))
