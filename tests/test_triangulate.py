import time
import tracemalloc
from itertools import product

import cv2
import numpy as np
import pytest
from conftest import observe, ring
from hypothesis import given, settings
from hypothesis import strategies as st

from models.continuity import (
    LARGEST_COST,
    STEADY_ERROR_M,
    STEADY_SPEED_M_S,
    most_continuous,
)
from models.geometric import triangulate
from stages.smooth import kalman_smooth
from stages.triangulate import Settings

FRAMES, KEYPOINTS = 7, 5


def a_person(seed=0, frames=FRAMES, keypoints=KEYPOINTS):
    generator = np.random.default_rng(seed)
    return generator.uniform([-0.5, 0.0, -0.5], [0.5, 1.8, 0.5], (frames, keypoints, 3))


@pytest.mark.parametrize("cameras", [2, 3, 4, 8])
def test_a_point_seen_by_calibrated_cameras_comes_back(cameras):
    points, extrinsics = a_person(), ring(cameras)
    image = observe(points, extrinsics)
    result = triangulate(image, np.ones(image.shape[:-1]), extrinsics, 1 / 60, Settings())
    np.testing.assert_allclose(result.position, points, atol=1e-9)
    assert result.view_used.all()
    assert result.ray_distance.max() < 1e-9


def test_two_views_agree_with_opencv():
    points, extrinsics = a_person(1), ring(8)[[0, 2]]
    image = observe(points, extrinsics) + np.random.default_rng(2).normal(0, 1e-4, (2, 7, 5, 2))
    result = triangulate(image, np.ones(image.shape[:-1]), extrinsics, 1 / 60, Settings())
    homogeneous = cv2.triangulatePoints(*extrinsics, *image.reshape(2, -1, 2).transpose(0, 2, 1))
    expected = (homogeneous[:3] / homogeneous[3]).T.reshape(points.shape)
    np.testing.assert_allclose(result.position, expected, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 6))
def test_one_wrong_view_is_dropped_and_does_not_move_the_point(seed, cameras):
    generator = np.random.default_rng(seed)
    points, extrinsics = a_person(seed), ring(cameras)
    image = observe(points, extrinsics)
    wrong = generator.integers(cameras, size=(FRAMES, KEYPOINTS))
    direction = generator.uniform(0, 2 * np.pi, (FRAMES, KEYPOINTS))
    # 0.3 of the focal length is over a metre at the subject
    shift = 0.3 * np.stack([np.cos(direction), np.sin(direction)], -1)
    mask = np.arange(cameras)[:, None, None] == wrong
    image = image + mask[..., None] * shift
    result = triangulate(image, np.ones(mask.shape), extrinsics, 1 / 60, Settings())
    # A wrong ray can still meet another camera's ray: three cameras then allow two answers.
    if cameras > 3:
        np.testing.assert_allclose(result.position, points, atol=1e-6)
        assert not result.view_used[mask].any() and result.view_used[~mask].all()
    else:
        right = np.linalg.norm(result.position - points, axis=-1) < 1e-6
        assert right.mean() > 0.8


def a_walk(frames=30):
    """A keypoint that moves steadily, and the ghost that a leg before it makes of it."""
    time = np.arange(frames)[:, None, None] / 60
    return np.array([[[-0.4, 0.5, 0.1]]]) + time * np.array([1.2, 0.3, -0.4])


@pytest.mark.parametrize("ghost_frames", [1, 3])
def test_a_ghost_that_two_cameras_agree_on_for_a_moment_does_not_make_the_point_jump(ghost_frames):
    points, extrinsics = a_walk(), ring(4)
    image = observe(points, extrinsics)
    ghost = observe(points + [0.25, -0.2, 0.3], extrinsics)
    image[:2, 10 : 10 + ghost_frames] = ghost[:2, 10 : 10 + ghost_frames]
    confidence = np.ones(image.shape[:-1])
    confidence[2:, 10:13] = 0.97  # the ghost is even the surer one
    result = triangulate(image, confidence, extrinsics, 1 / 60, Settings())
    np.testing.assert_allclose(result.position, points, atol=1e-9)
    assert not result.view_used[:2, 10 : 10 + ghost_frames].any()


def test_the_path_goes_on_across_frames_without_any_candidate():
    points, extrinsics = a_walk(), ring(4)
    image = observe(points, extrinsics)
    ghost = observe(points + [0.25, -0.2, 0.3], extrinsics)
    image[:, 10:15] = np.nan
    image[:2, 15], image[2:, 15] = ghost[:2, 15], image[2:, 15]
    result = triangulate(image, np.ones(image.shape[:-1]), extrinsics, 1 / 60, Settings())
    assert np.isnan(result.position[10:15]).all()
    np.testing.assert_allclose(result.position[15:], points[15:], atol=1e-9)


def test_the_path_is_the_cheapest_of_all_paths():
    """Against trying every path, with candidates and whole samples missing."""
    generator = np.random.default_rng(7)
    position = generator.uniform(0, 0.3, (5, 2, 3, 3))
    cost = generator.uniform(0, 9, (5, 2, 3))
    cost[1, 0, 2] = cost[3, 1] = np.inf
    position[~np.isfinite(cost)] = np.nan
    found = most_continuous(position, cost, 0.02)
    for keypoint in range(2):
        best = min(
            product(range(3), repeat=5), key=lambda p: path_cost(position, cost, keypoint, p)
        )
        expected = position[np.arange(5), keypoint, list(best)]
        np.testing.assert_array_equal(found[:, keypoint], expected)


