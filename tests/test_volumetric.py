"""Learned triangulation: layers against closed forms and OpenCV, symmetries, CPU against GPU."""

import math

import numpy as np
import pytest
import torch

from models.algebraic import Algebraic
from models.algebraic import Architecture as AlgebraicArchitecture
from models.context import SEGMENTS, joint_distances, segment_lengths
from models.evidence import grid, local, log_evidence, moments
from models.multiview import (
    JOINTS,
    MIRRORED,
    BodyFrames,
    Estimate,
    Views,
    body_frames,
    ray_equations,
    residuals,
    robust,
    solve,
)
from models.simulation.rig import place_cameras
from models.view_encoder import Trust, exchange
from models.volumetric import Architecture, Volumetric

SMALL = Architecture(
    channels=16, layers=2, context_channels=16, context_layers=2, voxels=16, volume_channels=8
)


def person(windows=2, frames=3, seed=0, dtype=torch.float64):
    """Random joints within a person's reach of a place in the world."""
    generator = torch.Generator().manual_seed(seed)
    joints = 0.4 * torch.randn(windows, frames, len(JOINTS), 3, generator=generator, dtype=dtype)
    return joints + torch.tensor([0.3, 1.0, -0.2], dtype=dtype)


def cameras(count, dtype=torch.float64):
    return place_cameras(count, np.array([0.3, 1.0, -0.2]), np.random.default_rng(1))


def seen_by(rig, joints, noise_m=0.0, seed=0):
    """What a rig sees of joints, in every window the same cameras."""
    generator = torch.Generator().manual_seed(seed)
    extrinsics = torch.from_numpy(np.stack([c.camera_from_world[:3] for c in rig])).to(joints)
    there = torch.einsum("vij,wtkj->wtvki", extrinsics[:, :, :3], joints)
    there = there + extrinsics[:, None, :, 3]
    noise = noise_m * torch.randn(there.shape, generator=generator, dtype=joints.dtype)
    image = (there + noise)[..., :2] / there[..., 2:]
    confidence = torch.full(image.shape[:-1], 0.9, dtype=joints.dtype)
    return Views(image, confidence, extrinsics.expand(len(joints), -1, -1, -1))


def frames_of(joints):
    right, left = JOINTS.index("RHip"), JOINTS.index("LHip")
    return body_frames(
        joints[:, :, [right, left]].mean(2), joints[:, :, right] - joints[:, :, left]
    )


def trusted(views, deviation_m=0.02):
    shape = views.confidence.shape
    precision = torch.where(views.seen, 1 / deviation_m**2, 0.0).to(views.image)
    zero = torch.zeros(shape, dtype=views.image.dtype)
    return Trust(precision, zero, zero + 1e-3, zero[..., None])


def equations_of(views, frames):
    return ray_equations(views.image, frames.cameras(views.camera_from_world))


