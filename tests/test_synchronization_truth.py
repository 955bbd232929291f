"""Simulated recordings of cameras that are not started together."""

import numpy as np
import pytest

from models.simulation.detector import SHARED_S, Clocks, Errors
from models.simulation.movements import RATE_HZ
from models.simulation.repeated import BETWEEN_S, joined, performed
from models.simulation.rig import place_cameras
from models.simulation.scene import make_scene, observe, random_for
from models.vocabulary import vocabulary
from pipeline.simulate import Plan, person_of

NAMES = vocabulary("halpe-26").keypoints


@pytest.fixture(scope="module")
def subject():
    return person_of(Plan(model="pose2sim", seed=3))


@pytest.fixture(scope="module")
def walk(subject):
    return performed("gait", subject[1], 3, "motion")


@pytest.fixture(scope="module")
def scene(subject, walk):
    return make_scene(*subject, walk, {})


def test_who_walks_again_walks_back_as_he_came(subject, walk, scene):
    twice = make_scene(*subject, joined([walk, walk], walks=True), {})
    count, gap = len(walk), round(BETWEEN_S * RATE_HZ)
    for name in ("LHeel", "Nose", "RWrist"):
        there, back = twice.keypoints[name][:count], twice.keypoints[name][count - 1 + gap :]
        np.testing.assert_allclose(there, scene.keypoints[name], atol=1e-9)
        np.testing.assert_allclose(back, scene.keypoints[name] * [-1, 1, -1], atol=1e-9)
    speed = np.linalg.norm(np.diff(twice.keypoints["midHip"], axis=0), axis=-1) * RATE_HZ
    assert speed.max() < 4, "nobody jumps between the repetitions"


def test_a_movement_is_repeated_until_it_is_long_enough_and_each_time_another(subject):
    angles = performed("squats", subject[1], 3, "motion", Clocks(2.0).needed_s)
    assert angles.index[-1] >= 2 * 2.0 + SHARED_S
    once = performed("squats", subject[1], 3, "motion")
    count = len(once)
    np.testing.assert_allclose(angles.iloc[:count], once, atol=1e-9)
    assert abs(angles.knee_angle_r.max() - once.knee_angle_r.max()) < 0.3
    assert not np.allclose(
        angles.knee_angle_r.iloc[-200:], once.knee_angle_r.iloc[-200:], atol=0.01
    )


@pytest.mark.parametrize("rate_hz", [30.0, 59.94])
def test_cameras_start_and_stop_apart_and_their_clocks_drift(scene, rate_hz):
    cameras = place_cameras(4, np.array([0, 0.9, 0]), random_for(1, "cameras"))
    errors, clocks = Errors.none(), Clocks(0.8, 500.0)
    views = [observe(scene, c, NAMES, rate_hz, errors, 5, "walk", clocks) for c in cameras]
    starts, ends = ([view.time_s[at] for view in views] for at in (0, -1))
    assert 0 <= min(starts) and max(starts) <= 0.8 and np.ptp(starts) > 0.1
    assert scene.time_s[-1] - 0.8 - 1 / rate_hz <= min(ends) and np.ptp(ends) > 0.1
    for view in views:
        assert view.number[0] == 0
        interval_s = np.diff(view.time_s) / np.diff(view.number)
        assert 0 < np.abs(interval_s * rate_hz - 1).max() <= 500e-6


def test_cameras_that_start_together_see_what_they_saw_before_there_were_clocks(scene):
    camera = place_cameras(2, np.array([0, 0.9, 0]), random_for(1, "cameras"))[0]
    plain = observe(scene, camera, NAMES, 60.0, Errors(), 5, "walk")
    apart = observe(scene, camera, NAMES, 60.0, Errors(), 5, "walk", Clocks(0.5))
    number = plain.number
    late_s = plain.time_s - number / 60.0
    np.testing.assert_allclose(late_s, late_s[0], atol=1e-12)
    assert abs(late_s[0]) <= 0.5 / 60 and apart.time_s[0] > plain.time_s[0] - 0.5 / 60
