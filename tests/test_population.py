"""Training data drawn in torch, against the simulator in NumPy, OpenSim and OpenCV."""

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import logit
from scipy.stats import norm

from calibration import Camera
from models.multiview import JOINTS, MIRRORED, ray_equations, residuals
from models.opensim_model import body_poses, generic_model, load_model, stripped_copy
from models.simulation import detector
from models.simulation.capsules import hidden_joints
from models.simulation.crowd import draw_crowd, keypoints, measured, sized
from models.simulation.detections import Seen, burst_share, detect, look
from models.simulation.detector import Errors, bursts, view_bias
from models.simulation.draws import Draws
from models.simulation.landmarks import SOLE, SOLE_HEIGHT_M, keypoint_positions, segments, stacked
from models.simulation.motion import on_model
from models.simulation.movements import MOVEMENTS
from models.simulation.occlusion import hidden
from models.simulation.performances import FIRST_SEED, MOTIONS, WALKING, perform
from models.simulation.population import Population, draw
from models.simulation.random_motion import draw_motion, placed, usual_ranges
from models.simulation.rig import CENTER_ERROR_M, miscalibrated
from models.simulation.rig import looking_at as look_at
from models.simulation.rigs import Rigs, draw_rigs, looking_at
from models.simulation.scene import random_for
from models.simulation.subject import GROUPS, draw_person, scaled_to, stature_m
from models.skeleton import read_skeleton

FEW = Population(performances=2)
CLEAN = Population(performances=2, least_noise=0, most_noise=0, other_confidence_share=0)
LEGS = [index for index, name in enumerate(JOINTS) if name[1:] in detector.LEGS]


@pytest.fixture(scope="module")
def generic():
    known = generic_model("pose2sim")
    return stripped_copy(load_model(known.folder / known.model))[0]


@pytest.fixture(scope="module")
def skeleton(generic):
    return read_skeleton(generic)


@pytest.fixture(scope="module")
def performances(skeleton):
    return perform(skeleton, 2)


def draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), torch.float64)


def examples(skeleton, population, windows=12, frames=7, views=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return draw(population, skeleton, windows, frames, views, generator)


def still(value, *shape):
    return torch.full(shape, float(value), dtype=torch.float64)


# People and poses


def test_opencaps_model_does_as_well(shared):
    """It has no head, and coordinates of other names."""
    model = stripped_copy(load_model(shared / "opencap" / "LaiUhlrich2022.osim"))[0]
    own = read_skeleton(model)
    angles = np.random.default_rng(1).uniform(-0.2, 0.2, (4, len(own.coordinates)))
    crowd = measured(own, torch.ones(1, len(own.bodies), 3).double())
    found = keypoints(own, crowd, torch.from_numpy(angles)[None])[0]
    poses = body_poses(model, pd.DataFrame(angles, columns=list(own.coordinates)))
    np.testing.assert_allclose(found, stacked(keypoint_positions(poses), JOINTS), atol=1e-5)
    assert crowd.height_m.item() == pytest.approx(stature_m(model), abs=1e-6)
    clean = examples(own, CLEAN)
    assert clean.views.seen.double().mean() > 0.8 and clean.position.isfinite().all()


def test_a_person_in_a_pose_has_the_same_keypoints_as_on_opensims_scaled_model(generic, skeleton):
    random = np.random.default_rng(5)
    low, high = (bound.numpy() for bound in usual_ranges(skeleton))
    for seed in (1, 2):
        person, model = scaled_to(generic, draw_person(random_for(seed, "person")))
        angles = random.uniform(low, high, (6, len(low)))
        truth = keypoint_positions(
            body_poses(model, pd.DataFrame(angles, columns=list(skeleton.coordinates)))
        )
        factors = [[person.segment_factors[f"{group}_{side}"] for side in "rl"] for group in GROUPS]
        crowd = sized(skeleton, still(person.height_m, 1), torch.tensor([factors]).double())
        found = keypoints(skeleton, crowd, torch.from_numpy(angles)[None])[0]
        np.testing.assert_allclose(found, stacked(truth, JOINTS), atol=1e-5)


def test_people_are_drawn_as_the_subjects_of_simulated_sessions(generic, skeleton):
    people = [draw_person(random_for(seed, "person")) for seed in range(2000)]
    crowd = draw_crowd(skeleton, 2000, still(0, 2000), draws())
    height_m = np.array([person.height_m for person in people])
    assert crowd.height_m.mean() == pytest.approx(height_m.mean(), abs=0.006)
    assert crowd.height_m.std() == pytest.approx(height_m.std(), rel=0.06)
    legs = [crowd.scale[:, skeleton.bodies.index(f"femur_{side}"), 0] for side in "rl"]
    thighs = np.array([[p.segment_factors[f"thigh_{side}"] for side in "rl"] for p in people])
    differences = legs[0] / legs[1] - 1, thighs[:, 0] / thighs[:, 1] - 1
    assert differences[0].std() == pytest.approx(differences[1].std(), rel=0.08)
    pelvis = crowd.scale[:, skeleton.bodies.index("pelvis"), 0]
    of_pelvis = [p.segment_factors["thigh_r"] / p.segment_factors["pelvis_r"] for p in people]
    assert (legs[0] / pelvis).std() == pytest.approx(np.std(of_pelvis), rel=0.08)


def test_keypoints_are_marked_elsewhere_on_each_person_by_the_noise(skeleton):
    noise = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64).repeat_interleave(300)
    crowd = draw_crowd(skeleton, 900, noise, draws())
    plain = draw_crowd(skeleton, 900, 0 * noise, draws())
    moved = (crowd.location - plain.location).reshape(3, -1)
    spread = detector.parameters()["appearance"]["spread_m"]
    np.testing.assert_allclose(moved.std(1), [0, spread, 2 * spread], rtol=0.03)


