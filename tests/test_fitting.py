"""The joint fit against what is known: people of known size in known poses before known cameras."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.transform import Rotation

from models.augmenter import MARKERS, VIDEO_KEYPOINTS
from models.fitting.evidence import ImageEvidence, PointEvidence, TrialEvidence
from models.fitting.floor import standing_flat
from models.fitting.motion import fit_motion
from models.fitting.motion_equations import (
    MotionFit,
    _banded,
    _second_differences,
    _spread,
    marginal_variances,
)
from models.fitting.person import UNSEEN, heights_m, model_with_keypoints, proportions, scaled_model
from models.fitting.pose_prior import LEAST_INFORMATION
from models.fitting.rows import KINDS, compare, layout_of, measured
from models.fitting.subject import CannotFit, fit_subject
from models.fitting.subject_equations import Estimate, Prior, SubjectFit
from models.opensim_model import generic_model, marker_positions
from models.simulation.rig import looking_at
from models.skeleton import read_skeleton
from stages.trial import no_progress

GENERIC = generic_model("pose2sim")
RATE_HZ = 20.0
LEGS = ("hip_flexion", "knee_angle", "ankle_angle")


@cache
def average():
    """The generic model with keypoints, and its skeleton."""
    model = model_with_keypoints(GENERIC, VIDEO_KEYPOINTS)
    return model, read_skeleton(model)


def movement(skeleton, seconds=3.0):
    """Coordinates of three squats with swinging arms, rad and m, on a floor at y = 0 or so."""
    time_s = np.arange(0, seconds, 1 / RATE_HZ)
    deep = 0.5 - 0.5 * np.cos(2 * np.pi * time_s)
    degrees = {
        "pelvis_tilt": -25 * deep, "L5_S1_Flex_Ext": -22 * deep, "arm_add_r": -10 + 0 * deep,
        "arm_add_l": -10 + 0 * deep,
    }  # fmt: skip
    for side in "rl":
        degrees |= {
            f"hip_flexion_{side}": 92 * deep, f"knee_angle_{side}": 5 + 85 * deep,
            f"ankle_angle_{side}": 5 + 18 * deep, f"arm_flex_{side}": 60 * deep,
            f"elbow_flex_{side}": 20 + 30 * deep,
        }  # fmt: skip
    coordinates = np.zeros((len(time_s), len(skeleton.coordinates)))
    for name, values in degrees.items():
        coordinates[:, skeleton.coordinates.index(name)] = np.radians(values)
    coordinates[:, skeleton.coordinates.index("pelvis_ty")] = 0.95 - 0.3 * deep
    return time_s, torch.from_numpy(coordinates)


def cameras(count):
    """Extrinsics of cameras around the front."""
    around = np.radians(np.linspace(-45, 45, count))
    places = np.stack([4 * np.cos(around), 0 * around + 1.3, 4 * np.sin(around)], 1)
    return np.stack([looking_at(place, np.array([0.0, 0.9, 0.0])) for place in places])


def seen_by(extrinsics, points):
    """Image coordinates at focal length 1 (camera, time, point, 2)."""
    there = points @ extrinsics[:, None, :, :3].swapaxes(-1, -2) + extrinsics[:, None, None, :, 3]
    return there[..., :2] / there[..., 2:]


def person(seed=0, spread=1.0):
    """Scale factors of a random person by the priors' proportions, without odd shapes."""
    _, skeleton = average()
    shape = proportions(skeleton.bodies, 0.05)
    random = np.random.default_rng(seed)
    parameter = torch.from_numpy(spread * random.normal(size=len(shape.names)).clip(-2, 2))
    plain = torch.tensor(["length" in n or n == "size" or "right" in n for n in shape.names])
    return shape.scale(parameter * plain)


