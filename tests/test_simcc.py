"""Decoding of SimCC's distributions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.simcc import cells_from_bins, confidence, decode, maps


def bumps(places, spread, count):
    return np.exp(-((np.arange(count) - places[..., None]) ** 2) / (2 * spread**2))


@given(st.floats(20, 360), st.floats(20, 490), st.floats(0.05, 3), st.floats(-0.5, 0.5))
@settings(max_examples=40, deadline=None)
def test_bumps_of_any_height_on_any_ground_are_decoded(x, y, height, ground):
    columns = ground + height * bumps(np.array([x]), 4.9, 384)
    rows = ground + 2 * height * bumps(np.array([y]), 5.7, 512)
    at, score = decode(columns, rows)
    assert np.abs(at - [x, y]).max() <= 0.5
    assert score[0] == pytest.approx(columns.max())
    shown = maps(columns, rows, np.array([0.8]), 8)[0]
    assert shown.shape == (64, 48) and shown.max() == 204
    centre = [
        (shown.sum(axis) * np.arange(n)).sum() / shown.sum() for axis, n in ((0, 48), (1, 64))
    ]
    assert np.abs((np.array(centre) * 8 + 3.5) - [x, y]).max() < 0.6  # bins; a cell has 8
    assert (shown > 20).sum() < 40  # no cross


def test_confidences_are_shares_of_a_sure_networks_score_between_0_and_1():
    scores = np.array([-0.1, 0.0, 0.4, 1.0, 1.3])
    np.testing.assert_allclose(confidence(scores, 1), [0, 0, 0.4, 1, 1])
    np.testing.assert_allclose(confidence(10 * scores, 10), [0, 0, 0.4, 1, 1])


def test_a_cells_whole_number_is_the_centre_of_its_bins():
    np.testing.assert_allclose(cells_from_bins(np.arange(8.0), 8).mean(), 0)
    np.testing.assert_allclose(cells_from_bins(np.arange(12.0, 24.0), 12).mean(), 1)
