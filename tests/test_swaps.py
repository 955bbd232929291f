"""Left and right exchanged in single views: found exactly, put right, and nothing else touched."""

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import observe, ring
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import Camera
from models.heatmaps import Heatmaps, Projection
from models.multiview import JOINTS
from models.simulation.detector import Errors
from models.simulation.rig import looking_at
from models.swaps import MOST_TOGETHER, exchange, find_swaps, rightwards
from models.vocabulary import chains, mirrored, vocabulary
from pipeline.simulate import Plan, simulate
from stages import triangulate as stage
from stages.heatmaps import exchanged

RATE_HZ, FRAMES, SURE = 60.0, 90, 0.3
NAMES = vocabulary("halpe-26").keypoints
PATTERN = np.zeros(FRAMES, bool)
PATTERN[[*range(12, 20), *range(41, 70), 80]] = True
"""Bursts of 8, 29 and 1 frames."""


def a_walk(frames=FRAMES, forwards=(1.0, 0.0, 0.0)):
    """Keypoints (time, keypoint, 3), m, of somebody who walks: a swinging stick figure, Y up."""
    time = np.arange(frames) / RATE_HZ
    ahead = np.array(forwards)
    right, up = np.cross(ahead, [0.0, 1.0, 0.0]), np.array([0.0, 1.0, 0.0])
    phase = 2 * np.pi * time
    points = {}

    def at(along, height, side):
        along = np.broadcast_to(along, time.shape) + 1.2 * (time - time.mean())
        height = np.broadcast_to(height, time.shape)
        return along[:, None] * ahead + height[:, None] * up + side * right

    for name, sign in (("R", 1), ("L", -1)):
        swing, lift = 0.3 * np.sin(phase) * sign, 0.08 * np.maximum(np.cos(phase) * sign, 0)
        leg = {"Hip": (0, 0.95, 0.09), "Knee": (0.6 * swing + 0.05, 0.5 + lift, 0.1)}
        leg |= {"Ankle": (swing, 0.1 + lift, 0.1), "Heel": (swing - 0.05, 0.04 + lift, 0.1)}
        leg |= {"BigToe": (swing + 0.18, 0.03 + lift, 0.09)}
        leg |= {"SmallToe": (swing + 0.15, 0.03 + lift, 0.15)}
        arm = {"Shoulder": (0, 1.45, 0.18), "Elbow": (-0.5 * swing, 1.18, 0.22)}
        arm |= {
            "Wrist": (0.1 - swing, 0.95, 0.22),
            "Eye": (0.1, 1.65, 0.03),
            "Ear": (0, 1.63, 0.07),
        }
        points |= {f"{name}{part}": at(x, y, sign * z) for part, (x, y, z) in (leg | arm).items()}
    middle = {"Nose": (0.12, 1.62), "Head": (0, 1.75), "Neck": (0, 1.5), "midHip": (0, 0.95)}
    points |= {name: at(x, y, 0) for name, (x, y) in middle.items()}
    return np.stack([points[name] for name in NAMES], 1)


def swaps_of(count, frames=FRAMES, **by_chain):
    """Swapped sides of so many cameras: by chain, camera and pattern."""
    swapped = {chain: np.zeros((count, frames), bool) for chain in ("legs", "arms")}
    for chain, of_cameras in by_chain.items():
        for camera, pattern in of_cameras.items():
            swapped[chain][camera] = pattern
    return swapped


def found_in(image, extrinsics, names=NAMES):
    return find_swaps(image, np.ones(image.shape[:-1]), extrinsics, 1 / RATE_HZ, names, SURE)


def assert_same(found, expected):
    for chain, of_cameras in expected.items():
        np.testing.assert_array_equal(found[chain], of_cameras)


@pytest.mark.parametrize("count", [2, 3, 4, MOST_TOGETHER + 2])
def test_bursts_in_one_view_are_found_exactly_and_put_right(count):
    extrinsics = ring(count) if count > 2 else ring(5)[:2]
    image = observe(a_walk(), extrinsics)
    expected = swaps_of(count, legs={1: PATTERN}, arms={0: ~PATTERN & (np.arange(FRAMES) > 30)})
    swapped = exchange(image, expected, NAMES)
    assert np.abs(swapped - image).max() > 0.05
    found = found_in(swapped, extrinsics)
    assert_same(found, expected)
    np.testing.assert_array_equal(exchange(swapped, found, NAMES), image)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_views_may_be_exchanged_at_once_and_for_the_whole_trial(count):
    extrinsics = ring(5)[:count]
    expected = swaps_of(count, legs={0: True, 1: PATTERN})
    found = found_in(exchange(observe(a_walk(), extrinsics), expected, NAMES), extrinsics)
    assert_same(found, expected)