def recording(views=2, seed=0, noise_m=0.0, spread=1.0, seconds=3.0):
    """A trial, the true coordinates, scale factors and height."""
    _, skeleton = average()
    scale, random = person(seed, spread), np.random.default_rng(seed + 1)
    time_s, coordinates = movement(skeleton, seconds)
    names = [name for name in VIDEO_KEYPOINTS if name in skeleton.markers]
    chosen = skeleton.with_markers(names)
    points = chosen.marker_positions(coordinates, scale).numpy()
    extrinsics = cameras(views)
    image = seen_by(extrinsics, points)
    image = image + random.normal(0, noise_m / 4, image.shape)
    everything = [*names, *MARKERS]
    placed = skeleton.with_markers(everything).marker_positions(coordinates, scale).numpy()
    rough = placed + random.normal(0, max(noise_m, 0.002), placed.shape)
    start = dict(zip(everything, np.moveaxis(rough, 1, 0), strict=True))
    seen = ImageEvidence(
        tuple(f"cam{i}" for i in range(views)), tuple(names), image, np.ones(image.shape[:3]), extrinsics
    )  # fmt: skip
    trial = TrialEvidence("squats", time_s, start, seen)
    return trial, coordinates, scale, float(heights_m(skeleton, scale).max())


def rmse_deg(angles: pd.DataFrame, coordinates, names=LEGS):
    """RMSE of both legs' flexions, degrees."""
    _, skeleton = average()
    index = [skeleton.coordinates.index(f"{name}_{side}") for name in names for side in "rl"]
    found = angles[[skeleton.coordinates[i] for i in index]].to_numpy()
    return np.degrees(np.sqrt(((found - coordinates[:, index].numpy()) ** 2).mean(0)))


def fit_of(trial, height_m):
    subject = fit_subject(GENERIC, [trial], height_m, 70.0, no_progress)
    return subject, fit_motion(subject, trial, no_progress)


def equations(views=2, noise_m=0.02):
    """A subject's equations, and an estimate away from the solution."""
    _, skeleton = average()
    trial, coordinates, _, height_m = recording(views, noise_m=noise_m, seconds=1.0)
    points = [*trial.images.names, *UNSEEN]
    layout = layout_of([trial], points)
    shape = proportions(skeleton.bodies, 0.08)
    spread = torch.full((len(points),), 0.018, dtype=torch.float64)
    spread[-len(UNSEEN) :] = 0.0
    prior = Prior(shape, spread, (height_m, 0.01), skeleton)
    evidence = measured(trial, layout, points)
    fit = SubjectFit(skeleton.with_markers(points), prior, layout, evidence, 0.1)
    random = torch.Generator().manual_seed(0)
    away = 0.05 * torch.randn(coordinates.shape, generator=random, dtype=torch.float64)
    estimate = fit.start(coordinates + away)
    drawn = torch.randn(estimate.parameter.shape, generator=random, dtype=torch.float64)
    noise = torch.tensor([0.7, 1.0, 1.0], dtype=torch.float64)
    return fit, replace(estimate, parameter=0.3 * drawn, noise=noise), trial, layout, evidence


def test_people_before_two_cameras_are_found_exactly_without_noise():
    trial, coordinates, scale, height_m = recording()
    subject, motion = fit_of(trial, height_m)
    assert rmse_deg(motion.angles, coordinates).max() < 2.5
    assert rmse_deg(motion.angles, coordinates, ["knee_angle"]).max() < 0.5
    thigh = subject.model.getBodySet().get("femur_r").getName()
    _, skeleton = average()
    true = scale[skeleton.bodies.index("femur_r")].numpy()
    assert subject.factors[thigh][1] == pytest.approx(true[1], abs=0.01)
    assert subject.stature_m == pytest.approx(height_m, abs=0.005)
    assert subject.noise["keypoints"] < 0.1