class TestRays:
    def test_a_joint_lies_on_the_rays_of_the_cameras_that_see_it(self):
        joints = person()
        frames = frames_of(joints)
        beside = residuals(
            equations_of(seen_by(cameras(3), joints), frames), frames.from_world(joints)
        )
        assert beside.abs().max() < 1e-9

    def test_keypoints_that_opencv_projects_with_distortion_come_back(self):
        joints, rig = person(1, 4), cameras(3)
        image = np.stack([c.undistort(c.project(joints[0].numpy())) for c in rig], 1)
        views = seen_by(rig, joints)
        views = Views(torch.from_numpy(image)[None], views.confidence, views.camera_from_world)
        frames = frames_of(joints)
        found = frames.to_world(solve(equations_of(views, frames), trusted(views).precision))
        # The prior around the body's middle pulls by a few micrometres.
        assert (found.position - joints).norm(dim=-1).max() < 1e-4

    def test_the_covariance_is_that_of_repeated_measurements(self):
        joints = person(1, 1).expand(400, 1, -1, -1)
        views = seen_by(cameras(2), joints, noise_m=0.01)
        frames = frames_of(joints)
        found = solve(equations_of(views, frames), trusted(views, 0.01).precision)
        scatter = found.position.var(0).sum(-1)
        expected = found.covariance.mean(0).diagonal(dim1=-2, dim2=-1).sum(-1)
        assert torch.allclose(scatter, expected, rtol=0.3)

    def test_least_squares_passes_the_gradient_check(self):
        joints = person(1, 1)[:, :, :3]
        views = seen_by(cameras(3), person(1, 1))
        equations = ray_equations(
            views.image, frames_of(person(1, 1)).cameras(views.camera_from_world)
        )
        equations = equations[:, :, :, :3].clone().requires_grad_()
        precision = torch.full(equations.shape[:4], 900.0, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(lambda e, p: solve(e, p).position, (equations, precision))
        assert joints.shape == (1, 1, 3, 3)

    def test_one_wrong_view_of_four_hardly_moves_a_robust_point(self):
        joints = person()
        views = seen_by(cameras(4), joints)
        views.image[:, :, 1] += 0.1
        frames = frames_of(joints)
        weight = views.confidence
        found = robust(equations_of(views, frames), weight, rounds=20).position
        plain = solve(equations_of(views, frames), weight).position
        truth = frames.from_world(joints)
        assert (found - truth).norm(dim=-1).mean() < 0.2 * (plain - truth).norm(dim=-1).mean()


class TestEvidence:
    def test_a_single_gaussian_returns_its_centre_within_a_millimetre(self):
        unit = grid(16, torch.zeros(1, dtype=torch.float64))
        center, width = torch.tensor([0.07, -0.11, 0.05], dtype=torch.float64), 0.08
        log = -0.5 * ((unit - center) / width).square().sum(-1)
        found = moments(log, unit)
        assert (found.position - center).norm() * 1.0 < 1e-3
        expected = torch.eye(3, dtype=torch.float64) * (width**2 + 1 / 16**2 / 12)
        assert torch.allclose(found.covariance, expected, atol=1e-4)

    def test_soft_argmax_passes_the_gradient_check(self):
        unit = grid(4, torch.zeros(1, dtype=torch.float64))
        log = torch.randn(2, 64, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda each: moments(each, unit).position, (log,))

    def test_evidence_of_views_peaks_where_their_rays_meet(self):
        joints = person(1, 2)
        frames, views = frames_of(joints), seen_by(cameras(2), joints)
        truth, unit = frames.from_world(joints), grid(16, joints)
        side = torch.full_like(truth, 0.3)
        own, other = (
            local(each, truth + 0.01, side)
            for each in (equations_of(views, frames), exchange(equations_of(views, frames), 3))
        )
        log = log_evidence(own, trusted(views), unit, 16, other)
        found = truth + 0.01 + 0.3 * moments(log, unit).position
        assert (found - truth).norm(dim=-1).max() < 1e-3

    def test_volumes_of_their_own_and_a_shared_cube_agree(self):
        joints = person(1, 2)
        frames, views = frames_of(joints), seen_by(cameras(3), joints, noise_m=0.02)
        equations, unit = equations_of(views, frames), grid(8, joints)
        trust = trusted(views)
        trust = Trust(trust.precision, trust.precision * 0 + 0.3, trust.outlier, trust.token)
        side = joints.new_full((1, 1, 1, 3), 2.5)
        shared = local(equations, torch.zeros_like(side), side)
        together = log_evidence(shared, trust, unit, 8)
        alone = log_evidence(shared, trust, unit, 8, exchange(shared, 3))
        assert torch.allclose(together, alone)

    def test_a_keypoint_of_the_other_side_is_evidence_for_this_one(self):
        joints = person(1, 1)
        frames, views = frames_of(joints), seen_by(cameras(2), joints)
        swapped = Views(exchange(views.image, 3), views.confidence, views.camera_from_world)
        sure = trusted(views)
        told = Trust(sure.precision, torch.ones_like(sure.outlier), sure.outlier, sure.token)
        equations, unit = equations_of(swapped, frames), grid(10, joints)
        truth = frames.from_world(joints)
        side = torch.full_like(truth, 0.12)
        rays, partners = (local(e, truth, side) for e in (equations, exchange(equations, 3)))
        found = 0.12 * moments(log_evidence(rays, told, unit, 10, partners), unit).position
        assert found.norm(dim=-1).max() < 1e-3


class TestContext:
    def test_segment_lengths_are_those_of_the_body_however_it_turns(self):
        joints = person(1, 1).expand(1, 9, -1, -1)
        angle = torch.linspace(0, 3, 9, dtype=joints.dtype)
        turn = torch.zeros(9, 3, 3, dtype=joints.dtype)
        turn[:, 0, 0] = turn[:, 2, 2] = angle.cos()
        turn[:, 0, 2], turn[:, 2, 0], turn[:, 1, 1] = angle.sin(), -angle.sin(), 1.0
        turned = torch.einsum("tij,wtkj->wtki", turn, joints)
        certain = (1e-4 * torch.eye(3, dtype=joints.dtype)).expand(*turned.shape, 3)
        found = segment_lengths(Estimate(turned, certain), torch.ones(turned.shape[:3]).bool())
        true = joint_distances(joints)[:, 0]
        names = [tuple(JOINTS[i] for i in pair) for pair in SEGMENTS]
        right, left = names.index(("RHip", "RKnee")), names.index(("LHip", "LKnee"))
        middle = names.index(("LHip", "RHip"))
        assert torch.allclose(found[0, right], (true[0, right] + true[0, left]) / 2)
        assert torch.allclose(found[0, middle], true[0, middle])

    def test_a_segment_that_was_never_sure_has_no_length(self):
        joints = person(1, 5)
        certain = (1e-4 * torch.eye(3, dtype=joints.dtype)).expand(*joints.shape, 3)
        several = torch.ones(joints.shape[:3], dtype=torch.bool)
        several[..., JOINTS.index("RWrist")] = several[..., JOINTS.index("LWrist")] = False
        found = segment_lengths(Estimate(joints, certain), several)
        wrists = [any("Wrist" in JOINTS[i] for i in pair) for pair in SEGMENTS]
        assert torch.isnan(found[0]).tolist() == wrists


NETWORKS = pytest.mark.parametrize(
    "network", [Algebraic(AlgebraicArchitecture(channels=16, layers=2)), Volumetric(SMALL)],
    ids=["algebraic", "volumetric"],
)  # fmt: skip


def awake(network):
    """Random weights also where training starts from zero, so that every part has a say."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return network.double().eval()


def run(network, views, frames):
    length = torch.full((len(views.image), len(SEGMENTS)), 0.3, dtype=views.image.dtype)
    with torch.no_grad():
        return frames.to_world(network.estimate(views, frames, length))


@NETWORKS
class TestNetworks:
    def test_the_order_of_cameras_plays_no_part(self, network):
        joints = person()
        views, order = seen_by(cameras(4), joints, 0.02), [2, 0, 3, 1]
        shuffled = Views(
            views.image[:, :, order],
            views.confidence[:, :, order],
            views.camera_from_world[:, order],
        )
        network, frames = awake(network), frames_of(joints)
        expected, found = (run(network, each, frames) for each in (views, shuffled))
        assert torch.allclose(found.position, expected.position, atol=1e-9)

    def test_a_person_and_cameras_turned_together_give_the_turned_result(self, network):
        joints, angle = person(), math.radians(70)
        turn = torch.tensor(
            [
                [math.cos(angle), 0, math.sin(angle)],
                [0, 1, 0],
                [-math.sin(angle), 0, math.cos(angle)],
            ],
            dtype=joints.dtype,
        )
        shift = torch.tensor([2.0, 0.4, -1.0], dtype=joints.dtype)
        views = seen_by(cameras(2), joints, 0.02)
        extrinsics = views.camera_from_world.clone()
        extrinsics[..., :3] = extrinsics[..., :3] @ turn.T
        extrinsics[..., 3] -= extrinsics[..., :3] @ shift
        moved = joints @ turn.T + shift
        network = awake(network)
        expected = run(network, views, frames_of(joints))
        found = run(network, Views(views.image, views.confidence, extrinsics), frames_of(moved))
        assert torch.allclose(found.position, expected.position @ turn.T + shift, atol=1e-9)
        assert torch.allclose(found.covariance, turn @ expected.covariance @ turn.T, atol=1e-9)

    @pytest.mark.parametrize("count", [2, 3, 5, 8])
    def test_any_number_of_cameras_is_taken(self, network, count):
        joints = person()
        found = run(awake(network), seen_by(cameras(count), joints), frames_of(joints))
        assert torch.isfinite(found.position).all()
        assert (torch.linalg.eigvalsh(found.covariance) > 0).all()

    def test_joints_that_no_view_shows_do_not_disturb_the_rest(self, network):
        joints = person()
        views = seen_by(cameras(3), joints)
        views.confidence[..., JOINTS.index("Head")] = 0
        views.image[..., JOINTS.index("Head"), :] = 0
        found = run(awake(network), views, frames_of(joints))
        assert torch.isfinite(found.position).all()

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_gpu_and_cpu_agree_within_a_millimetre(self, network):
        joints = person(dtype=torch.float32)
        views, frames = seen_by(cameras(4), joints, 0.02), frames_of(joints)
        network = awake(network).float()
        expected = run(network, views, frames).position
        frames = BodyFrames(frames.rotation.cuda(), frames.origin.cuda())
        found = run(network.cuda(), views.to("cuda"), frames).position.cpu()
        assert (found - expected).norm(dim=-1).max() < 1e-3


def test_every_side_has_its_mirror_image():
    assert [JOINTS[i] for i in MIRRORED[:3]] == ["Nose", "REye", "LEye"]
    assert all(MIRRORED[MIRRORED[i]] == i for i in range(len(JOINTS)))
    assert JOINTS[MIRRORED[JOINTS.index("midHip")]] == "midHip"
