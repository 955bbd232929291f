"""Formulas against other implementations, published examples and known answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation
from scipy.stats import pearsonr
from sklearn.metrics import max_error, mean_absolute_error, root_mean_squared_error

from models.metrics import (
    acceleration_errors,
    aligned_distances_mm,
    angle_errors,
    distance_figures,
    find_lag,
    multiple_correlation,
    point_distances_mm,
    segment_length_errors,
    similarity,
    transform,
)

# Peak expiratory flow, l/min, first readings by both meters (Bland and Altman, Lancet 1986, table).
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def body(rng, frames=7, points=5):
    return rng.normal(size=(frames, points, 3))


def test_limits_of_agreement_are_those_that_bland_and_altman_published():
    errors = angle_errors(np.array(WRIGHT, float), np.array(MINI, float))
    assert errors["bias"] == pytest.approx(-2.1, abs=0.05)
    spread = (errors["limit_high"] - errors["bias"]) / 1.96
    assert spread == pytest.approx(38.8, abs=0.05)
    assert errors["bias"] - errors["limit_low"] == pytest.approx(1.96 * spread)
    # They printed bias ± 2 SD: -79.7 and 75.5 l/min.
    assert errors["bias"] - 2 * spread == pytest.approx(-79.7, abs=0.1)
    assert errors["bias"] + 2 * spread == pytest.approx(75.5, abs=0.1)


def test_curve_errors_agree_with_scikit_learn_and_scipy(rng):
    reference = rng.normal(size=50)
    result = reference + rng.normal(0.3, 0.4, size=50)
    errors = angle_errors(result, reference)
    assert errors["rmse"] == pytest.approx(root_mean_squared_error(reference, result))
    assert errors["mae"] == pytest.approx(mean_absolute_error(reference, result))
    assert errors["max"] == pytest.approx(max_error(reference, result))
    assert errors["correlation"] == pytest.approx(pearsonr(result, reference).statistic)
    assert errors["range_error"] == pytest.approx(np.ptp(result) - np.ptp(reference))


def test_missing_samples_are_left_out_and_counted(rng):
    reference = rng.normal(size=20)
    result = reference + 1
    result[3], reference[8] = np.nan, np.nan
    errors = angle_errors(result, reference)
    assert errors["samples"] == 18
    assert errors["rmse"] == pytest.approx(1)
    nothing = angle_errors(np.full(5, np.nan), np.zeros(5))
    assert nothing.pop("samples") == 0
    assert np.isnan(list(nothing.values())).all()


def test_a_constant_offset_is_all_bias_and_no_spread():
    reference = np.sin(np.linspace(0, 9, 80)) * 40
    errors = angle_errors(reference + 5, reference)
    for name in ("rmse", "mae", "bias", "max", "limit_low", "limit_high"):
        assert errors[name] == pytest.approx(5)
    assert errors["correlation"] == pytest.approx(1)
    assert errors["multiple_correlation"] < 1
    assert errors["range_error"] == pytest.approx(0)


def test_curves_that_do_not_move_have_no_correlation():
    errors = angle_errors(np.zeros(9), np.zeros(9))
    assert errors["rmse"] == 0
    assert np.isnan([errors["correlation"], errors["multiple_correlation"]]).all()


def written_out(curves):
    """Ferrari et al.'s formula, term by term; with one repetition, Kadaba et al.'s."""
    repetitions, methods, frames = curves.shape
    above = below = 0.0
    for w in range(repetitions):
        level = sum(curves[w, p, f] for p in range(methods) for f in range(frames))
        level /= methods * frames
        for f in range(frames):
            common = sum(curves[w, p, f] for p in range(methods)) / methods
            for p in range(methods):
                above += (curves[w, p, f] - common) ** 2
                below += (curves[w, p, f] - level) ** 2
    above /= repetitions * frames * (methods - 1)
    below /= repetitions * (frames * methods - 1)
    return np.sqrt(1 - above / below)


@pytest.mark.parametrize("repetitions", [1, 3])
def test_multiple_correlation_is_the_published_formula(rng, repetitions):
    shape = np.sin(np.linspace(0, 6, 11))
    curves = shape + rng.normal(0, 0.3, size=(repetitions, 2, 11))
    assert multiple_correlation(curves) == pytest.approx(written_out(curves))


def test_repetitions_that_differ_do_not_count_as_disagreement_of_methods():
    shape = np.sin(np.linspace(0, 6, 11))
    curves = np.stack([shape, 2 * shape + 3])[:, None].repeat(2, axis=1)
    assert multiple_correlation(curves) == pytest.approx(1)


def test_multiple_correlation_is_undefined_for_opposite_curves():
    shape = np.sin(np.linspace(0, 6, 11))
    assert np.isnan(multiple_correlation(np.stack([shape, -shape])[None]))
    assert np.isnan(multiple_correlation(np.empty((0, 2, 101))))


def movement(time_s):
    """Two curves of a squat-like, not quite periodic movement."""
    return np.stack(
        [60 * np.sin(2 * time_s) ** 2 + 10 * np.sin(0.7 * time_s), 9 * np.cos(1.3 * time_s)], axis=1
    )


@settings(max_examples=25, deadline=None)
@given(lag_s=st.floats(-0.4, 0.4))
def test_a_pure_lag_comes_back_to_a_fraction_of_a_sample(lag_s):
    time_s = np.arange(300) / 60
    lag = find_lag(movement(time_s - lag_s), movement(time_s), 1 / 60, 0.5)
    assert lag.seconds == pytest.approx(lag_s, abs=2e-4)
    assert lag.correlation > 0.999
    assert not lag.at_edge


def test_a_lag_survives_gaps_noise_offset_and_another_size(rng):
    time_s = np.arange(400) / 100
    result = 0.8 * movement(time_s - 0.123) + 20 + rng.normal(0, 1.0, size=(400, 2))
    result[50:90] = np.nan
    result[200:220, 0] = np.nan
    lag = find_lag(result, movement(time_s), 0.01, 0.5)
    assert lag.seconds == pytest.approx(0.123, abs=3e-3)
    assert 0.95 < lag.correlation < 1


def test_each_lag_has_pearsons_correlation_of_what_overlaps():
    time_s = np.arange(200) / 100
    result, reference = movement(time_s)[:, :1], movement(time_s**1.01)[:, :1]
    lag = find_lag(result, reference, 0.01, 0.0)
    assert lag.seconds == 0
    assert lag.correlation == pytest.approx(pearsonr(result[:, 0], reference[:, 0]).statistic)


def test_a_lag_beyond_the_search_is_said_to_be_at_its_edge():
    time_s = np.arange(300) / 60
    assert find_lag(movement(time_s - 0.4), movement(time_s), 1 / 60, 0.2).at_edge


def test_curves_that_do_not_move_have_no_lag():
    lag = find_lag(np.zeros((50, 2)), np.zeros((50, 2)), 0.01, 0.2)
    assert lag.seconds == 0
    assert np.isnan(lag.correlation)


def test_noise_has_no_lag_to_believe(rng):
    assert (
        find_lag(rng.normal(size=(600, 4)), rng.normal(size=(600, 4)), 0.01, 0.5).correlation < 0.5
    )


def test_rigid_fit_agrees_with_scipys_align_vectors(rng):
    points, reference = body(rng)[0], body(rng)[0]
    rotation, translation, scale = similarity(points, reference, scale=False)
    expected, _ = Rotation.align_vectors(reference - reference.mean(0), points - points.mean(0))
    assert np.allclose(rotation, expected.as_matrix())
    assert np.allclose(transform(points.mean(0)[None], rotation, translation), reference.mean(0))
    assert scale == 1


def test_aligned_distances_agree_with_scipys_procrustes(rng):
    reference = body(rng, frames=7, points=6)
    turns = Rotation.random(7, rng=rng).as_matrix()
    result = 1.3 * reference @ turns.swapaxes(1, 2) + rng.normal(0, 0.05, size=reference.shape)
    aligned = aligned_distances_mm(result, reference)
    for frame in range(7):
        standard, moved, _ = procrustes(reference[frame], result[frame])
        size = np.linalg.norm(reference[frame] - reference[frame].mean(0)) * 1000
        assert np.allclose(aligned[frame], np.linalg.norm(standard - moved, axis=-1) * size)


def test_a_similarity_comes_back_from_points_that_are_partly_missing(rng):
    points = body(rng, frames=3, points=7)
    turns = Rotation.random(3, rng=rng).as_matrix()
    shifts, sizes = rng.normal(size=(3, 3)), np.array([0.7, 1.0, 1.9])
    reference = transform(points, turns, shifts, sizes)
    points[0, 2], reference[1, 5, 0] = np.nan, np.nan
    rotation, translation, scale = similarity(points, reference, scale=True)
    assert np.allclose(rotation, turns)
    assert np.allclose(translation, shifts)
    assert np.allclose(scale, sizes)


def test_a_mirrored_body_is_not_fitted_by_a_reflection(rng):
    points = body(rng, frames=1, points=8)
    rotation, _, _ = similarity(points, points * [-1, 1, 1], scale=True)
    assert np.linalg.det(rotation[0]) == pytest.approx(1)
    assert aligned_distances_mm(points, points * [-1, 1, 1]).mean() > 100


def test_three_points_are_too_few_to_align(rng):
    points = body(rng)
    points[2, :2] = np.nan
    aligned = aligned_distances_mm(points, points + 0.1)
    assert np.isnan(aligned[2]).all()
    assert np.allclose(aligned[[0, 1, 3, 4, 5, 6]], 0)


def test_distances_are_in_millimetres_and_shares_count_known_points_only():
    result = np.zeros((4, 1, 3))
    result[:, 0, 1] = [0.03, 0.1, 0.2, np.nan]
    figures = distance_figures(point_distances_mm(result, np.zeros((4, 1, 3))))
    assert figures["mean_mm"] == pytest.approx(110)
    assert figures["max_mm"] == pytest.approx(200)
    assert figures["pck_50mm"] == pytest.approx(1 / 3)
    assert figures["pck_150mm"] == pytest.approx(2 / 3)
    assert figures["samples"] == 3


def test_jitter_is_the_error_of_acceleration():
    time_s = np.arange(6) / 50
    reference = np.zeros((6, 2, 3))
    result = reference.copy()
    result[:, 1, 2] = 0.5 * 4 * time_s**2 + 3 * time_s + 1
    assert np.allclose(acceleration_errors(result, reference, 1 / 50), [[0, 4]] * 4)


def test_a_segment_that_is_too_long_and_wobbles():
    start = np.zeros((4, 1, 3))
    end, truth = start.copy(), start.copy()
    end[:, 0, 0] = [0.42, 0.44, 0.42, 0.44]
    truth[:, 0, 1] = 0.4
    errors = segment_length_errors(start, end, start, truth)
    assert errors["length_error_mm"] == pytest.approx(30)
    assert errors["length_error_sd_mm"] == pytest.approx(10)