def test_stated_uncertainty_covers_the_errors():
    errors, stated = [], []
    for seed in range(3):
        trial, coordinates, _, height_m = recording(3, seed, noise_m=0.02)
        subject, motion = fit_of(trial, height_m)
        errors.append(rmse_deg(motion.angles, coordinates))
        names = [f"{name}_{side}" for name in LEGS for side in "rl"]
        stated.append(np.degrees(np.sqrt((motion.deviation[names] ** 2).mean()).to_numpy()))
    ratio = np.sqrt(np.mean(np.square(errors)) / np.mean(np.square(stated)))
    assert 0.3 < ratio < 1.5
    assert np.mean(errors) < 4.0


def test_one_camera_that_sees_a_limb_elsewhere_hardly_matters():
    trial, _, _, height_m = recording(3, noise_m=0.003)
    image = trial.images.image.copy()
    knee = trial.images.names.index("RKnee")
    image[0, 20:28, knee] += 0.2 / 4  # 20 cm aside for 0.4 s
    wrong = replace(trial, images=replace(trial.images, image=image))
    (_, right), (_, motion) = fit_of(trial, height_m), fit_of(wrong, height_m)
    names = [f"{name}_{side}" for name in LEGS for side in "rl"]
    apart = np.degrees((right.angles[names] - motion.angles[names]).abs())
    assert apart.max().max() < 2.0
    assert apart.mean().max() < 0.5


def test_triangulated_keypoints_and_images_agree():
    trial, coordinates, _, height_m = recording(3)
    points = {name: trial.start[name] for name in trial.images.names}
    position = np.stack(list(points.values()), axis=1)
    placed = PointEvidence(tuple(points), position, np.full(position.shape[:2], 0.01))
    _, motion = fit_of(replace(trial, images=None, keypoints=placed), height_m)
    assert rmse_deg(motion.angles, coordinates).max() < 3.0


def test_the_world_may_be_turned():
    trial, _, _, height_m = recording(3, noise_m=0.01)
    turn = Rotation.from_euler("y", 110, degrees=True).as_matrix()
    extrinsics = trial.images.camera_from_world.copy()
    extrinsics[..., :3] = extrinsics[..., :3] @ turn.T
    turned = replace(
        trial,
        start={name: points @ turn.T for name, points in trial.start.items()},
        images=replace(trial.images, camera_from_world=extrinsics),
    )
    (_, one), (_, other) = fit_of(trial, height_m), fit_of(turned, height_m)
    inner = one.angles.filter(regex="hip_|knee_|ankle_|L5_").columns
    assert np.degrees((one.angles[inner] - other.angles[inner]).abs().max().max()) < 0.5


def test_the_model_file_has_the_points_where_the_fit_has_them():
    trial, _, _, height_m = recording(2, noise_m=0.02)
    subject, motion = fit_of(trial, height_m)
    names = list(trial.images.names)
    angles = motion.angles.iloc[[0, 17, 40]]
    skeleton = subject.person.skeleton
    coordinates = torch.from_numpy(angles.to_numpy())
    ours = subject.person.scaled.with_markers(names).marker_positions(coordinates).numpy()
    theirs = marker_positions(subject.model, angles[list(skeleton.coordinates)], names)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert not set(UNSEEN) & {marker.getName() for marker in subject.model.getMarkerSet()}


def test_cost_falls_as_the_subjects_equations_say():
    fit, estimate, *_ = equations()
    here = fit.look(estimate)
    random = torch.Generator().manual_seed(1)

    def cost_at(step):
        coordinates = estimate.coordinates.clone()
        coordinates[:, fit.free] += step * poses
        moved = Estimate(
            coordinates, estimate.parameter + step * shape, estimate.noise, estimate.bias
        )
        return fit.look(moved).cost

    for _ in range(3):
        poses = torch.randn(here.downhill_pose.shape, generator=random, dtype=torch.float64)
        shape = torch.randn(here.downhill_parameter.shape, generator=random, dtype=torch.float64)
        slope = (cost_at(1e-5) - cost_at(-1e-5)) / 2e-5
        expected = (here.downhill_pose * poses).sum() + (here.downhill_parameter * shape).sum()
        assert slope == pytest.approx(-float(expected), rel=1e-4)


