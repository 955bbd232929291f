import json

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import accuracy, skeleton_suite, skeleton_tables, triangulation
from benchmarks.chains import Outcome, direct_linear, flexions_between
from benchmarks.pose2sim import Lag, lags_in
from benchmarks.skeleton_demo import carried
from benchmarks.skeleton_variants import CLASSICAL, IMAGES, KEYPOINTS, Fitted, segment_lengths_mm
from benchmarks.synchronization_peer import errors_of, write_frames
from benchmarks.triangulation_demo import by_choice, compared
from benchmarks.triangulation_methods import (
    ALGEBRAIC,
    ALONE,
    GEOMETRIC,
    PLAIN,
    VOLUMETRIC,
    Found,
    by_all,
    points_of_trc,
    with_variant,
)
from benchmarks.triangulation_recordings import Recording, with_swaps
from benchmarks.triangulation_scores import DISTANCE, LENGTH, overall, swap_shares
from benchmarks.triangulation_scores import errors_of as point_errors
from benchmarks.triangulation_suite import suite, swap_plans, swap_table
from models import algebraic, volumetric
from models.multiview import JOINTS
from models.opensim_model import BodyPoses
from models.simulation.detector import LEGS
from models.simulation.performances import FIRST_SEED, MOTIONS
from models.simulation.rig import place_cameras
from models.simulation.scene import View
from models.weights import shipped_weights
from stages.export import write_trc
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


STANDING = {
    "Nose": (0.1, 1.65, 0), "Eye": (0.08, 1.7, 0.03), "Ear": (0, 1.68, 0.07), "Head": (0, 1.8, 0),
    "Neck": (0, 1.45, 0), "Shoulder": (0, 1.4, 0.18), "Elbow": (0, 1.1, 0.25),
    "Wrist": (0.1, 0.9, 0.28), "midHip": (0, 0.95, 0), "Hip": (0, 0.95, 0.09), "Knee": (0.05, 0.5, 0.1),
    "Ankle": (0, 0.08, 0.1), "Heel": (-0.05, 0.02, 0.1), "BigToe": (0.18, 0.02, 0.08),
    "SmallToe": (0.14, 0.02, 0.14),
}  # fmt: skip
"""Places of the right side, m: X forwards, Y up, Z to the right."""


def standing() -> np.ndarray:
    """Joints of a person, by halpe-26."""
    mirrored = [1.0, 1.0, -1.0]
    return np.array(
        [
            STANDING.get(name) or np.multiply(STANDING[name[1:]], mirrored if name[0] == "L" else 1)
            for name in JOINTS
        ]
    )


@pytest.fixture(scope="module")
def walker() -> Recording:
    """A stiff person who moves forwards for 40 frames before four cameras, seen without errors."""
    cameras = place_cameras(4, np.array([0.0, 1.0, 0.0]), np.random.default_rng(2))
    truth = standing() + np.linspace(-0.4, 0.4, 40)[:, None, None] * [1.0, 0, 0]
    pixels = np.stack([camera.project(truth) for camera in cameras])
    return Recording(JOINTS, tuple(cameras), pixels, np.full(pixels.shape[:3], 0.9), 1 / 30, truth)


@pytest.fixture(scope="module")
def networks():
    """Small networks with random weights, which no number of is kept."""
    torch.manual_seed(0)
    cube = volumetric.Architecture(voxels=16, volume_channels=4, channels=16, context_channels=16)
    return with_variant(
        {
            ALGEBRAIC: algebraic.Algebraic(algebraic.Architecture(channels=16, layers=1)).eval(),
            VOLUMETRIC: volumetric.Volumetric(cube).eval(),
        }
    )


def test_plain_least_squares_meets_where_all_rays_do(walker):
    image = walker.image
    image[1:, 3, 5] = np.nan
    points = direct_linear(image, walker.camera_from_world)
    assert np.isnan(points[3, 5]).all()
    error = np.abs(points - walker.truth)
    error[3, 5] = 0
    assert error.max() < 1e-6


def test_a_knee_between_keypoints_is_straight_or_bent_by_a_right_angle():
    points = {name: place[None] for name, place in zip(JOINTS, standing(), strict=True)}
    down = {"RHip": (0, 0.9, 0.1), "RKnee": (0, 0.5, 0.1), "RAnkle": (0, 0.1, 0.1)}
    points |= {name: np.array([place]) for name, place in down.items()}
    assert flexions_between(points)["knee_angle_r"] == pytest.approx([0], abs=1e-9)
    points["RAnkle"] = np.array([[-0.4, 0.5, 0.1]])
    assert flexions_between(points)["knee_angle_r"] == pytest.approx([90])