@pytest.mark.parametrize("motion", ["squats", "sit-to-stand", "gait", "static"])
def test_performances_are_the_built_in_movements(generic, skeleton, performances, motion):
    """The feet kept apart as on OpenSim's model."""
    movement = MOVEMENTS[motion](random_for(FIRST_SEED + 1, motion))
    few = slice(None, None, 30)
    curves = {name: values[few] for name, values in movement.curves.items()}
    truth = on_model(replace(movement, curves=curves, time_s=movement.time_s[few]), generic)
    start = performances.start[MOTIONS.index(motion), 1]
    count = performances.count[MOTIONS.index(motion), 1]
    found = performances.coordinates[start : start + count][few]
    turning = [name for name in truth if not name.startswith("pelvis_t") or name == "pelvis_tilt"]
    column = [skeleton.coordinates.index(name) for name in turning]
    np.testing.assert_allclose(found[:, column], truth[turning], atol=np.radians(0.05))


def test_nothing_is_trained_on_drop_jumps():
    assert set(MOVEMENTS) - set(MOTIONS) == {"dropjump"}


def test_poses_stay_within_the_models_ranges_and_move(skeleton, performances):
    poses, performed, walks = draw_motion(skeleton, performances, 0.5, 60, 7, draws())
    assert (poses >= skeleton.lower).all() and (poses <= skeleton.upper).all()
    assert 0.3 < performed.double().mean() < 0.7
    assert (walks <= performed).all() and walks.any()
    knee = skeleton.coordinates.index("knee_angle_r")
    speed = (poses[:, :, 1, knee] - poses[:, :, 0, knee]).abs() * 100  # rad/s
    for windows in (performed, ~performed):
        assert 0.3 < speed[windows].quantile(0.9) < 8
    whole = poses[~performed][..., knee]
    assert whole.min() < np.radians(10) and whole.max() > np.radians(110)


def test_people_stand_on_the_floor_or_are_in_the_air(skeleton):
    up = examples(skeleton, CLEAN, windows=60).position[..., 1]
    lowest = up.amin(-1)
    on_floor = torch.isclose(lowest, still(SOLE_HEIGHT_M, 1), atol=1e-9)
    assert 0.8 < on_floor.double().mean() < 0.97
    assert lowest.min() > SOLE_HEIGHT_M - 1e-9 and 0.2 < lowest.max() < 0.45
    soles = [JOINTS.index(f"{side}{part}") for side in "RL" for part in SOLE]
    assert (up[..., soles].amin(-1) == lowest).double().mean() > 0.9