def test_eliminated_poses_give_the_step_of_all_equations_together():
    fit, estimate, *_ = equations()
    estimate = replace(estimate, coordinates=estimate.coordinates[:4])
    fit = SubjectFit(
        fit.skeleton, fit.prior, fit.layout, fit.evidence.of(torch.arange(4)), fit.interval_s
    )
    fit.poses.lower, fit.poses.upper = fit.poses.lower - 9, fit.poses.upper + 9  # no limits
    here = fit.look(estimate)
    stepped = fit._stepped(estimate, here, 0.0)
    samples, free = here.downhill_pose.shape
    whole = torch.block_diag(*here.of_pose, here.of_parameter)
    whole.diagonal()[: samples * free] += LEAST_INFORMATION
    whole[: samples * free, samples * free :] = here.of_both.flatten(0, 1)
    whole[samples * free :, : samples * free] = here.of_both.flatten(0, 1).mT
    right = torch.cat([here.downhill_pose.flatten(), here.downhill_parameter])
    step = torch.linalg.solve(whole, right)[samples * free :]
    assert torch.allclose(stepped.parameter - estimate.parameter, step, rtol=1e-6, atol=1e-8)


def test_cost_falls_as_the_motions_equations_say():
    fit, estimate, trial, layout, evidence = equations()
    person = fit.person(estimate.parameter)
    constant_m = torch.zeros(len(layout.point), dtype=torch.float64)
    motion = MotionFit(person, layout, evidence, constant_m, estimate.noise, 1 / RATE_HZ)
    here = motion._look(estimate.coordinates)
    random = torch.Generator().manual_seed(2)
    for _ in range(3):
        way = torch.randn(here.downhill.shape, generator=random, dtype=torch.float64)
        costs = []
        for step in (1e-6, -1e-6):
            coordinates = estimate.coordinates.clone()
            coordinates[:, motion.free] += step * way
            costs.append(motion._look(coordinates).cost)
        slope = (costs[0] - costs[1]) / 2e-6
        assert slope == pytest.approx(-float((here.downhill * way).sum()), rel=1e-4)


@pytest.mark.parametrize("samples", [5, 6])
def test_bands_and_variances_are_those_of_the_whole_matrix(samples):
    random, free = np.random.default_rng(0), 3
    blocks = random.normal(size=(samples, free, free))
    blocks = blocks @ blocks.swapaxes(1, 2)
    smooth = random.uniform(1, 2, (samples - 2, free))
    whole = np.zeros((samples * free, samples * free))
    for index, block in enumerate(blocks):
        rows = slice(index * free, (index + 1) * free)
        whole[rows, rows] = block
    units = torch.eye(samples * free, dtype=torch.float64).reshape(-1, samples, free)
    bent = torch.stack([_second_differences(unit) for unit in units]).flatten(1).numpy()
    whole += bent @ np.diag(smooth.flatten()) @ bent.T
    inverse = np.linalg.inv(whole).diagonal().reshape(samples, free)
    np.testing.assert_allclose(marginal_variances(blocks, smooth), inverse, rtol=1e-6)
    bands = _banded(blocks, smooth)
    for below in range(len(bands)):
        diagonal = np.diagonal(whole, -below)
        np.testing.assert_allclose(bands[below, : len(diagonal)], diagonal, atol=1e-12)
    values, inner = torch.randn(samples, free).double(), torch.randn(samples - 2, free).double()
    product = (_spread(inner) * values).sum()  # of the transpose
    assert product == pytest.approx(float((inner * _second_differences(values)).sum()))


def test_more_noisy_images_do_not_make_people_smaller():
    """As they would if errors were counted at the depth that is sought: nearer is less."""
    trial, _, _, height_m = recording(3, noise_m=0.02)
    again = replace(trial, name="again")
    one = fit_subject(GENERIC, [trial], None, 70.0, no_progress).stature_m
    both = fit_subject(GENERIC, [trial, again], None, 70.0, no_progress).stature_m
    assert one == pytest.approx(height_m, rel=0.02)
    assert both == pytest.approx(one, rel=0.01)


