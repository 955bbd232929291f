"""Inverse kinematics of many samples at once: what OpenSim's solver minimises, by Newton's method.

That is the weighted squared distances of markers from where the model has them, within the ranges
of clamped coordinates (Lu and O'Connor, J Biomech 32(2), 1999). Steps are damped as by Marquardt, J SIAM
11(2), 1963; bounds are an active set: Kelley, Iterative methods for optimization, 1999, chapter 5.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.opensim_model import Motion, tracked_markers
from models.rigid_markers import Place, RigidMarkers, Targets
from models.skeleton import Skeleton, read_skeleton

TOGETHER = 256
"""Samples in one batch: more outgrow a processor's cache, and take longer."""
EVERY, FILLED_IN = 16, (8, 4, 2, 1)
"""Every so many samples are solved first; the others start between them, in turns."""
JUMP, ALIKE = 1.0, 0.01
"""rad between two of these: another solution that follows is then taken if its cost is so near."""
FEW_STEPS, MOST_STEPS = 8, 100
"""From one start; where few do not do, a sample goes on together with those of the next turn."""
LONGEST_STEP, SMALL_STEP = 0.5, 3e-4
"""rad or m: no step is trusted further, and one so small is the last: it leaves about its square."""
NEGLIGIBLE, NEGLIGIBLE_M = 1e-9, 1e-6
"""A longer one that lessens the cost by no more than such a share, or such distances, is not worth it."""
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


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch from sharing small operations among threads, which would wait more than work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Solver:
    """Inverse kinematics of one model and some of its markers, with their weights."""

    def __init__(self, skeleton: Skeleton, weights: dict[str, float], device: str):
        self.skeleton = skeleton.to(device)
        self.markers = RigidMarkers(self.skeleton, list(weights))
        self.weight = torch.tensor(list(weights.values()), dtype=torch.float64, device=device)
        self.free = self.markers.free
        self.lower, self.upper = (limit[self.free] for limit in self.skeleton.limits())
        self.negligible = self.weight.sum() * NEGLIGIBLE_M**2
        self.cyclic = _cyclic(self.skeleton)
        self.heading, self.travel = _root(self.skeleton)

    @one_thread()
    def solve(
        self, target: Float[Tensor, "sample marker 3"], progress=lambda done, total: None
    ) -> Float[Tensor, "sample coordinate"]:
        """Return the coordinates, rad and m, that bring the markers nearest to targets, m.

        Targets that are NaN do not count. Samples follow one another in time, and each starts from
        what its neighbours found, so that angles go on beyond half a turn: first every 16th, then
        those halfway between them, and so on.
        """
        count = len(target)
        if not count:
            return target.new_empty(0, len(self.skeleton.coordinates))
        sample = torch.arange(count, device=target.device)
        found = target.new_empty(count, len(self.skeleton.coordinates))
        finished = torch.zeros_like(sample, dtype=torch.bool)
        known = torch.cat([sample[:-1:EVERY], sample[-1:]])
        rough, _ = self.improve(self._starts(target[known]), target[known], FEW_STEPS)
        found[known] = self._joined(rough, target[known])
        passes = [(every, FEW_STEPS) for every in FILLED_IN] + [(1, MOST_STEPS)]
        for every, steps in passes:
            due = sample[(sample % every == 0) & ~finished]
            starts = _between(known, found[known], due)
            for part, start in zip(due.split(TOGETHER), starts.split(TOGETHER), strict=True):
                found[part], finished[part] = self.improve(start, target[part], steps)
                progress(int(finished.sum()), count)
            known = torch.cat([known, due]).unique()
        return self.skeleton.settled(found)

    @one_thread()
    def distances(
        self, coordinates: Float[Tensor, "sample coordinate"], target: Tensor
    ) -> Float[Tensor, "sample marker"]:
        """Return how far each marker is from its target, m."""
        return (self.markers.positions(coordinates) - target).norm(dim=-1)

    def _cost(self, coordinates: Tensor, target: Tensor) -> Float[Tensor, "sample"]:
        return (self.distances(coordinates, target) ** 2).nan_to_num() @ self.weight

    def improve(
        self,
        start: Float[Tensor, "sample coordinate"],
        target: Float[Tensor, "sample marker 3"],
        steps: int,
    ) -> tuple[Float[Tensor, "sample coordinate"], Bool[Tensor, "sample"]]:
        """Go down from a start, each sample until it moves no more, for so many steps at most.

        Return where that is, and whether it moves no more.
        """
        targets = self.markers.targets(target, self.weight)
        solution, running = start.clone(), torch.arange(len(start), device=start.device)
        here = self.markers.look(start, targets)
        damping = start.new_full((len(start),), FIRST_DAMPING)
        for _ in range(steps):
            tried = here.coordinates.clone()
            step = self._step(here, targets, damping)
            tried[:, self.free] = (tried[:, self.free] + step).clamp(self.lower, self.upper)
            going = (tried - here.coordinates).abs().amax(-1) > SMALL_STEP
            solution[running] = torch.where(going[:, None], here.coordinates, tried)
            going = going.nonzero()[:, 0]
            running = running[going]
            if not len(running):
                break
            here, targets, damping = here.of(going), targets.of(going), damping[going]
            there = self.markers.look(tried[going], targets)
            better = there.cost <= here.cost
            here = there.where(better, here)
            damping = torch.where(better, (damping / 10).clamp(min=LEAST_DAMPING), damping * 10)
        else:
            solution[running] = here.coordinates
        finished = torch.ones_like(start[:, 0], dtype=torch.bool)
        finished[running] = False
        return solution, finished

    def _step(self, here: Place, targets: Targets, damping: Float[Tensor, "sample"]) -> Tensor:
        """A step of the free coordinates, 0 if not worth it; those at a bound stay there."""
        downhill, curved = self.markers.derivatives(here, targets)
        at = here.coordinates[:, self.free]
        held = ((at <= self.lower) & (downhill < 0)) | ((at >= self.upper) & (downhill > 0))
        apart = ~held
        size = curved.diagonal(dim1=-2, dim2=-1).abs()
        hold = damping[:, None] * size + HOLD * self.weight.sum() + held
        factor, failed = torch.linalg.cholesky_ex(_system(curved, apart, hold))
        bad = failed > 0
        if bad.any():  # far from a solution: without the curvature it always goes down
            squares = self.markers.squares(here.of(bad), targets.of(bad))
            factor[bad] = torch.linalg.cholesky(_system(squares, apart[bad], hold[bad]))
        downhill = downhill * apart
        step = torch.cholesky_solve(downhill[..., None], factor)[..., 0]
        step = step * (LONGEST_STEP / step.abs().amax(-1, keepdim=True)).clamp(max=1)
        gain = (downhill * step).sum(-1, keepdim=True)
        worth = gain > self.negligible + NEGLIGIBLE * here.cost[:, None]
        return step * (worth | (step.abs().amax(-1, keepdim=True) <= SMALL_STEP))

    def _starts(self, target: Float[Tensor, "sample marker 3"]) -> Tensor:
        """Poses to start from: of the sample with most markers, moved and turned as the others are."""
        known = (target.isfinite().all(-1) * self.weight).sum(-1)
        fullest = target[known.argmax()]
        pose = self.skeleton.default
        alike = fullest.expand(4, -1, -1)
        quarters = torch.pi / 2 * torch.arange(4, device=target.device)
        poses, _ = self.improve(self._placed(pose, quarters, alike), alike, MOST_STEPS)
        poses = self._near(poses, pose)
        cost, far = self._cost(poses, alike), (poses - pose).abs().amax(-1)
        pose = poses[torch.where(cost <= cost.min() * (1 + ALIKE), far, torch.inf).argmin()]
        angle = _unwrapped(_turn(fullest, target, self.weight))
        angle = angle - angle[known.argmax()]
        return self._placed(pose, angle, target)

    def _joined(self, solved: Tensor, target: Tensor) -> Tensor:
        """Solutions that go on from each other where they can: arms have more than one for a pose."""
        before, after, target = solved[:-1], solved[1:], target[1:]
        far = (self._apart(after, before)).nonzero()[:, 0]
        ahead = self._following(before[far], after[far], target[far])
        ahead = dict(zip(far.tolist(), ahead, strict=True))
        joined, changed = [solved[0]], False
        for index, pose in enumerate(after):
            last, other = joined[-1], pose
            if self._apart(pose, last):
                other = ahead.get(index)
                if changed or other is None:
                    other = self._following(last[None], pose[None], target[index, None])[0]
            changed = not torch.equal(other, pose)
            joined.append(self._near(other, last))
        return torch.stack(joined)

    def _apart(self, pose: Tensor, other: Tensor) -> Bool[Tensor, "*sample"]:
        return (self._near(pose, other) - other).abs().amax(-1) > JUMP

    def _following(self, last: Tensor, pose: Tensor, target: Tensor) -> Tensor:
        """Solutions that follow last ones; the poses given instead if those cost clearly less."""
        other, _ = self.improve(last, target, FEW_STEPS)
        alike = self._cost(other, target) <= self._cost(pose, target) * (1 + ALIKE)
        return torch.where(alike[:, None], other, pose)

    def _near(self, pose: Tensor, other: Tensor) -> Tensor:
        """The pose with full turns taken off where that brings it nearer to another."""
        turns = ((pose - other) / (2 * torch.pi)).round() * self.cyclic
        return pose - 2 * torch.pi * turns

    def _placed(
        self,
        pose: Float[Tensor, "coordinate"],
        angle: Float[Tensor, "sample"],
        target: Float[Tensor, "sample marker 3"],
    ) -> Float[Tensor, "sample coordinate"]:
        """A pose turned about the vertical, with its markers' centre moved to that of the targets."""
        turned = pose + angle[:, None] * self.heading
        away = (target - self.markers.positions(turned)).nanmean(-2)
        return turned + away @ self.travel.mT


def _system(
    matrix: Float[Tensor, "sample free free"],
    apart: Bool[Tensor, "sample free"],
    hold: Float[Tensor, "sample free"],
) -> Float[Tensor, "sample free free"]:
    """Leave only what may move in a matrix, in place, and add what holds each to its diagonal."""
    matrix *= apart[:, None] & apart[..., None]
    matrix.diagonal(dim1=-2, dim2=-1).add_(hold)
    return matrix


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