def test_walkers_go_forwards_as_fast_as_on_opensims_model(generic, skeleton, performances):
    angles = on_model(MOVEMENTS["gait"](random_for(FIRST_SEED, "gait")), generic)
    truth = angles["pelvis_tx"].diff().mean() * 100
    crowd = draw_crowd(skeleton, 40, still(0, 40), draws())
    motion = torch.full((40,), WALKING)
    poses = performances.draw(motion, 50, draws())
    walks = torch.ones(40, dtype=torch.bool)
    points = placed(keypoints(skeleton, crowd, poses), walks, walks, draws())
    velocity = (points[:, :, 1] - points[:, :, 0]) * 100
    hips = velocity[:, :, JOINTS.index("midHip")]
    assert hips.norm(dim=-1).median() == pytest.approx(truth, rel=0.2)
    nose, ears = JOINTS.index("Nose"), [JOINTS.index("LEar"), JOINTS.index("REar")]
    face = points[:, :, 0, nose] - points[:, :, 0, ears].mean(2)
    assert ((hips * face).sum(-1) > 0).double().mean() > 0.98
    gone = points[:, :, 0, JOINTS.index("midHip")]
    gone = (gone - gone.mean(1, keepdim=True))[..., [0, 2]]
    ahead = torch.nn.functional.normalize(face.mean(1, keepdim=True)[..., [0, 2]], dim=-1)
    along = (gone * ahead).sum(-1)
    assert along.std() == pytest.approx(1.8 / 3**0.5, rel=0.05)
    assert gone.square().sum(-1).mean().sqrt() == pytest.approx(along.std().item(), rel=0.05)
    soles = velocity[:, :, [JOINTS.index(f"{side}{part}") for side in "RL" for part in SOLE]]
    assert soles.norm(dim=-1).amin(-1).max() < 1e-9


# Cameras


def test_cameras_see_what_opencv_says(skeleton):
    rigs = draw_rigs(still(0, 5), 3, 0.5, draws())
    points, velocity, late_s = draws(1).normal(5, 7, 26, 3) / 3, draws(2).normal(5, 7, 26, 3), 0.004
    points[..., 1] += 1
    seen = look(points, velocity, still(1.7, 5), rigs, still(late_s, 5, 3))
    later = (points + late_s * velocity).numpy()
    for window in range(5):
        for view in range(3):
            pose = rigs.camera_from_world[window, view].numpy()
            truth, _ = cv2.projectPoints(
                later[window].reshape(-1, 1, 3), cv2.Rodrigues(pose[:, :3])[0], pose[:, 3], np.eye(3), None
            )  # fmt: skip
            found = seen.image[window, :, view].reshape(-1, 2)
            np.testing.assert_allclose(found, truth[:, 0], atol=1e-9)


def test_rigs_are_where_laboratories_put_them():
    rigs = draw_rigs(still(1, 300), 4, 0.5, draws())
    center = rigs.center
    away, height = center[..., [0, 2]].norm(dim=-1), center[..., 1]
    assert 2.5 <= away.min() < 2.6 and 6.9 < away.max() <= 7
    assert 0.5 <= height.min() < 0.6 and 2.4 < height.max() <= 2.5
    middle = looking_at(center, torch.tensor([0.0, 0.9, 0.0]).double().expand_as(center))
    for window, view in ((0, 1), (7, 3)):
        np.testing.assert_allclose(
            middle[window, view],
            look_at(center[window, view].numpy(), np.array([0, 0.9, 0])),
            atol=1e-12,
        )
    wide, high = rigs.half_size.unbind(-1)
    assert 0.2 < (high > wide).double().mean() < 0.4


@pytest.mark.parametrize("views", [2, 3, 4, 8])
def test_cameras_all_around_are_not_beside_each_other(views):
    center = draw_rigs(still(1, 400), views, 0.0, draws()).center
    bearing = torch.rad2deg(torch.atan2(center[..., 2], center[..., 0])).sort(-1).values
    gaps = torch.cat([bearing.diff(dim=-1), bearing[:, :1] + 360 - bearing[:, -1:]], -1)
    assert 20 - 1e-6 < gaps.min() < 21 and gaps.max() > 100
    assert bearing.min() < -170 and bearing.max() > 170