@pytest.mark.parametrize("straight", [True, False])
def test_a_straight_back_or_the_spine_alone_may_bend(straight):
    """The usual rhythm of pelvis and spine is no more than a first guess."""
    _, skeleton = average()
    trial, coordinates, scale, height_m = recording(4, noise_m=0.01)
    bend = torch.zeros_like(coordinates)
    deep = 0.5 - 0.5 * torch.cos(2 * torch.pi * torch.from_numpy(trial.time_s))
    moved = {"pelvis_tilt": -55, "hip_flexion_r": 55, "hip_flexion_l": 55} if straight else {
        "L5_S1_Flex_Ext": -45}  # fmt: skip
    for name, degrees in moved.items():
        bend[:, skeleton.coordinates.index(name)] = np.radians(degrees) * deep
    for name in ("knee_angle_r", "knee_angle_l"):
        bend[:, skeleton.coordinates.index(name)] = np.radians(5 + (10 if straight else 40) * deep)
    bend[:, skeleton.coordinates.index("pelvis_ty")] = 0.95
    names = list(trial.images.names)
    random = np.random.default_rng(0)
    points = skeleton.with_markers(names).marker_positions(bend, scale).numpy()
    image = seen_by(trial.images.camera_from_world, points)
    image = image + random.normal(0, 0.0025, image.shape)
    everything = list(trial.start)
    placed = skeleton.with_markers(everything).marker_positions(bend, scale).numpy()
    placed = placed + random.normal(0, 0.01, placed.shape)
    start = dict(zip(everything, np.moveaxis(placed, 1, 0), strict=True))
    bent = replace(trial, start=start, images=replace(trial.images, image=image))
    _, motion = fit_of(bent, height_m)
    errors = rmse_deg(motion.angles, bend, ["hip_flexion"])
    assert errors.max() < 14.0


def test_what_no_view_is_sure_of_is_not_seen():
    trial, *_ = recording(2)
    confidence = trial.images.confidence.copy()
    confidence[0, 3], confidence[1, 4] = 0.0, np.nan
    unsure = replace(trial, images=replace(trial.images, confidence=confidence))
    names = list(trial.images.names)
    layout = layout_of([unsure], names)
    certain = measured(unsure, layout, names).certainty
    assert not certain[3, layout.source == 0].any() and certain[3, layout.source == 1].all()
    assert not certain[4, layout.source == 1].any()


def test_a_foot_on_a_wedge_does_not_stand_flat():
    time_s = np.arange(0, 2, 0.02)
    heights = {"Heel": 0.05, "BigToe": 0.0, "Hip": 0.9}
    points = {
        f"{side}{name}": np.stack([0 * time_s, 0 * time_s + height, 0 * time_s], 1)
        for side in "RL"
        for name, height in heights.items()
    }
    assert not standing_flat(points, time_s)[0]["R"].any()


def test_rows_of_images_are_metres_at_the_person():
    trial, coordinates, scale, _ = recording(2)
    _, skeleton = average()
    names = list(trial.images.names)
    layout = layout_of([trial], names)
    true = skeleton.with_markers(names).marker_positions(coordinates, scale)
    evidence = measured(trial, layout, names).seen_at(layout, true)
    assert compare(evidence, layout, true).residual.abs().max() < 1e-9
    to_the_right = torch.from_numpy(trial.images.camera_from_world[0, 0, :3])
    away = compare(evidence, layout, true + 0.01 * to_the_right).residual
    rows = (layout.source == 0) & (layout.axis == 0)
    assert away[:, rows].numpy() == pytest.approx(-0.01, abs=1e-6)