def test_the_suite_of_triangulation_is_of_seeds_and_a_movement_that_training_never_saw():
    plans = suite() + swap_plans()
    assert max(plan.seed for plan in plans) < FIRST_SEED
    assert {plan.motion for plan in plans} - set(MOTIONS) == {"dropjump"}
    assert len({plan.model_dump_json() for plan in plans}) == len(plans)
    assert all(plan.errors.swaps == 0 < plan.errors.jitter for plan in swap_plans())


def test_forced_swaps_exchange_the_legs_of_one_view_and_nothing_else(walker):
    changed, swapped = with_swaps(walker, seed=2)
    assert 0 < swapped.sum() < len(swapped)
    differs = (changed.pixels != walker.pixels).any(-1)
    (camera,) = differs.any((1, 2)).nonzero()[0]
    assert (differs[camera].any(1) == swapped).all()
    legs = {JOINTS[index] for index in differs[camera].any(0).nonzero()[0]}
    assert legs == {n for n in JOINTS if n[1:] in LEGS}
    right, left = JOINTS.index("RKnee"), JOINTS.index("LKnee")
    assert (changed.pixels[camera, swapped, right] == walker.pixels[camera, swapped, left]).all()


def test_legs_are_right_only_if_near_nearer_than_the_others_and_there(walker):
    truth = walker.truth
    exchanged, missing = truth.copy(), truth.copy()
    for part in LEGS:
        pair = [JOINTS.index(f"{side}{part}") for side in "RL"]
        exchanged[:, pair] = truth[:, pair[::-1]]
        missing[:, pair] = np.nan
    missing[:, JOINTS.index("RHip")] = truth[:, JOINTS.index("RHip")]
    narrow = np.array([1, 1, 0.2])
    for position, right, known in (
        (truth, True, True),
        (truth + [0.04, 0, 0], True, True),
        (truth + [0.06, 0, 0], False, True),
        (exchanged, False, True),
        (missing, False, False),
    ):
        shares = swap_shares(Found.unsure(position), truth, JOINTS)
        assert (shares["right"] == right).all() and (shares["known"] == known).all()
    assert not swap_shares(Found.unsure(exchanged * narrow), truth * narrow, JOINTS)["right"].any()


def test_a_swapped_frame_without_legs_is_not_corrected():
    rows = pd.DataFrame(
        {
            "cameras": 2, "method": "a", "swapped": [True, True, True, True, False],
            "right": [True, False, False, False, True], "known": [True, True, True, False, True],
        }
    )  # fmt: skip
    (row,) = swap_table(rows).to_dict("records")
    assert row["swapped frames"] == 4 and row["corrected (%)"] == 25
    assert row["no legs given (%)"] == 25 and row["right without a swap (%)"] == 100


def test_errors_are_compared_over_what_all_methods_know(walker):
    near, far = walker.truth + [0, 0.01, 0], walker.truth + [0, 0, 0.03]
    far[:, JOINTS.index("RWrist")] += [0, 0, 0.2]
    near[:, JOINTS.index("RWrist")] = np.nan
    deviation = np.full(far.shape, 0.05 / np.sqrt(3))
    found = {GEOMETRIC: Found.unsure(near), VOLUMETRIC: Found(far, deviation)}
    rows = point_errors(found, walker.truth, JOINTS)
    table = overall(rows, [GEOMETRIC, VOLUMETRIC]).set_index("method")
    assert table["MPJPE (mm)"].to_dict() == pytest.approx({GEOMETRIC: 10, VOLUMETRIC: 30})
    assert table["known (%)"].to_dict() == pytest.approx({GEOMETRIC: 95, VOLUMETRIC: 100})
    own = table.loc[VOLUMETRIC]
    assert own["MPJPE, own (mm)"] == pytest.approx(30 + 200 / 20)
    assert own["MPJPE where geometric has none (mm)"] == pytest.approx(230)
    assert own["error / stated SD"] == pytest.approx(np.sqrt(0.95 * 30**2 + 0.05 * 230**2) / 50)
    lengths = rows[rows.quantity == LENGTH]
    assert lengths[VOLUMETRIC].max() < 1e-6 and lengths.isna()[GEOMETRIC].sum() == 1