def test_calibrations_err_as_those_of_simulated_sessions():
    size, count = 2.0, 4000
    rigs, random = draw_rigs(still(size, count), 2, 1.0, draws()), np.random.default_rng(0)
    intrinsics = np.array([[1000.0, 0, 960], [0, 1000, 540], [0, 0, 1]])
    true = Camera("a", (1920, 1080), intrinsics, np.zeros(5), np.eye(4))
    wrong = [miscalibrated(true, size, random) for _ in range(count)]

    def turns(rotations):
        return np.stack([cv2.Rodrigues(each)[0][:, 0] for each in rotations])

    turned = rigs.calibrated_from_world[:, 0, :, :3] @ rigs.camera_from_world[:, 0, :, :3].mT
    spread = turns(turned.numpy()).std(), turns([w.camera_from_world[:3, :3] for w in wrong]).std()
    assert spread[0] == pytest.approx(spread[1], rel=0.05)
    calibrated = replace(rigs, camera_from_world=rigs.calibrated_from_world)
    moved = np.array([each.center for each in wrong])
    assert (calibrated.center - rigs.center).std() == pytest.approx(moved.std(), rel=0.05)
    focal = np.array([each.intrinsics[0, 0] / 1000 for each in wrong])
    assert rigs.calibrated_focal.std() == pytest.approx(focal.std(), rel=0.05)
    pixels = rigs.calibrated_middle / (2 * rigs.half_size[..., :1]) * 1920  # of landscape images
    middle = np.array([each.intrinsics[:2, 2] - [960, 540] for each in wrong])
    landscape = rigs.half_size[:, 0, 0] > rigs.half_size[:, 0, 1]
    assert pixels[landscape].std() == pytest.approx(middle.std(), rel=0.05)


# What the body hides


def test_the_body_hides_the_same_joints_as_in_simulated_sessions(skeleton):
    windows, frames, views = 8, 5, 3
    crowd = draw_crowd(skeleton, windows, still(1, windows), draws())
    low, high = usual_ranges(skeleton)
    poses = low + (high - low) * draws(3).uniform(0, 1, windows, frames, len(low))
    points = keypoints(skeleton, crowd, poses)
    center = 3 * torch.nn.functional.normalize(draws(4).normal(windows, views, 3), dim=-1)
    found = hidden_joints(points[:, :, None].expand(-1, -1, views, -1, -1), center, crowd.height_m)
    for window in range(windows):
        positions = dict(zip(JOINTS, points[window].movedim(1, 0).numpy(), strict=True))
        for view in range(views):
            truth = hidden(
                points[window].numpy(), positions, segments(),
                float(crowd.height_m[window]), center[window, view].numpy(),
            )  # fmt: skip
            np.testing.assert_array_equal(found[window, :, view], truth)
    assert 0.1 < found.double().mean() < 0.6


# What detectors err


@pytest.fixture(scope="module")
def walk_from_the_side(generic):
    """Three strides, a little fast, before one camera: true points, hidden joints, the camera."""
    angles = on_model(MOVEMENTS["gait"](random_for(3, "gait")), generic)[::2]
    positions = keypoint_positions(body_poses(generic, angles))
    extrinsics = np.eye(4)
    extrinsics[:3] = look_at(np.array([0.6, 1.2, 4.5]), np.array([0, 0.9, 0]))
    intrinsics = np.array([[1000.0, 0, 960], [0, 1000, 960], [0, 0, 1]])
    camera = Camera("side", (1921, 1921), intrinsics, np.zeros(5), extrinsics)
    points = stacked(positions, JOINTS)
    covered = hidden(points, positions, segments(), 1.7, camera.center)
    return points, covered, camera


RATE_HZ = 60.0
BEGUN = slice(40, None)
"""In the first frames of a simulated recording nothing lasts yet from before."""


def in_numpy(walk, errors, count):
    """Image coordinates and confidences of `detector.detect`, many times: draw, time, joint."""
    points, covered, camera = walk
    random, images, confidences = np.random.default_rng(0), [], []
    for _ in range(count):
        bias = view_bias(JOINTS, errors, random)
        pixels, confidence = detector.detect(
            points, JOINTS, covered, camera, RATE_HZ, errors, bias, random
        )
        images.append((pixels - camera.intrinsics[:2, 2]) / camera.intrinsics[0, 0])
        confidences.append(confidence)
    return np.stack(images)[:, BEGUN], np.stack(confidences)[:, BEGUN]