def test_errors_follow_each_other_less_the_farther_samples_are_apart():
    trial, *_ = recording(2)
    layout = layout_of([trial], list(trial.images.names))
    noise = torch.ones(len(KINDS), dtype=torch.float64)
    near, far = layout.variance(1 / 60, noise), layout.variance(10.0, noise)
    assert (near > 5 * far).any()
    assert torch.allclose(far, layout.single_variance(noise), rtol=1e-3)


def test_a_foot_stands_flat_while_heel_and_toes_are_low_and_at_rest():
    time_s = np.arange(0, 2, 0.02)
    lifted = (time_s > 1.0) * 0.2
    points = {
        f"{side}{name}": np.stack([0 * time_s, height + (side == "R") * lift, 0 * time_s], 1)
        for side in "RL"
        for name, height, lift in (
            ("Heel", 0.31, lifted),
            ("BigToe", 0.30, 0 * time_s),
            ("Hip", 1.2, 0 * time_s),
        )
    }
    flat, floor_m = standing_flat(points, time_s)
    assert flat["L"].all()
    assert flat["R"][:45].all()
    assert not flat["R"][55:].any()
    assert floor_m == pytest.approx(0.30, abs=0.01)
    lying = {name: values - [0, 0.85 * ("Hip" in name), 0] for name, values in points.items()}
    assert not standing_flat(lying, time_s)[0]["L"].any()


@pytest.mark.parametrize(
    ("seconds", "still", "height_off_m", "said"),
    [(0.5, False, 0.0, "too short"), (3.0, True, 0.0, "too still"), (3.0, False, 0.4, "height_m")],
)
def test_data_that_do_not_allow_a_fit_are_refused(seconds, still, height_off_m, said):
    trial, *_, height_m = recording(3, seconds=seconds)
    if still:
        held = {name: np.repeat(v[:1], len(v), 0) for name, v in trial.start.items()}
        image = np.repeat(trial.images.image[:, :1], len(trial.time_s), 1)
        trial = replace(trial, start=held, images=replace(trial.images, image=image))
    with pytest.raises(CannotFit, match=said):
        fit_subject(GENERIC, [trial], height_m + height_off_m, 70.0, no_progress)


def test_what_the_data_do_not_tell_stays_at_the_prior():
    trial, *_, height_m = recording(2, noise_m=0.02)
    subject, _ = fit_of(trial, height_m)
    table = subject.parameters
    assert table.determined.between(0, 1).all()
    assert table.loc["thigh, length", "determined"] > 0.3
    assert table.loc["thigh, depth", "determined"] < 0.2
    assert abs(table.loc["thigh, depth", "value"]) < 0.5 * table.loc["thigh, depth", "prior_sd"]


def test_a_session_of_two_trials_is_fitted_together():
    one, _, _, height_m = recording(2, seed=3)
    other = replace(recording(2, seed=3, seconds=2.0)[0], name="more squats")
    subject = fit_subject(GENERIC, [one, other], height_m, 70.0, no_progress)
    assert set(subject.samples) == {"squats", "more squats"}
    assert min(subject.samples.values()) > 5


def test_a_scaled_model_has_the_scale_factors():
    model, skeleton = average()
    scale = person(5)
    by_body = dict(zip(skeleton.bodies, scale.numpy(), strict=True))
    scaled = scaled_model(model, by_body, {"RKnee": np.array([0.01, 0.0, 0.0])}, 60.0)
    bodies = scaled.getTotalMass(scaled.initSystem())
    assert bodies == pytest.approx(60.0, abs=0.1)
    upright = pd.DataFrame(
        [np.zeros(len(skeleton.coordinates))], columns=list(skeleton.coordinates)
    )
    names = ["RKnee", "LBigToe"]
    ours = skeleton.with_markers(names).marker_positions(
        torch.zeros(len(skeleton.coordinates)).double(), scale
    )
    theirs = marker_positions(scaled, upright, names)[0]
    apart = theirs - ours.numpy()
    np.testing.assert_allclose(apart[1], 0, atol=1e-6)
    assert np.linalg.norm(apart[0]) == pytest.approx(0.01, abs=1e-6)