def test_the_bar_compares_samples_that_both_know():
    rows = pd.DataFrame(
        {
            "movement": "gait", "cameras": [2, 2, 2, 4], "noise": 1.0, "quantity": DISTANCE,
            GEOMETRIC: [40.0, 20.0, np.nan, 10.0], VOLUMETRIC: [20.0, 10.0, 500.0, 11.0],
        }
    )  # fmt: skip
    swaps = pd.DataFrame(
        {"cameras": [2, 3], "method": VOLUMETRIC, "swapped": True, "right": True, "known": True}
    )
    bar = triangulation.bar_of(rows, swaps)
    assert bar.less == pytest.approx(50) and bar.corrected == {2: 100, 3: 100}
    assert bar.worse == ["4 cameras, noise 1: 11.0 mm against 10.0"] and not bar.reached
    assert triangulation.bar_of(rows[:3], swaps).reached


def test_without_context_the_context_does_not_matter(walker, networks):
    few = slice(None, None, 20)
    before = by_all(walker, few, networks)
    assert list(before) == [PLAIN, GEOMETRIC, ALGEBRAIC, ALONE, VOLUMETRIC]
    context = networks[VOLUMETRIC].context
    stored = {name: value.clone() for name, value in context.state_dict().items()}
    with torch.no_grad():
        for each in context.parameters():
            each.add_(0.1)
    after = by_all(walker, few, networks)
    context.load_state_dict(stored)
    np.testing.assert_array_equal(before[ALONE].position, after[ALONE].position)
    assert np.abs(before[VOLUMETRIC].position - after[VOLUMETRIC].position).max() > 1e-4
    assert np.abs(before[GEOMETRIC].position - walker.truth[few]).max() < 1e-6


def test_without_context_the_volume_only_says_where_to_look(walker, networks):
    few, read_out = slice(None, None, 20), networks[VOLUMETRIC].volume.read_out.weight
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        read_out.add_(0.3 * torch.randn(read_out.shape, generator=generator))
    found = by_all(walker, few, networks)
    with torch.no_grad():
        read_out.zero_()
    assert np.abs(found[ALONE].position - walker.truth[few]).max() < 1e-3


def test_points_are_judged_by_cameras_that_did_not_make_them(walker, networks):
    found = {chosen: by_choice(walker, chosen, networks) for chosen in ((0, 1, 2, 3), (0, 2))}
    table = compared(walker, found).set_index(["cameras", "method"])
    two = table.loc[2, GEOMETRIC]
    assert two["reprojection (px)"] < 1e-3 and two["on removed cameras (px)"] < 1e-3
    assert two["from geometric with all (mm)"] < 1e-3
    assert np.isnan(table.loc[4, GEOMETRIC]["on removed cameras (px)"])


def test_frames_that_pose2sim_cut_off_are_missing(walker, tmp_path):
    names = ["Hip" if name == "midHip" else name for name in JOINTS]
    time_s = np.arange(40) * walker.interval_s
    write_trc(tmp_path / "a.trc", time_s[5:30], names, walker.truth[5:30])
    points = points_of_trc(tmp_path / "a.trc", walker)
    assert np.abs(points[5:30] - walker.truth[5:30]).max() < 1e-5
    assert np.isnan(points[:5]).all() and np.isnan(points[30:]).all()


@pytest.mark.slow
@pytest.mark.skipif(shipped_weights(VOLUMETRIC) is None, reason="no weights are shipped")
def test_the_shipped_network_is_better_than_geometry_before_two_cameras():
    errors = triangulation.smoke().set_index("method")["MPJPE (mm)"]
    assert errors[VOLUMETRIC] < errors[GEOMETRIC]


@pytest.mark.slow
def test_angles_of_simulated_sessions_are_no_worse_than_they_were():
    stored = json.loads(accuracy.BASELINE.read_text(encoding="utf-8"))
    found = accuracy.smoke()
    assert set(found) == set(stored)
    assert accuracy.grown(found, stored) == []


def fitted(degrees: float, stated: float = np.nan) -> Fitted:
    """Every angle is so wrong, and so wrong by its own account; segments by 3 and 4 mm."""
    angles = [f"{n}_{s}" for n in ("hip_flexion", "knee_angle", "ankle_angle") for s in "rl"]
    angles += ["pelvis_tilt", "L5_S1_Flex_Ext"]
    outcome = Outcome(
        dict.fromkeys(angles, degrees), degrees, known=1.0, seconds={"kinematics": 2.0}
    )
    return Fitted(
        outcome, outcome, {"thigh R": 3.0, "shank R": -4.0}, dict.fromkeys(angles, stated), frames=4
    )


@pytest.fixture
def rows() -> pd.DataFrame:
    """Every session of the suite, three ways, of which the second is worse where noise is larger."""
    found = []
    for case in skeleton_suite.suite():
        noise = accuracy.noise_of(case.plan)
        ways = {CLASSICAL: fitted(6.0), KEYPOINTS: fitted(1 + noise, 1.0), IMAGES: fitted(5, 0.5)}
        found.append(skeleton_suite.rows_of(case, ways))
    return pd.concat(found, ignore_index=True)