def in_torch(walk, noise, count):
    """The same by `detections.detect`, each window a draw."""
    points, covered, camera = walk
    points, velocity, covered = (
        values[BEGUN] for values in (points, np.gradient(points, 1 / RATE_HZ, axis=0), covered)
    )
    pose = torch.from_numpy(camera.camera_from_world[:3])
    there = torch.from_numpy(points) @ pose[:, :3].T + pose[:, 3]
    velocity = torch.from_numpy(velocity) @ pose[:, :3].T
    shape = count, len(points), 1, len(JOINTS)
    seen = Seen(
        there[None, :, None].expand(*shape, 3),
        velocity[None, :, None].expand(*shape, 3),
        torch.from_numpy(covered)[None, :, None].expand(shape),
    )
    poses, one = pose.expand(count, 1, 3, 4), still(1, count, 1)
    rigs = Rigs(poses, still(0.96, count, 1, 2), poses, one, still(0, count, 1, 2))
    return seen, detect(seen, rigs, still(noise, count), 0.0, draws(7))


@pytest.mark.parametrize("noise", [0.5, 1.0, 1.5])
def test_errors_misses_and_confidences_are_those_of_simulated_sessions(walk_from_the_side, noise):
    image, confidence = in_numpy(walk_from_the_side, Errors().scaled(noise), 120)
    seen, found = in_torch(walk_from_the_side, noise, 120)
    covered = seen.hidden[0, :, 0].numpy()
    truth, depth = seen.image[:1, :, 0].numpy(), seen.camera[:1, :, 0, :, 2].numpy()
    ours, sure = found.image[:, :, 0].numpy(), found.confidence[:, :, 0].numpy()
    ours[sure == 0] = np.nan
    for joints in (covered, ~covered):
        where = np.broadcast_to(joints, sure.shape)
        sizes = [
            np.sqrt(np.nanmean(((each - truth)[where] * depth.repeat(120, 0)[where][:, None]) ** 2))
            for each in (ours, image)
        ]
        assert sizes[0] == pytest.approx(sizes[1], rel=0.08)
        assert (sure[where] > 0).mean() == pytest.approx((confidence[where] > 0).mean(), abs=0.01)
        logits = [logit(np.clip(each[where & (each > 0)], 1e-9, 1 - 1e-9)) for each in (sure, confidence)]  # fmt: skip
        assert logits[0].mean() == pytest.approx(logits[1].mean(), abs=0.1)
        assert logits[0].std() == pytest.approx(logits[1].std(), rel=0.05)
    distance = [np.linalg.norm((each - truth) * depth[..., None], axis=-1) for each in (ours, image)]  # fmt: skip
    quantiles = [np.nanquantile(each, [0.25, 0.5, 0.75, 0.95]) for each in distance]
    np.testing.assert_allclose(*quantiles, rtol=0.06)


def test_fast_joints_blur_as_in_simulated_sessions(walk_from_the_side):
    """Shaken towards the camera, which sees them far from its axis, and up and down."""
    points, covered, camera = walk_from_the_side
    shaken = np.sin(2 * np.pi * 9 * np.arange(len(points)) / RATE_HZ)[:, None]
    points = points + np.array([2.5, 0, 0]) + shaken[..., None] * np.array([0, 0.05, 0.5])
    shaken = points, covered, camera
    image, _ = in_numpy(shaken, Errors(), 60)
    seen, found = in_torch(shaken, 1.0, 60)
    truth = seen.image[:1, :, 0].numpy()
    ours = np.where(found.confidence[:, :, 0, :, None] > 0, found.image[:, :, 0], np.nan)
    sizes = [np.nanquantile(np.abs(e - truth), [0.5, 0.8, 0.9], (0, 1, 2)) for e in (ours, image)]
    np.testing.assert_allclose(*sizes, rtol=0.08)
    assert sizes[0][2, 0] > 1.5 * sizes[0][2, 1]  # mostly aside


def before(camera, center):
    """The camera elsewhere, looking at the person's middle."""
    extrinsics = np.eye(4)
    extrinsics[:3] = look_at(np.array(center), np.array([0, 0.9, 0]))
    return replace(camera, camera_from_world=extrinsics)


