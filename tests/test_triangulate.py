import time
import tracemalloc

import cv2
import numpy as np
import pytest
from conftest import observe, ring
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.smooth import kalman_smooth
from stages.triangulate import Settings, triangulate

FRAMES, KEYPOINTS = 7, 5


def a_person(seed=0, frames=FRAMES, keypoints=KEYPOINTS):
    generator = np.random.default_rng(seed)
    return generator.uniform([-0.5, 0.0, -0.5], [0.5, 1.8, 0.5], (frames, keypoints, 3))


@pytest.mark.parametrize("cameras", [2, 3, 4, 8])
def test_a_point_seen_by_calibrated_cameras_comes_back(cameras):
    points, extrinsics = a_person(), ring(cameras)
    image = observe(points, extrinsics)
    result = triangulate(image, np.ones(image.shape[:-1]), extrinsics, Settings())
    np.testing.assert_allclose(result.position, points, atol=1e-9)
    assert result.view_used.all()
    assert result.ray_distance.max() < 1e-9


def test_two_views_agree_with_opencv():
    points, extrinsics = a_person(1), ring(8)[[0, 2]]
    image = observe(points, extrinsics) + np.random.default_rng(2).normal(0, 1e-4, (2, 7, 5, 2))
    result = triangulate(image, np.ones(image.shape[:-1]), extrinsics, Settings())
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
    result = triangulate(image, np.ones(mask.shape), extrinsics, Settings())
    # A wrong ray can still meet another camera's ray: three cameras then allow two answers.
    if cameras > 3:
        np.testing.assert_allclose(result.position, points, atol=1e-6)
        assert not result.view_used[mask].any() and result.view_used[~mask].all()
    else:
        right = np.linalg.norm(result.position - points, axis=-1) < 1e-6
        assert right.mean() > 0.8


def test_two_views_that_contradict_each_other_give_no_point():
    points, extrinsics = a_person(), ring(4)[:2]
    image = observe(points, extrinsics)
    image[1, 3, 2] += [0.0, 0.2]
    result = triangulate(image, np.ones(image.shape[:-1]), extrinsics, Settings())
    assert np.isnan(result.position[3, 2]).all() and not result.view_used[:, 3, 2].any()
    assert np.isfinite(np.delete(result.position.reshape(-1, 3), 3 * KEYPOINTS + 2, 0)).all()


def test_fewer_than_two_sure_views_give_no_point():
    points, extrinsics = a_person(), ring(3)
    image = observe(points, extrinsics)
    confidence = np.ones(image.shape[:-1])
    confidence[:2, 1, 1] = 0.1
    image[1:, 2, 3] = np.nan
    result = triangulate(image, confidence, extrinsics, Settings())
    missing = np.isnan(result.position).all(-1)
    assert missing[1, 1] and missing[2, 3] and missing.sum() == 2
    assert np.isnan(result.standard_deviation[missing]).all()


def test_parallel_rays_and_points_behind_the_camera_give_no_point():
    pose = ring(1)[0]
    same = np.stack([pose, pose])
    image = observe(a_person(), same)
    assert np.isnan(triangulate(image, np.ones(image.shape[:-1]), same, Settings()).position).all()
    behind = np.array([[[9.0, 1.0, 0.0]]])
    extrinsics = ring(3)
    result = triangulate(observe(behind, extrinsics), np.ones((3, 1, 1)), extrinsics, Settings())
    assert np.isnan(result.position).all() or not result.view_used.all()


def test_confidence_weighs_the_views():
    points, extrinsics = a_person(), ring(4)
    image = observe(points, extrinsics)
    image[0] += 0.005
    confidence = np.ones(image.shape[:-1])
    equal = triangulate(image, confidence, extrinsics, Settings())
    confidence[0] = 0.31
    weighted = triangulate(image, confidence, extrinsics, Settings())
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
    result = triangulate(image, np.ones(depth.shape), extrinsics, Settings(typical_error_m=0.012))
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
    here = triangulate(image, ones, extrinsics, Settings()).position
    there = triangulate(image, ones, turned, Settings()).position
    np.testing.assert_allclose(there, here @ turn.T, atol=1e-9)


@pytest.mark.slow
def test_a_long_whole_body_trial_takes_seconds_and_bounded_memory():
    frames, keypoints, extrinsics = 10_000, 133, ring(4)
    points = a_person(0, frames, keypoints)
    image = observe(points, extrinsics)
    ones = np.ones(image.shape[:-1])
    tracemalloc.start()
    began = time.perf_counter()
    chunks = [
        triangulate(image[:, at : at + 500], ones[:, at : at + 500], extrinsics, Settings())
        for at in range(0, frames, 500)
    ]
    position = np.concatenate([chunk.position for chunk in chunks]).reshape(frames, -1)
    kalman_smooth(position, np.full(position.shape, 1e-4), 1 / 60, 1.0)
    seconds, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 120 and peak < 3e9, f"{seconds:.0f} s, {peak / 1e9:.2f} GB"