@pytest.mark.parametrize("forwards", [(1.0, 0, 0), (0.6, 0, 0.8), (0, 0, -1.0)])
@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_good_recordings_are_not_touched(count, forwards):
    """With the noise that detectors have: 2 cm that stay with each view, and 1 cm more."""
    random = np.random.default_rng(count)
    points, extrinsics = a_walk(forwards=forwards), ring(8)[:count]
    shape = (count, FRAMES, len(NAMES), 3)
    error = random.normal(0, 0.02, (count, 1, len(NAMES), 3)) + random.normal(0, 0.01, shape)
    views = zip(points + error, extrinsics, strict=True)
    image = np.concatenate([observe(each, pose[None]) for each, pose in views])
    assert_same(found_in(image, extrinsics), swaps_of(count))


def test_a_person_exactly_from_the_side_is_left_alone():
    """Left and right nearly coincide in that view: what is not known to be wrong is kept."""
    side = looking_at(np.array([0.0, 1.0, 8.0]), np.array([0.0, 1.0, 0.0]))
    extrinsics = np.stack([side, *ring(3)[:2]])
    standing = np.repeat(a_walk()[30:31], FRAMES, axis=0)
    image = observe(standing, extrinsics)
    pairs = chains(NAMES)["legs"]
    assert np.abs(np.diff(image[0][:, pairs], axis=2)).max() * 8 < 0.12
    image += np.random.default_rng(0).normal(0, 0.003, image.shape)
    assert_same(found_in(image, extrinsics), swaps_of(3))


def test_sides_that_coincide_everywhere_are_left_alone():
    extrinsics = ring(3)
    points = a_walk()
    image = observe((points + points[:, mirrored(NAMES)]) / 2, extrinsics)
    image += np.random.default_rng(0).normal(0, 0.003, image.shape)
    assert_same(found_in(image, extrinsics), swaps_of(3))


def test_gaps_and_unsure_keypoints_are_not_evidence_but_are_exchanged_too():
    extrinsics = ring(4)
    expected = swaps_of(4, legs={2: PATTERN})
    image = exchange(observe(a_walk(), extrinsics), expected, NAMES)
    confidence = np.ones(image.shape[:-1])
    image[1, 10:60] = np.nan
    image[2, 50:55, NAMES.index("RKnee")] = np.nan
    unsure = NAMES.index("LAnkle")
    image[0, :, unsure], confidence[0, :, unsure] = 3.0, 0.1
    found = find_swaps(image, confidence, extrinsics, 1 / RATE_HZ, NAMES, SURE)
    assert_same(found, expected)
    right = exchange(image, found, NAMES)
    assert np.isnan(right[2, 50:55, NAMES.index("LKnee")]).all()
    assert np.isfinite(right[2, 50:55, NAMES.index("RKnee")]).all()


def test_what_is_not_surely_seen_is_left_alone():
    extrinsics = ring(4)
    image = exchange(observe(a_walk(), extrinsics), swaps_of(4, legs={2: PATTERN}), NAMES)
    confidence = np.ones(image.shape[:-1])
    confidence[2, :, chains(NAMES)["legs"].ravel()] = 0.2
    assert_same(find_swaps(image, confidence, extrinsics, 1 / RATE_HZ, NAMES, SURE), swaps_of(4))


def test_many_views_with_many_outliers_still_show_a_burst():
    random = np.random.default_rng(3)
    extrinsics = ring(8)
    expected = swaps_of(8, legs={5: PATTERN & (np.arange(FRAMES) != 80)})
    image = exchange(observe(a_walk(), extrinsics), expected, NAMES)
    out = random.random(image.shape[:-1]) < 0.2
    image += out[..., None] * random.normal(0, 0.15, image.shape)
    assert_same(found_in(image, extrinsics), expected)


def test_hips_that_seem_to_touch_do_not_tell_which_way_a_person_faces():
    """Reversed by 2 cm, of a person whose sides coincide elsewhere."""
    points = np.repeat(a_walk()[30:31], FRAMES, axis=0)
    points = (points + points[:, mirrored(NAMES)]) / 2
    for side, sign in (("R", -1), ("L", 1)):
        points[:, NAMES.index(f"{side}Hip"), 2] += 0.01 * sign
    assert rightwards(points, NAMES)[0, 2] > 0.99
    extrinsics = ring(5)[:2]
    assert_same(found_in(observe(points, extrinsics), extrinsics), swaps_of(2))