def path_cost(position, cost, keypoint, path):
    total, last, steps = 0.0, None, 0
    for now, candidate in enumerate(path):
        steps += 1
        if not np.isfinite(cost[now, keypoint]).any():
            continue
        here = position[now, keypoint, candidate]
        total += cost[now, keypoint, candidate]
        if last is not None:
            usual = np.hypot(STEADY_SPEED_M_S * steps * 0.02, STEADY_ERROR_M)
            total += min((np.linalg.norm(here - last) / usual) ** 2, LARGEST_COST)
        last, steps = here, 0
    return np.inf if np.isnan(total) else total


def test_two_views_that_contradict_each_other_give_no_point():
    points, extrinsics = a_person(), ring(4)[:2]
    image = observe(points, extrinsics)
    image[1, 3, 2] += [0.0, 0.2]
    result = triangulate(image, np.ones(image.shape[:-1]), extrinsics, 1 / 60, Settings())
    assert np.isnan(result.position[3, 2]).all() and not result.view_used[:, 3, 2].any()
    assert np.isfinite(np.delete(result.position.reshape(-1, 3), 3 * KEYPOINTS + 2, 0)).all()


def test_fewer_than_two_sure_views_give_no_point():
    points, extrinsics = a_person(), ring(3)
    image = observe(points, extrinsics)
    confidence = np.ones(image.shape[:-1])
    confidence[:2, 1, 1] = 0.1
    image[1:, 2, 3] = np.nan
    result = triangulate(image, confidence, extrinsics, 1 / 60, Settings())
    missing = np.isnan(result.position).all(-1)
    assert missing[1, 1] and missing[2, 3] and missing.sum() == 2
    assert np.isnan(result.standard_deviation[missing]).all()


def test_parallel_rays_and_points_behind_the_camera_give_no_point():
    pose = ring(1)[0]
    same = np.stack([pose, pose])
    image = observe(a_person(), same)
    assert np.isnan(
        triangulate(image, np.ones(image.shape[:-1]), same, 1 / 60, Settings()).position
    ).all()
    behind = np.array([[[9.0, 1.0, 0.0]]])
    extrinsics = ring(3)
    result = triangulate(
        observe(behind, extrinsics), np.ones((3, 1, 1)), extrinsics, 1 / 60, Settings()
    )
    depth = behind @ extrinsics[:, 2, :3].T + extrinsics[:, 2, 3]
    assert (depth < 0).any() and not result.view_used[depth[0, 0] < 0].any()


def test_confidence_weighs_the_views():
    points, extrinsics = a_person(), ring(4)
    image = observe(points, extrinsics)
    image[0] += 0.005
    confidence = np.ones(image.shape[:-1])
    equal = triangulate(image, confidence, extrinsics, 1 / 60, Settings())
    confidence[0] = 0.31
    weighted = triangulate(image, confidence, extrinsics, 1 / 60, Settings())
    error = [np.linalg.norm(each.position - points, axis=-1).mean() for each in (equal, weighted)]
    assert error[1] < 0.4 * error[0]


def test_the_stated_standard_deviation_is_the_real_one():
    generator = np.random.default_rng(3)
    points, extrinsics = np.tile(a_person(3, 1, 4), (3000, 1, 1)), ring(4)
    noise_m = 0.012
    # noise of equal size in metres at the subject, as the method assumes
    depth = (points @ extrinsics[:, 2, :3].T + extrinsics[:, 2, 3]).transpose(2, 0, 1)
    image = observe(points, extrinsics)
    image += generator.normal(0, noise_m, image.shape) / depth[..., None]
    # each ray is off by √2 · 12 mm: noise on two image axes
    result = triangulate(
        image, np.ones(depth.shape), extrinsics, 1 / 60, Settings(typical_error_m=0.012)
    )
    error = (result.position - points).std(0)
    stated = np.sqrt((result.standard_deviation**2).mean(0))
    np.testing.assert_allclose(stated, error, rtol=0.25)


def test_turning_cameras_and_world_together_turns_the_points():
    points, extrinsics = a_person(), ring(3)
    image = observe(points, extrinsics) + np.random.default_rng(5).normal(0, 1e-3, (3, 7, 5, 2))
    turn = cv2.Rodrigues(np.array([0.3, -0.8, 0.5]))[0]
    turned = extrinsics.copy()
    turned[:, :, :3] = extrinsics[:, :, :3] @ turn.T
    ones = np.ones(image.shape[:-1])
    here = triangulate(image, ones, extrinsics, 1 / 60, Settings()).position
    there = triangulate(image, ones, turned, 1 / 60, Settings()).position
    np.testing.assert_allclose(there, here @ turn.T, atol=1e-9)


@pytest.mark.slow
def test_a_long_whole_body_trial_takes_seconds_and_bounded_memory():
    frames, keypoints, extrinsics = 10_000, 133, ring(4)
    points = a_person(0, frames, keypoints)
    image = observe(points, extrinsics)
    ones = np.ones(image.shape[:-1])
    tracemalloc.start()
    began = time.perf_counter()
    position = triangulate(image, ones, extrinsics, 1 / 60, Settings()).position
    position = position.reshape(frames, -1)
    kalman_smooth(position, np.full(position.shape, 1e-4), 1 / 60, 1.0)
    seconds, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 90 and peak < 1e9, f"{seconds:.0f} s, {peak / 1e9:.2f} GB"