def test_each_view_shifts_each_joint_by_a_bias_that_stays_and_errors_that_do_not(
    walk_from_the_side,
):
    """Of a person who stands before the camera, all in sight."""
    points, covered, camera = walk_from_the_side
    standing = points[:1].repeat(160, 0), 0 * covered > 0, before(camera, (4.5, 1.2, 0))
    seen, found = in_torch(standing, 1.0, 400)
    error_m = (found.image - seen.image) * seen.camera[..., 2:]
    error_m[found.confidence == 0] = torch.nan
    stays = error_m.nanmedian(1, keepdim=True).values
    moves = (error_m - stays).abs().movedim(3, 0).flatten(1).nanmedian(1).values
    bias, wander, jitter = (
        detector.by_keypoint(JOINTS, key) for key in ("bias_m", "wander_m", "jitter_m")
    )
    outliers = detector.parameters()["outliers"]
    usual = 1 - burst_share(still(outliers["starts_per_s"], 1), outliers["duration_s"]).item()
    half = norm.ppf(0.5 + 0.25 / usual)  # of the errors are smaller, almost no outliers among them
    np.testing.assert_allclose(stays.movedim(3, 0).flatten(1).std(1), bias, rtol=0.15)
    np.testing.assert_allclose(moves / half, np.hypot(wander, jitter), rtol=0.05)


@pytest.mark.parametrize("center", [(0.6, 1.2, 4.5), (2.2, 1.2, 3.9)], ids=["side", "oblique"])
def test_legs_are_exchanged_as_often_as_in_simulated_sessions(walk_from_the_side, center):
    points, covered, camera = walk_from_the_side
    camera = before(camera, center)
    walk = points, covered, camera
    image, _ = in_numpy(walk, Errors.only("swaps", 3.0), 250)
    pixels = camera.project(points)
    truth = ((pixels - camera.intrinsics[:2, 2]) / camera.intrinsics[0, 0])[BEGUN]
    exchanged = (np.abs(image - truth).max((-2, -1)) > 1e-6).mean()
    found = in_torch(walk, 3.0, 250)[1]
    assert found.swapped.double().mean() == pytest.approx(exchanged, rel=0.15)
    assert exchanged > 0.02


@pytest.mark.parametrize("starts_per_s, duration_s", [(0.3, 0.15), (4.6, 0.04), (0.9, 0.07)])
def test_bursts_last_in_the_share_of_frames_that_the_closed_form_says(starts_per_s, duration_s):
    lasting, _ = bursts((600, 2000), RATE_HZ, starts_per_s, duration_s, np.random.default_rng(0))
    share = burst_share(still(starts_per_s, 1), duration_s).item()
    assert lasting[100:].mean() == pytest.approx(share, rel=0.02)


# Examples


def test_without_noise_all_rays_pass_through_the_truth(skeleton):
    clean = examples(skeleton, CLEAN, views=4)
    views, truth = clean.views, clean.position
    rays = ray_equations(
        views.image, views.camera_from_world[:, None].expand(-1, truth.shape[1], -1, -1, -1)
    )
    assert residuals(rays, truth)[views.seen].abs().max() < 1e-9
    assert (views.confidence[views.seen] == 1).all() and not clean.swapped.any()
    away = truth[:, :, None] - truth.mean((1, 2))[:, None, None, None]
    assert away.norm(dim=-1).max() < 4


