import json

import numpy as np
import pandas as pd
import pytest

from benchmarks import accuracy
from benchmarks.pose2sim import Lag, lags_in
from benchmarks.synchronization_peer import errors_of, write_frames
from models.simulation.scene import View
from stages.poses import frame_files


def test_an_error_that_grows_by_more_than_a_fifth_is_found():
    stored = {"squats": {"knee_angle": 3.0, "ankle_angle": 2.0}}
    assert accuracy.grown({"squats": {"knee_angle": 3.5, "ankle_angle": 1.0}}, stored) == []
    (worse,) = accuracy.grown({"squats": {"knee_angle": 3.7, "ankle_angle": 2.0}}, stored)
    assert "knee_angle 3.70°, was 3.00°" in worse
    assert accuracy.grown({"squats": {"knee_angle": np.nan, "ankle_angle": 2.0}}, stored)


def test_chains_are_compared_on_the_sessions_that_all_of_them_solved():
    rows = pd.DataFrame(
        {"session": [1, 1, 2, 2], "chain": ["a", "b"] * 2, "refused": ["", "", "", "mirrored"]}
    )
    assert list(accuracy.complete(rows).session) == [1, 1]


def test_the_suite_has_every_movement_number_of_cameras_and_noise():
    plans = accuracy.suite()
    assert len(plans) >= 20 and len({plan.seed for plan in plans}) == 4
    assert {plan.motion for plan in plans} == {"squats", "gait", "sit-to-stand", "dropjump"}
    assert {plan.cameras for plan in plans} == {2, 3, 4, 8}
    assert len({accuracy.noise_of(plan) for plan in plans}) == 3


def test_the_lags_that_pose2sim_prints_are_read():
    """Lines of version 0.10.49; the second camera has nothing to correlate, the last is the reference."""
    log = (
        "They are removed when their likelihood is below 0.4.\n\n\n"
        "--> Camera cam3 and cam1: -96 frames offset, correlation 0.72.\n"
        "--> Camera cam3 and cam2: 0 frames offset, correlation 0.\n"
        "Synchronized json files saved in /somewhere/pose-sync.\n"
    )
    assert lags_in(log) == {"cam3": Lag(0, 1.0), "cam1": Lag(-96, 0.72), "cam2": Lag(0, 0.0)}
    assert lags_in("Traceback (most recent call last):\n") == {}


def test_pose2sim_gets_an_empty_file_for_a_lost_frame(tmp_path):
    numbers = np.array([0, 1, 3])
    view = View(numbers, numbers / 30, np.full((3, 26, 2), 7.0), np.full((3, 26), 0.9))
    write_frames(tmp_path / "cam1_json", view)
    files = frame_files(tmp_path / "cam1_json")
    seen = [json.loads(f.read_text())["people"][0]["pose_keypoints_2d"] for f in files.values()]
    assert list(files) == [0, 1, 2, 3]
    assert [frame[:3] for frame in seen] == [[7, 7, 0.9], [7, 7, 0.9], [0, 0, 0], [7, 7, 0.9]]


def test_a_failure_counts_as_one_and_not_as_a_hit():
    rows = pd.DataFrame(
        {"error": [0.001, 0.5, 0.02, np.nan], "half": 0.008, "low": [False, True, False, False]}
    )
    found = errors_of(rows)
    assert (found["clocks"], found["failed or refused"]) == (4, 1)
    assert (found["larger misses"], found["of them flagged"]) == (2, 1)
    assert found["median (ms)"] == pytest.approx(20)
    assert found["under half a frame (%)"] == pytest.approx(100 / 3)
    assert found["over 100 ms (%)"] == pytest.approx(100 / 3)


@pytest.mark.slow
def test_angles_of_simulated_sessions_are_no_worse_than_they_were():
    stored = json.loads(accuracy.BASELINE.read_text(encoding="utf-8"))
    found = accuracy.smoke()
    assert set(found) == set(stored)
    assert accuracy.grown(found, stored) == []