def test_views_that_never_see_the_person_are_never_exchanged():
    extrinsics = ring(3)
    image = observe(a_walk(), extrinsics)
    image[1] = np.nan
    assert_same(found_in(image, extrinsics), swaps_of(3))
    image[:] = np.nan
    assert_same(found_in(image, extrinsics), swaps_of(3))


def test_without_feet_two_views_still_show_a_burst():
    names = vocabulary("coco-17").keypoints
    extrinsics = ring(5)[:2]
    columns = [NAMES.index(name) for name in names]
    expected = swaps_of(2, legs={1: PATTERN})
    image = exchange(observe(a_walk()[:, columns], extrinsics), expected, names)
    assert_same(found_in(image, extrinsics, names), expected)


def test_sides_exchanged_in_all_views_are_told_by_the_feet():
    extrinsics = ring(3)
    expected = swaps_of(3, legs=dict.fromkeys(range(3), PATTERN))
    found = found_in(exchange(observe(a_walk(), extrinsics), expected, NAMES), extrinsics)
    assert_same(found, expected)


def sitting(lean_deg):
    """Keypoints of somebody who sits on the floor, legs ahead, toes up, the trunk leaning forward."""
    lean, points = np.radians(lean_deg), {}
    trunk = np.array([np.sin(lean), np.cos(lean)])
    for name, sign in (("R", 1), ("L", -1)):
        leg = {"Hip": (0, 0.1, 0.09), "Knee": (0.42, 0.14, 0.1), "Ankle": (0.84, 0.1, 0.1)}
        leg |= {
            "Heel": (0.88, 0.04, 0.1),
            "BigToe": (0.9, 0.24, 0.09),
            "SmallToe": (0.9, 0.2, 0.15),
        }
        heights = {"Shoulder": (0.5, 0.18), "Elbow": (0.35, 0.25), "Wrist": (0.25, 0.2)}
        heights |= {"Eye": (0.7, 0.03), "Ear": (0.68, 0.07)}
        arm = {part: (*(up * trunk + [0, 0.1]), wide) for part, (up, wide) in heights.items()}
        points |= {f"{name}{part}": (x, y, sign * z) for part, (x, y, z) in (leg | arm).items()}
    for name, up in {"Nose": 0.66, "Head": 0.8, "Neck": 0.55, "midHip": 0.0}.items():
        points[name] = (*(up * trunk + [0, 0.1]), 0.0)
    still = np.stack([points[name] for name in NAMES])
    return np.tile(still, (FRAMES, 1, 1)) + np.array([0, 0.5, 0])


@pytest.mark.parametrize("lean_deg", [0, 30, 60])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_who_leans_beyond_where_the_feet_point_is_not_exchanged(count, lean_deg):
    extrinsics = ring(5)[:count]
    image = observe(sitting(lean_deg), extrinsics)
    image += np.random.default_rng(0).normal(0, 0.0015, image.shape)
    assert_same(found_in(image, extrinsics), swaps_of(count))


def test_to_the_right_is_where_the_feet_have_it_whatever_is_called_right():
    points = a_walk(5, forwards=(0.6, 0, 0.8))
    expected = np.cross([0.6, 0, 0.8], [0, 1, 0])
    np.testing.assert_allclose(rightwards(points, NAMES), np.tile(expected, (5, 1)), atol=0.01)
    other = rightwards(points[:, mirrored(NAMES)], NAMES)
    np.testing.assert_allclose(other, np.tile(expected, (5, 1)), atol=0.01)


def a_recording(seed, count):
    """Noisy views of a walk with a random burst, and in which it is."""
    random = np.random.default_rng(seed)
    extrinsics = ring(count, radius_m=random.uniform(3, 6))
    start, length = random.integers(5, 50), random.integers(3, 30)
    pattern = np.isin(np.arange(FRAMES), np.arange(start, start + length))
    expected = swaps_of(count, legs={random.integers(count): pattern})
    image = observe(a_walk(), extrinsics) + random.normal(0, 0.002, (count, FRAMES, len(NAMES), 2))
    return exchange(image, expected, NAMES), extrinsics, expected


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 7]))
def test_the_order_of_cameras_does_not_matter(seed, count):
    image, extrinsics, _ = a_recording(seed, count)
    order = np.random.default_rng(seed).permutation(count)
    here, there = found_in(image, extrinsics), found_in(image[order], extrinsics[order])
    assert_same(there, {chain: of_cameras[order] for chain, of_cameras in here.items()})


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 4]))
def test_a_mirrored_world_has_the_same_swaps(seed, count):
    """Seen in a mirror: the image's x turns round, and what was right is left."""
    image, extrinsics, _ = a_recording(seed, count)
    flip = np.diag([-1.0, 1, 1])
    turned = np.concatenate([flip @ extrinsics[:, :, :3] @ flip, flip @ extrinsics[:, :, 3:]], 2)
    mirror = image[:, :, mirrored(NAMES)] * [-1, 1]
    assert_same(found_in(mirror, turned), found_in(image, extrinsics))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 4, 8]))