def test_the_same_generator_gives_the_same_examples_and_another_one_others(skeleton):
    one, same, other = (examples(skeleton, FEW, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.views.image, same.views.image)
    assert torch.equal(one.views.confidence, same.views.confidence)
    assert torch.equal(one.position, same.position) and torch.equal(one.swapped, same.swapped)
    assert ((one.position - other.position).norm(dim=-1) > 1e-6).all()


def test_where_a_view_is_swapped_it_shows_the_other_leg(skeleton):
    hardly = Population(
        performances=2, least_noise=1e-9, most_noise=1e-9, clean_share=0, forced_swap_share=1
    )
    drawn = examples(skeleton, hardly, windows=30, frames=40)
    views_swapped = drawn.swapped.any(1)
    assert (views_swapped.sum(1) == 1).all() and views_swapped.any(0).all()
    assert drawn.swapped.double().mean() == pytest.approx(0.5 / 3, abs=0.05)
    views, cameras = drawn.views, drawn.views.camera_from_world[:, None]
    there = torch.einsum("wtvij,wtnj->wtvni", cameras[..., :3], drawn.position)
    there = there + cameras[..., None, :, 3]
    truth = there[..., :2] / there[..., 2:]
    exchanged = truth[..., list(MIRRORED), :]
    legs = torch.tensor([index in LEGS for index in range(len(JOINTS))])
    expected = torch.where(drawn.swapped[..., None, None] & legs[:, None], exchanged, truth)
    np.testing.assert_allclose(views.image[views.seen], expected[views.seen], atol=1e-6)
    apart = (expected - truth).norm(dim=-1)[views.seen & drawn.swapped[..., None] & legs]
    assert (apart > 0.005).double().mean() > 0.9


def test_joints_that_a_pose_model_does_not_give_are_never_seen(skeleton):
    drawn = examples(skeleton, FEW, windows=200, frames=2)
    seen = drawn.views.seen.any(1).any(1)
    assert not seen[~drawn.known].any() and seen[drawn.known].double().mean() > 0.95
    counts = drawn.known.sum(1)
    for count, share in ((26, 1 / 4), (25, 1 / 4), (23, 1 / 4), (21, 1 / 4)):
        assert (counts == count).double().mean() == pytest.approx(share, abs=0.1)
    lacking = {name for name, always in zip(JOINTS, drawn.known.all(0), strict=True) if not always}
    assert lacking == {"Head", "Neck", "midHip", "LSmallToe", "RSmallToe"}
    assert (drawn.views.image[~drawn.views.seen] == 0).all()


def test_rigs_and_people_are_anywhere_and_face_anywhere_in_the_world(skeleton):
    drawn = examples(skeleton, FEW, windows=200, frames=2, views=2)
    across = drawn.position[:, 0, JOINTS.index("LHip")] - drawn.position[:, 0, JOINTS.index("RHip")]
    heading = torch.atan2(across[:, 0], across[:, 2])
    assert (torch.histc(heading, 4, -torch.pi, torch.pi) > 25).all()
    pose = drawn.views.camera_from_world
    center = -(pose[..., :3].mT @ pose[..., 3:])[..., 0]
    assert center[..., 1].min() > 0.4 and center[..., 1].max() < 2.6
    down = pose[..., 1, :3]
    assert (down[..., 1] < -0.5).all()  # images are upright
    place = drawn.position.mean((1, 2))
    assert place[:, [0, 2]].std() > 1.5
    assert (torch.linalg.det(pose[..., :3]) - 1).abs().max() < 1e-9


def test_cameras_are_those_of_the_calibration_with_its_errors(skeleton):
    sizes = [
        Population(performances=2, least_noise=noise, most_noise=noise, clean_share=0)
        for noise in (1e-9, 1)
    ]
    poses = [
        examples(skeleton, size, windows=300, frames=1).views.camera_from_world for size in sizes
    ]
    true, calibrated = (-(pose[..., :3].mT @ pose[..., 3:])[..., 0] for pose in poses)
    assert (calibrated - true).std() == pytest.approx(CENTER_ERROR_M, rel=0.06)


def test_some_windows_are_clean_and_the_others_are_not(skeleton):
    same_scale = Population(performances=2, other_confidence_share=0)
    views = examples(skeleton, same_scale, windows=600, frames=2, views=2).views
    clean = torch.where(views.seen, views.confidence, 1.0).amin((1, 2, 3)) == 1
    assert clean.double().mean() == pytest.approx(0.1, abs=0.035)


def test_some_pose_models_state_confidences_on_another_scale(skeleton):
    """On which what is surer is still surer."""
    one, other = (
        examples(skeleton, Population(performances=2, other_confidence_share=share), windows=200)
        for share in (0, 0.4)
    )
    assert torch.equal(one.views.image, other.views.image)
    assert torch.equal(one.views.seen, other.views.seen)
    pairs = zip(one.views.confidence, other.views.confidence, strict=True)
    changed = [pair for pair in pairs if not torch.equal(*pair)]
    assert len(changed) / 200 == pytest.approx(0.4, abs=0.1)
    for plain, stretched in changed:
        ordered = stretched.flatten()[plain.flatten().clamp(1e-4, 1 - 1e-4).argsort(stable=True)]
        assert (ordered.diff() > -1e-12).all()


def test_in_some_images_nobody_is_found(skeleton):
    def empty(share):
        population = Population(performances=2, least_noise=0, most_noise=0, lost_share=share)
        return ~examples(skeleton, population, windows=200).views.seen.any(-1)

    assert (empty(0.3) & ~empty(0.0)).double().mean() == pytest.approx(0.3, abs=0.03)
    assert empty(0.0).double().mean() < 0.01  # who walks out of the picture