def test_bars_are_bold_where_they_are_missed(rows):
    bars = skeleton_tables.bars(rows, (KEYPOINTS, IMAGES)).set_index("bar")
    knee = "knee flexion, noise {}, 2 cameras"
    assert bars.loc[knee.format(0), KEYPOINTS] == "1.0°"
    assert bars.loc[knee.format(1), KEYPOINTS] == "2.0°"
    assert bars.loc[knee.format(1), IMAGES] == "**5.0°**"
    hip = "hip flexion, all sessions, against the classical chain"
    assert bars.loc[hip, IMAGES] == "**-17 %**"
    assert bars.loc[hip, KEYPOINTS] == "-69 %"  # 1.83° on average against 6°
    assert skeleton_tables.reached(bars.reset_index(), KEYPOINTS) == (7, 7)
    assert skeleton_tables.reached(bars.reset_index(), IMAGES) == (0, 7)


def test_a_fit_that_says_half_of_its_error_is_twice_too_sure(rows):
    own = skeleton_tables.own_estimate(rows, (KEYPOINTS, IMAGES))
    few = own[(own.cameras == 2) & (own.noise == "1.5")].set_index("chain")
    assert few.loc[KEYPOINTS, "knee flexion: error / stated"] == pytest.approx(2.5)
    assert few.loc[IMAGES, "knee flexion: error / stated"] == pytest.approx(10)
    assert CLASSICAL not in set(own.chain)


def test_sessions_that_one_way_refuses_count_for_none(rows):
    refused = rows.index[(rows.chain == IMAGES) & (rows.noise == "1.5")]
    rows.loc[refused, "refused"] = "too little seen"
    table = skeleton_tables.means(rows, ("chain",)).set_index("chain")
    assert set(table.sessions) == {16}
    assert table.loc[KEYPOINTS, "knee_angle"] == pytest.approx(1.5)
    assert table.loc[IMAGES, "segments"] == pytest.approx(np.sqrt(12.5))
    assert skeleton_tables.refusals(rows)[2] == (IMAGES, len(refused), 0)


def test_times_are_of_a_frame_and_the_classical_chains_is_the_whole(rows):
    rows.loc[rows.chain == IMAGES, "seconds kinematics"] *= 3
    whole = skeleton_tables.stage_table(rows).set_index("stage").loc["**in all**"]
    assert whole[[CLASSICAL, KEYPOINTS, IMAGES]].to_list() == [100, 100, 300]


def test_what_the_fit_is_judged_by_has_persons_of_its_own():
    cases = [
        *skeleton_suite.suite(),
        *skeleton_suite.single_errors(),
        *skeleton_suite.more_evidence(),
        *skeleton_suite.unusual_keypoints(),
    ]
    seeds = {case.plan.seed for case in cases}
    others = {case.seed for case in (*accuracy.suite(), *accuracy.SMOKE, *suite(), *swap_plans())}
    others |= {case.seed for case in accuracy.single_errors()[1]}
    assert not seeds & others and max(seeds) < 500 < FIRST_SEED
    assert {case.plan.motion for case in skeleton_suite.suite()} - set(MOTIONS) == {"dropjump"}


def test_an_unusual_persons_thighs_are_long_and_their_shanks_short():
    usual = segment_lengths_mm(skeleton_suite.unusual_model(7, {}))
    unusual = segment_lengths_mm(skeleton_suite.unusual_model(7, {"thigh": 1, "shank": -1}))
    ratio = {n: length / usual[n] for n, length in unusual.items()}
    assert ratio["thigh R"] / ratio["shank R"] == pytest.approx(1.135 / 0.865, rel=0.08)
    assert ratio["foot L"] == pytest.approx(ratio["pelvis"], rel=1e-6)


def test_points_are_carried_by_their_bodies():
    angle = np.linspace(0, 1, 7)
    cosine, sine, zero, one = np.cos(angle), np.sin(angle), 0 * angle, 1 + 0 * angle
    turn = np.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], -1)
    turn = turn.reshape(7, 1, 3, 3)
    origin = np.random.default_rng(1).normal(size=(7, 1, 3))
    poses = BodyPoses(("shank",), origin, turn)
    local = np.array([0.1, -0.3, 0.2])
    there = origin + np.einsum("tbij,j->tbi", turn, local)
    noisy = there.copy()
    noisy[2], noisy[4] = np.nan, noisy[4] + 5.0
    assert carried(noisy, ["shank"], poses) == pytest.approx(there)
