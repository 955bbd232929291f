import json

import numpy as np
import pandas as pd
import pytest

from benchmarks import accuracy


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


@pytest.mark.slow
def test_angles_of_simulated_sessions_are_no_worse_than_they_were():
    stored = json.loads(accuracy.BASELINE.read_text(encoding="utf-8"))
    found = accuracy.smoke()
    assert set(found) == set(stored)
    assert accuracy.grown(found, stored) == []