def test_random_bursts_are_found_to_within_the_frames_in_which_legs_cross(seed, count):
    image, extrinsics, expected = a_recording(seed, count)
    found = found_in(image, extrinsics)
    pairs = chains(NAMES)["legs"]
    apart = np.linalg.norm(np.diff(image[:, :, pairs], axis=-2)[..., 0, :], axis=-1).mean(-1)
    wrong = found["legs"] != expected["legs"]
    assert apart[wrong].max(initial=0) < 0.03 and not found["arms"].any()
    assert not np.delete(found["legs"], expected["legs"].any(1).argmax(), 0).any()


@pytest.fixture(scope="module", params=[2, 4])
def simulated(request):
    """A simulated gait with all of a detector's errors but swaps, as the stage gets it."""
    errors = Errors().model_copy(update={"swaps": 0.0, "dropped_frames": 0.0})
    plan = Plan(
        motion="gait", model="pose2sim", cameras=request.param, seed=11, errors=errors,
        duration_s=3.0, rates_hz=(30.0,), static=False,
    )  # fmt: skip
    simulation = simulate(plan)
    views = [simulation.trials[-1].views[camera.name] for camera in simulation.calibrated]
    frames = min(len(view.position) for view in views)
    position = np.stack([view.position[:frames] for view in views])
    confidence = np.stack([view.confidence[:frames] for view in views])
    return simulation, position, confidence


def test_simulated_recordings_are_repaired_where_exchanged_and_only_there(simulated):
    simulation, position, confidence = simulated
    names, cameras = simulation.keypoints, simulation.calibrated
    pattern = np.isin(np.arange(position.shape[1]), [*range(20, 29), *range(50, 66)])
    expected = swaps_of(len(cameras), position.shape[1], legs={1: pattern})

    def found(its):
        wrong = exchange(position, expected, names), exchange(confidence, expected, names)
        seen = stage.Seen.through_lenses(cameras, *wrong)
        return stage.find_exchanged(seen, 1 / 30, names, its)

    repaired = found(stage.Settings())
    assert (repaired["legs"] == expected["legs"]).mean() > 0.99 and not repaired["arms"].any()
    assert not any(each.any() for each in found(stage.Settings(swaps="keep")).values())
    seen = stage.Seen.through_lenses(cameras, position, confidence)
    clean = stage.find_exchanged(seen, 1 / 30, names, stage.Settings())
    assert not any(each.any() for each in clean.values())


def test_cameras_with_many_swaps_are_named():
    swapped = np.zeros((2, 40, 2), bool)
    swapped[1, :10, 0] = swapped[1, 0, 1] = swapped[0, 0, 0] = True
    coords = {"camera": ["cam01", "cam02"], "chain": ["legs", "arms"]}
    points = xr.Dataset({"swapped": (("camera", "time", "chain"), swapped)}, coords=coords)
    (notice,) = stage.swap_notices(points)
    assert "cam02" in notice and "legs in 25%" in notice and "arms in 2%" in notice


def test_maps_are_exchanged_as_their_keypoints_are():
    random = np.random.default_rng(0)
    maps = torch.from_numpy(random.random((1, 6, 2, len(JOINTS), 3, 4)))
    camera = Camera("a", (64, 48), np.diag([50.0, 50, 1]), np.zeros(5), np.eye(4))
    projection = Projection(*(torch.from_numpy(np.asarray(each)) for each in (
        camera.camera_from_world[:3], camera.intrinsics, np.zeros(14)
    )))  # fmt: skip
    swapped = swaps_of(2, 9, legs={1: np.arange(9) == 4})
    right = exchanged(
        lambda samples: Heatmaps(maps[:, : samples.stop - samples.start], maps[0], projection),
        swapped,
    )(slice(2, 8)).probability
    changed = (right != maps).any(-1).any(-1)[0]
    legs = [JOINTS[j] for j in changed[2, 1].nonzero()[:, 0]]
    assert {name[1:] for name in legs} == {"Hip", "Knee", "Ankle", "Heel", "BigToe", "SmallToe"}
    assert changed.sum() == len(legs) == 12
    torch.testing.assert_close(
        right[0, 2, 1, JOINTS.index("LKnee")], maps[0, 2, 1, JOINTS.index("RKnee")]
    )
