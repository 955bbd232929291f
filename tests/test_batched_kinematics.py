"""Batched inverse kinematics, judged by known poses, by autograd and by OpenSim's solver."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_skeleton import OPENCAP, load, random_poses

from models.augmenter import MARKERS
from models.batched_kinematics import Solver, solve_inverse_kinematics_batched
from models.marker_jacobian import MarkerJacobian
from models.opensim_model import generic_model, marker_weights, solve_inverse_kinematics
from models.rigid_markers import RigidMarkers
from stages.trial import no_progress

LEGS = [f"{name}_{side}" for name in ("hip_flexion", "knee_angle", "ankle_angle") for side in "rl"]


def setup_of(name: str) -> Path:
    if name == "lai-uhlrich-2022":
        return OPENCAP / "Setup_IK.xml"
    return generic_model(name).folder / generic_model(name).ik_setup


def solver_of(name: str) -> Solver:
    _, skeleton = load(name)
    return Solver(skeleton, marker_weights(setup_of(name), set(MARKERS)), "cpu")


def a_walk(skeleton, samples: int, turn_rad: float) -> torch.Tensor:
    """Smooth coordinates of legs and arms that swing while the person turns and goes forward."""
    time = torch.linspace(0, 2 * np.pi, samples, dtype=torch.float64)
    pose = skeleton.default.repeat(samples, 1)

    def put(name, values):
        pose[:, skeleton.coordinates.index(name)] = values

    for side, sign in (("r", 1), ("l", -1)):
        put(f"hip_flexion_{side}", 0.4 * sign * time.sin() + 0.1)
        put(f"knee_angle_{side}", 0.5 + 0.4 * sign * time.cos())
        put(f"ankle_angle_{side}", 0.2 * sign * time.sin())
        put(f"arm_flex_{side}", -0.4 * sign * time.sin())
        put(f"arm_add_{side}", -0.4 + 0.0 * time)  # straight down, two of its angles are one
        put(f"elbow_flex_{side}", 0.6 + 0.2 * time.cos())
        put(f"pro_sup_{side}", 0.4 + 0.2 * time.sin())
    put("pelvis_rotation", turn_rad * time / (2 * np.pi))
    put("pelvis_tilt", -0.1 + 0.05 * time.sin())
    put("pelvis_tx", 3 * time)
    return pose


@pytest.mark.parametrize("name", ["zoo", "pose2sim-muscles", "pose2sim"])
def test_the_jacobian_is_autograds(name):
    _, skeleton = load(name)
    look = MarkerJacobian(skeleton, skeleton.markers)
    poses = random_poses(skeleton, 3)
    moving = look(poses)
    torch.testing.assert_close(moving.position, skeleton.marker_positions(poses))
    by_autograd = torch.stack([
        torch.autograd.functional.jacobian(skeleton.marker_positions, pose) for pose in poses
    ])  # fmt: skip
    expected = by_autograd.permute(0, 3, 1, 2)[:, look.free]
    torch.testing.assert_close(look.jacobian(moving), expected, atol=1e-12, rtol=0)
    left = np.setdiff1d(range(len(skeleton.coordinates)), look.free)
    still = skeleton.locked | skeleton.coupled
    assert all(still[i] or not by_autograd[..., i].any() for i in left)


def fit_of(name: str):
    """A skeleton, poses (3), targets near all markers, some missing, and weights."""
    _, skeleton = load(name)
    poses, random = random_poses(skeleton, 3), torch.Generator().manual_seed(1)
    position = skeleton.marker_positions(poses)
    target = position + 0.1 * torch.randn(position.shape, generator=random, dtype=torch.float64)
    target[1, ::5] = torch.nan
    weight = torch.rand(position.shape[1], generator=random, dtype=torch.float64)
    return skeleton, poses, target, weight


def half_cost(skeleton, target, weight):
    known = target.isfinite().all(-1)

    def cost(pose):
        apart = (skeleton.marker_positions(pose) - target)[known]
        return (weight[known] * (apart**2).sum(-1)).sum() / 2

    return cost


@pytest.mark.parametrize("name", ["pose2sim", "pose2sim-muscles", "zoo"])
def test_cost_gradient_and_squares_are_autograds(name):
    skeleton, poses, target, weight = fit_of(name)
    rigid = RigidMarkers(skeleton, skeleton.markers)
    targets = rigid.targets(target, weight)
    place = rigid.look(poses, targets)
    downhill, _ = rigid.derivatives(place, targets)
    squares = rigid.squares(place, targets)
    for index, pose in enumerate(poses):
        cost = half_cost(skeleton, target[index], weight)
        uphill = torch.autograd.functional.jacobian(cost, pose)[rigid.free]
        jacobian = torch.autograd.functional.jacobian(skeleton.marker_positions, pose)
        jacobian = jacobian[..., rigid.free]
        known = weight * target[index].isfinite().all(-1)
        expected = torch.einsum("mia, m, mib -> ab", jacobian, known, jacobian)
        torch.testing.assert_close(place.cost[index] / 2, cost(pose))
        torch.testing.assert_close(downhill[index], -uphill, atol=1e-11, rtol=0)
        torch.testing.assert_close(squares[index], expected, atol=1e-11, rtol=0)


@pytest.mark.parametrize("away_m", [0, 1000])
def test_second_derivatives_are_autograds_but_for_curved_joints(away_m):
    skeleton, poses, target, weight = fit_of("pose2sim")
    rigid = RigidMarkers(skeleton, skeleton.markers)
    poses[:, skeleton.coordinates.index("pelvis_tx")] += away_m
    target[..., 0] += away_m
    targets = rigid.targets(target, weight)
    _, found = rigid.derivatives(rigid.look(poses, targets), targets)
    straight = [i for i, c in enumerate(rigid.free) if "knee" not in skeleton.coordinates[c]]
    both = np.ix_(straight, straight)
    for index, pose in enumerate(poses):
        cost = half_cost(skeleton, target[index], weight)
        expected = torch.autograd.functional.hessian(cost, pose)[rigid.free][:, rigid.free]
        torch.testing.assert_close(found[index][both], expected[both], atol=1e-11, rtol=0)


def test_markers_that_are_missing_are_as_good_as_none():
    solver = solver_of("pose2sim")
    weights = marker_weights(setup_of("pose2sim"), set(MARKERS))
    fewer = dict(list(weights.items())[:-6])
    target = torch.from_numpy(noisy_markers(solver, 24))
    target = target[target.isfinite().all((1, 2))]
    some = Solver(solver.skeleton, fewer, "cpu").solve(target[:, :-6])
    target[:, -6:] = torch.nan
    torch.testing.assert_close(solver.solve(target), some, atol=1e-4, rtol=0)


def test_a_sample_that_needs_more_steps_is_told_and_goes_on_from_there():
    solver = solver_of("pose2sim")
    truth = a_walk(solver.skeleton, 5, 0.3)
    target = solver.markers.positions(truth)
    start = truth + 0.2
    once, finished = solver.improve(start, target, 1)
    assert not finished.any()
    assert (solver.distances(once, target) < solver.distances(start, target)).float().mean() > 0.9
    found, finished = solver.improve(once, target, 50)
    assert finished.all()
    assert solver.distances(found, target).max() < 1e-5


@pytest.mark.parametrize("name", ["pose2sim", "lai-uhlrich-2022"])
def test_markers_of_known_poses_give_the_poses_back_over_two_turns(name):
    solver = solver_of(name)
    truth = a_walk(solver.skeleton, 90, 4 * np.pi)
    found = solver.solve(solver.markers.positions(truth))
    seen = solver.free
    difference = (found - truth)[:, seen]
    difference -= 2 * np.pi * (difference[0] / (2 * np.pi)).round()  # where it started from
    assert difference.abs().max() < 1e-3
    assert solver.distances(found, solver.markers.positions(truth)).max() < 1e-4


def noisy_markers(solver: Solver, samples: int) -> np.ndarray:
    """Markers (time, 43, 3) misplaced by a centimetre, with noise, some of them missing."""
    truth = solver.markers.positions(a_walk(solver.skeleton, samples, 1.0)).numpy()
    random = np.random.default_rng(2)
    position = truth + random.normal(0, 0.01, (1, *truth.shape[1:]))
    position += random.normal(0, 0.005, truth.shape)
    position[3:9, 5] = np.nan
    position[12:15, 30:33] = np.nan
    position[10] = np.nan
    return position


@pytest.mark.parametrize("name", ["pose2sim", "lai-uhlrich-2022"])
def test_no_pose_of_opensims_solver_is_nearer_to_the_markers(name):
    model, _ = load(name)
    solver = solver_of(name)
    weights = marker_weights(setup_of(name), set(MARKERS))
    position = noisy_markers(solver, 24)
    markers = dict(zip(weights, np.moveaxis(position, 1, 0), strict=True))
    arguments = model, setup_of(name), np.arange(24) / 60, markers, no_progress
    ours = solve_inverse_kinematics_batched(*arguments, "cpu")
    theirs = solve_inverse_kinematics(*arguments)
    assert list(ours.angles) == list(theirs.angles)
    assert list(ours.angles.index) == list(theirs.angles.index) and len(ours.angles) == 23

    def cost(motion):
        return np.nan_to_num(motion.marker_error_m[list(weights)] ** 2) @ list(weights.values())

    assert (cost(ours) <= cost(theirs) * (1 + 1e-6)).all()
    difference = np.degrees(ours.angles - theirs.angles)[LEGS]
    assert np.sqrt((difference**2).mean()).max() < 0.3  # OpenSim's solver is no surer of itself


def test_clamped_coordinates_stay_in_their_range_and_the_rest_makes_the_best_of_it():
    solver = solver_of("pose2sim")
    knee = solver.skeleton.coordinates.index("knee_angle_r")
    truth = solver.skeleton.default.repeat(5, 1)
    truth[:, knee] = solver.skeleton.lower[knee] - 0.2
    target = solver.markers.positions(truth)
    found = solver.solve(target)
    assert (found[:, knee] - solver.skeleton.lower[knee]).abs().max() < 1e-9
    held = truth.clone()
    held[:, knee] = solver.skeleton.lower[knee]
    assert (solver.distances(found, target) ** 2 @ solver.weight < (
        solver.distances(held, target) ** 2 @ solver.weight
    )).all()  # fmt: skip


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**16))
def test_a_sample_has_the_same_pose_whoever_its_neighbours_are(samples, seed):
    solver = solver_of("pose2sim")
    random = torch.Generator().manual_seed(seed)
    target = solver.markers.positions(a_walk(solver.skeleton, 40, 0.5))[:samples]
    target = target + 0.01 * torch.randn(target.shape, generator=random, dtype=torch.float64)
    together = solver.solve(target)
    chosen = int(torch.randint(samples, (1,), generator=random))
    alone = solver.solve(target[chosen : chosen + 1])
    legs = [solver.skeleton.coordinates.index(name) for name in LEGS]
    torch.testing.assert_close(together[chosen][legs], alone[0][legs], atol=2e-4, rtol=0)


def test_a_locked_coordinate_of_the_root_stays_where_it_is():
    _, skeleton = load("pose2sim")
    solver = solver_of("pose2sim")
    target = solver.markers.positions(a_walk(solver.skeleton, 5, 0.3)) + torch.tensor([0, 0, 0.4])
    sideways = skeleton.coordinates.index("pelvis_tz")
    skeleton.locked[sideways] = True
    locked = solver_of("pose2sim").solve(target)
    skeleton.locked[sideways] = False
    assert (locked[:, sideways] == skeleton.default[sideways]).all()
    assert (solver.solve(target)[:, sideways] - 0.4).abs().max() < 1e-3


def test_no_samples_give_no_poses():
    solver = solver_of("pose2sim")
    empty = torch.empty(0, len(solver.weight), 3, dtype=torch.float64)
    assert solver.solve(empty).shape == (0, len(solver.skeleton.coordinates))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_finds_the_same_poses():
    solver = solver_of("pose2sim")
    target = torch.from_numpy(noisy_markers(solver, 24)).nan_to_num(0.5)
    here = solver.solve(target)
    _, skeleton = load("pose2sim")
    there = Solver(skeleton, marker_weights(setup_of("pose2sim"), set(MARKERS)), "cuda")
    torch.testing.assert_close(there.solve(target.cuda()).cpu(), here, atol=1e-4, rtol=0)
    skeleton.cpu()
