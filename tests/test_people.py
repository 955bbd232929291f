"""Several people in view: each is followed in every camera, whoever passes whom."""

import shutil

import numpy as np
import pytest
import xarray as xr
from conftest import observe, ring
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from calibration import Camera
from models.assets import asset_folder
from models.people_in_view import match
from models.person_matching import SAMPLE_S, ray_miss
from models.person_pieces import View, pieces_of, without_doubles
from models.tracking import LOST_S, persons_of, track
from models.vocabulary import vocabulary
from pipeline import cli
from pipeline.errors import PipelineError
from pipeline.files import load_dataset
from pipeline.persons import parse_person, with_person
from pipeline.simulate import plan_from, simulate
from pipeline.simulated_session import write_session
from stages import detect
from stages.export import read_trc
from stages.persons import (
    choose_subject,
    clocks_of_everyone,
    find_people,
    only_person,
    several_in_view,
)
from stages.trial import Subject, Trial, no_progress

RATE_HZ = 30.0


# Tracking in one view


def walking(paths, frames=40, size=(60, 180)):
    """Boxes (frame, person, 4) of people who go from one point to another, px."""
    share = np.linspace(0, 1, frames)[:, None, None]
    start, end = np.array(paths, float).swapaxes(0, 1)
    center = start + share * (end - start)
    half = np.array(size) / 2
    return np.concatenate([center - half, center + half], -1)


def tracked(boxes, scores=None, time_s=None):
    scores = np.ones(boxes.shape[:2]) if scores is None else scores
    return track(boxes, scores, np.arange(len(boxes)) / RATE_HZ if time_s is None else time_s)


def same_partition(ones, others):
    """Whether two numberings say of the same things that they belong together."""
    pairs = {(int(a), int(b)) for a, b in zip(ones.ravel(), others.ravel(), strict=True)}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


PASSING = [[(100, 300), (900, 320)], [(900, 420), (100, 410)]]


def test_who_passes_in_front_of_somebody_keeps_their_own_track():
    numbers = tracked(walking(PASSING))
    np.testing.assert_array_equal(numbers, np.tile([0, 1], (40, 1)))


@given(st.randoms(use_true_random=False), st.integers(1, 4))
@settings(max_examples=30)
def test_the_order_of_the_persons_in_a_frame_does_not_matter(random, people):
    paths = [[(200 + 300 * k, 300), (350 + 300 * k, 500)] for k in range(people)]
    boxes = walking(paths)
    order = np.array([random.sample(range(people), people) for _ in boxes])
    shuffled = np.take_along_axis(boxes, order[..., None], 1)
    assert same_partition(tracked(shuffled), order)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_a_recording_played_backwards_has_the_same_tracks(seed):
    random = np.random.default_rng(seed)
    steps = np.cumsum(random.normal(0, 6, (30, 3, 2)), 0)
    boxes = walking([[(200 + 700 * k, 300)] * 2 for k in range(3)], 30)
    boxes += np.tile(steps, 2)
    boxes[random.uniform(size=(30, 3)) < 0.2] = np.nan
    assert same_partition(tracked(boxes), tracked(boxes[::-1])[::-1])


@pytest.mark.parametrize("every", [2, 4, 5])
def test_frames_that_no_detector_looked_at_change_nothing(every):
    boxes = walking(PASSING)
    unseen = np.arange(40) % every != 0
    some = np.where(unseen[:, None, None], np.nan, boxes)
    numbers = tracked(some)
    np.testing.assert_array_equal(numbers[~unseen], np.tile([0, 1], ((~unseen).sum(), 1)))
    assert (numbers[unseen] == -1).all()


def test_unsure_detections_continue_a_track_and_begin_none():
    boxes, scores = walking([[(100, 300), (300, 300)], [(800, 300), (800, 300)]]), np.ones((40, 2))
    scores[15:20, 0] = 0.2  # half hidden
    scores[:, 1] = 0.2  # a coat on a hook
    np.testing.assert_array_equal(tracked(boxes, scores), np.tile([0, -1], (40, 1)))


def test_who_starts_to_run_is_expected_where_they_will_be():
    """At full speed the boxes of neighbouring frames hardly overlap."""
    boxes = walking([[(300, 300), (300, 300)]], 12)
    boxes[..., [0, 2]] += np.cumsum([0, 40, 80, 120, *[150] * 8])[:, None, None]
    np.testing.assert_array_equal(tracked(boxes), np.zeros((12, 1)))


@pytest.mark.parametrize("gap_s, tracks", [(0.9 * LOST_S, 1), (1.2 * LOST_S, 2)])
def test_who_was_not_seen_for_long_gets_a_new_track(gap_s, tracks):
    boxes = walking([[(300, 300), (310, 300)]], 20)
    time_s = np.arange(20) / RATE_HZ
    time_s[10:] += gap_s
    assert tracked(boxes, time_s=time_s).max() + 1 == tracks


def test_persons_are_rows_of_tracks_the_largest_and_longest_first():
    numbers = np.full((20, 2), -1)
    numbers[:, 1], numbers[:8, 0], numbers[10:, 0], numbers[9, 0] = 1, 0, 2, 3
    boxes = walking([[(100, 300)] * 2, [(600, 300)] * 2], 20)
    persons = persons_of(numbers, boxes, most=2, least_frames=3)
    assert (persons[:, 0] == 1).all()
    assert persons[:, 1].tolist() == [0] * 8 + [-1] * 2 + [2] * 10  # one frame is a mistake
    assert (persons_of(numbers, boxes, most=1, least_frames=3)[:, 0] == 1).all()


def by_person(boxes, looked=None, **its):
    arrays = {
        "box": boxes if looked is None else boxes[looked],
        "rotation": np.zeros(boxes.shape[:2]),
        "score": np.isfinite(boxes).all(-1).astype(float),
        "place": np.zeros(boxes.shape[:2], int),
    }
    looked = np.arange(len(boxes)) if looked is None else looked
    arrays = {name: values[: len(looked)] for name, values in arrays.items()}
    time_s = np.arange(len(boxes)) / RATE_HZ
    return detect.by_person(arrays, looked, time_s, RATE_HZ, detect.Settings(**its))


def test_boxes_between_looks_and_in_short_gaps_are_those_of_a_steady_walk():
    boxes = walking(PASSING)
    found = by_person(boxes, detect.frames_to_look_at(40, 4))
    order = found["track"][0]
    np.testing.assert_allclose(found["box"][:, order[:2]], boxes, atol=1e-9)
    assert (found["score"][:, :2] == 1).all() and (found["score"][:, 2] == 0).all()
    gaps = boxes[:, :1].copy()
    gaps[5:9], gaps[20:35] = np.nan, np.nan
    filled = by_person(gaps, max_gap_s=0.2)["box"][:, 0]
    np.testing.assert_allclose(filled[:20], boxes[:20, 0], atol=1e-9)
    assert np.isnan(filled[20:35]).all()


def test_one_look_in_which_somebody_was_missed_is_bridged_at_any_rate():
    boxes = walking(PASSING)[:, :1]
    missed = boxes.copy()
    missed[20] = np.nan
    looked = detect.frames_to_look_at(40, 4)
    assert 20 in looked
    found = by_person(missed, looked, max_gap_s=0.0)["box"][:, 0]
    np.testing.assert_allclose(found, boxes[:, 0], atol=1e-9)


def test_a_turn_beyond_upside_down_goes_on_the_short_way():
    seen = {"box": np.zeros((2, 4)), "rotation": np.array([3.1, -3.1]), "score": np.ones(2),
            "place": np.zeros(2, int), "track": np.zeros(2, int)}  # fmt: skip
    turned = detect.one_track(seen, np.array([0, 4]), np.array([0, 1]), 5, 3)["rotation"]
    assert np.cos(turned).max() < -0.99


def test_no_box_slides_from_one_person_to_the_next():
    boxes = walking([[(100, 300), (110, 300)]], 20)
    boxes[10:] += 500  # somebody else
    boxes[9:11] = np.nan
    found = by_person(boxes, max_gap_s=0.5)
    assert np.isnan(found["box"][9:11, 0]).all()
    assert found["track"][:, 0].tolist() == [0] * 9 + [-1] * 2 + [1] * 9


# Who is who in several views

BODY = np.array(
    [[x, y, z] for y, wide in ((0.05, 0.12), (0.5, 0.12), (0.95, 0.15), (1.4, 0.2), (1.65, 0.05))
     for x, z in ((0.05, wide), (0.0, -wide))]
)  # fmt: skip


def people_who_pass(seconds=4.0, rate_hz=RATE_HZ, beside_m=0.8):
    """Keypoints (time, person, keypoint, 3), m, of somebody who bends and sways, and of a passer-by."""
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    phase = 2 * np.pi * np.multiply.outer(time_s, [0.31, 0.47, 0.73])
    sway = 0.12 * np.stack([np.sin(phase[:, 0]), np.cos(phase[:, 1]) - 1, np.sin(phase[:, 2])], -1)
    stays = BODY + sway[:, None] * BODY[:, 1:2]
    steps = 0.15 * np.sin(2 * np.pi * 0.9 * time_s)[:, None] * np.array([1, -1] * 5)
    passes = np.tile(BODY * [1, 1.05, 1], (len(time_s), 1, 1))
    passes[..., 0] += (2.0 - 4.0 * time_s / seconds)[:, None] + steps * (BODY[:, 1] < 0.7)
    passes[..., 2] += beside_m
    return time_s, np.stack([stays, passes], 1)


def filmed(time_s, points, cameras=4, seed=0, noise=0.004, shuffled=True):
    """Views of a ring of cameras, in which the order of persons is drawn anew for each frame.

    Returns them and the true person of each pose (camera, frame, pose).
    """
    random, views, truth = np.random.default_rng(seed), [], []
    for pose in ring(max(cameras, 3))[:cameras]:
        image = observe(points, pose[None])[0]
        image += random.normal(0, noise, image.shape)
        order = np.tile(np.arange(points.shape[1]), (len(time_s), 1))
        order = random.permuted(order, axis=1) if shuffled else order
        views.append(View(time_s, np.take_along_axis(image, order[..., None, None], 1), pose))
        truth.append(order)
    return views, truth


def followed(person, truth):
    """The true persons whom a person's poses are of, by view; -1 where there is none."""
    return [
        np.where(pose >= 0, np.take_along_axis(order, np.maximum(pose, 0)[:, None], 1)[:, 0], -1)
        for pose, order in zip(person.pose, truth, strict=True)
    ]


def test_the_miss_of_two_rays_is_their_least_distance():
    random = np.random.default_rng(1)
    poses, image = ring(3), random.uniform(-0.2, 0.2, (2, 1, 1, 6, 2))
    views = [View(np.zeros(1), image[k], poses[k]) for k in range(2)]
    expected = []
    for keypoint in range(6):
        lines = []
        for view in views:
            rotation, translation = view.camera_from_world[:, :3], view.camera_from_world[:, 3]
            ray = rotation.T @ np.append(view.image[0, 0, keypoint], 1)
            lines.append((-rotation.T @ translation, ray))
        (p, a), (q, b) = lines
        s, residual, *_ = np.linalg.lstsq(np.stack([a, -b], 1), q - p, rcond=None)
        assert (s > 0).all()
        expected.append(min(np.sqrt(residual[0]), 0.3))
    found = ray_miss(views[0], np.zeros(1, int), views[1], np.zeros(1, int))
    np.testing.assert_allclose(found[0, 0, 0], np.mean(expected), atol=1e-9)


@pytest.mark.parametrize("rate_hz", [10.0, 12.0, 25.0, 60.0])
def test_slow_cameras_that_take_turns_see_people_at_the_same_time(rate_hz):
    time_s, points = people_who_pass(rate_hz=120.0)
    step = round(120.0 / rate_hz)
    views = []
    for index, whole in enumerate(filmed(time_s, points, 2, shuffled=False)[0]):
        chosen = slice(index * step // 2, None, step)
        views.append(View(whole.time_s[chosen], whole.image[chosen], whole.camera_from_world))
    people = match(views).people
    assert len(people) == 2
    assert all(len(each.steps) * SAMPLE_S > 3.0 for each in people)


def test_a_camera_that_sees_nobody_does_not_stop_the_search_for_clocks():
    views, _ = filmed(*people_who_pass(), cameras=3)
    blind = View(views[0].time_s, np.full_like(views[0].image, np.nan), views[0].camera_from_world)
    clocks = clocks_of_everyone([*views[:2], blind], ["a", "b", "c"], {}, 2.0)
    assert set(clocks) == {"a", "b", "c"}


@pytest.mark.parametrize("cameras", [2, 3, 4])
def test_two_people_who_pass_each_other_are_told_apart_whatever_their_order(cameras):
    views, truth = filmed(*people_who_pass(), cameras)
    people = match(views).people
    assert len(people) == 2
    of_each = [{int(who) for view in followed(each, truth) for who in view} for each in people]
    assert sorted(map(tuple, (sorted(each - {-1}) for each in of_each))) == [(0,), (1,)]
    found = [np.mean([(view >= 0).mean() for view in followed(each, truth)]) for each in people]
    assert min(found) > 0.95


def test_it_does_not_matter_in_which_order_the_cameras_are_given():
    views, truth = filmed(*people_who_pass(2.0), 3)
    there = match(views).people
    back = match(views[::-1]).people
    for one, other in zip(there, back, strict=True):
        for pose, again in zip(one.pose, other.pose[::-1], strict=True):
            np.testing.assert_array_equal(pose, again)


def test_poses_that_no_other_camera_confirms_are_nobodys():
    time_s, points = people_who_pass(2.0)
    views, truth = filmed(time_s, points, 3, shuffled=False)
    alone = View(time_s, views[0].image[:, 1:] * 0.3 - 0.5, views[0].camera_from_world)
    ghost = np.concatenate([views[0].image[:, :1], alone.image], 1)
    others = [View(time_s, each.image[:, :1], each.camera_from_world) for each in views[1:]]
    people = match([View(time_s, ghost, views[0].camera_from_world), *others]).people
    assert len(people) == 1 and set(people[0].pose[0]) <= {0, -1}


def test_a_pose_that_jumps_onto_another_person_ends_its_piece():
    time_s, points = people_who_pass(2.0)
    views, _ = filmed(time_s, points, 1, shuffled=False)
    jumping = views[0].image[:, :1].copy()
    jumping[20:] = views[0].image[20:, 1:]
    pieces = pieces_of([View(time_s, jumping, views[0].camera_from_world)])
    assert all((each.frames < 20).all() or (each.frames >= 20).all() for each in pieces)
    assert sum(len(each.frames) for each in pieces) == len(time_s)


def test_a_person_found_twice_in_a_frame_counts_once():
    time_s, points = people_who_pass(1.0)
    views, _ = filmed(time_s, points, 1, shuffled=False)
    again = views[0].image[:, :1] + 0.004
    again[:, :, 0] = np.nan  # the worse one
    doubled = np.concatenate([again, views[0].image], 1)
    seen = without_doubles(View(time_s, doubled, views[0].camera_from_world)).seen
    assert seen.all(0).tolist() == [False, True, True] and not seen[:, 0].any()


def out_of_view(views, person, start, stop):
    """The same views (not shuffled) with a person unseen for some frames."""
    for view in views:
        view.image[start:stop, person] = np.nan
    return views


def test_who_leaves_and_comes_back_alone_is_the_same_person_and_the_user_is_told():
    views, truth = filmed(*people_who_pass(6.0), 3, shuffled=False)
    views = out_of_view(out_of_view(views, 1, 0, 180), 0, 60, 120)
    found = match(views)
    assert len(found.people) == 1 and found.returned_s[0][0] == 0
    assert found.returned_s[0][1] == pytest.approx(4.0, abs=0.1)


def test_who_leaves_twice_and_comes_back_is_still_the_same_person():
    views, truth = filmed(*people_who_pass(8.0), 2, shuffled=False)
    views = out_of_view(out_of_view(views, 1, 0, 240), 0, 50, 120)
    found = match(out_of_view(views, 0, 150, 190))
    assert len(found.people) == 1 and [index for index, _ in found.returned_s] == [0, 0]
    assert sorted(at_s for _, at_s in found.returned_s) == pytest.approx([4.0, 190 / 30], abs=0.1)


def test_who_comes_when_two_have_left_is_nobody_known():
    views, truth = filmed(*people_who_pass(6.0), 3, shuffled=False)
    views = out_of_view(out_of_view(views, 1, 60, 180), 0, 60, 120)
    found = match(views)
    assert len(found.people) == 3 and not found.returned_s


def test_two_who_meet_out_of_sight_might_be_exchanged_and_the_user_is_told():
    """Both stand still at one place, and nobody sees them while they might change places."""
    time_s, points = people_who_pass(3.0)
    still = np.repeat(points[:1, :1], len(time_s), 0)
    near = np.concatenate([still, still + [0.0, 0.0, 0.25]], 2)
    views, _ = filmed(time_s, near.reshape(len(time_s), 2, 10, 3), 2, shuffled=False)
    apart, _ = filmed(*people_who_pass(3.0), 2, shuffled=False)
    assert match(out_of_view(out_of_view(views, 0, 40, 58), 1, 40, 58)).unsure_s
    assert not match(apart).unsure_s


# Of cameras that are not started together


def test_clocks_are_found_by_everybodys_movement_before_anybody_knows_who_is_who():
    time_s, points = people_who_pass(8.0, 60.0)
    views, _ = filmed(time_s, points, 3, shuffled=False)
    views[1].image[:] = views[1].image[:, ::-1].copy()
    late = [0, 45, 102]  # frames
    cut = [
        View(time_s[: len(time_s) - n], view.image[n:], view.camera_from_world)
        for view, n in zip(views, late, strict=True)
    ]
    clocks = clocks_of_everyone(cut, ["a", "b", "c"], {}, 4.0)
    np.testing.assert_allclose([clocks[name][0] for name in "abc"], np.array(late) / 60, atol=0.035)


# Choosing the subject


@pytest.fixture(scope="module")
def in_view():
    """Keypoints of three cameras (px) of the two people, the cameras, and their clocks."""
    time_s, points = people_who_pass(2.0)
    views, truth = filmed(time_s, points, 3)
    matrix = np.array([[900.0, 0, 540], [0, 900, 960], [0, 0, 1]])
    cameras, positions = [], []
    for number, view in enumerate(views):
        pose = np.vstack([view.camera_from_world, [0, 0, 0, 1]])
        cameras.append(Camera(f"cam{number}", (1080, 1920), matrix, np.zeros(5), pose))
        positions.append(900 * view.image + [540, 960])
    dims = ("camera", "frame", "person", "keypoint")
    position = np.stack(positions)
    keypoints = xr.Dataset(
        {
            "position": ((*dims, "axis"), position),
            "confidence": (dims, np.full(position.shape[:-1], 0.9)),
            "track": (dims[:3], np.tile([0, 1], (*position.shape[:2], 1))),
        },
        coords={"camera": [each.name for each in cameras]},
    )
    return keypoints, cameras, {each.name: time_s for each in cameras}, np.stack(truth)


@pytest.mark.parametrize("asked, who", [("central", 0), (1, None), (2, None), ("largest", None)])
def test_the_subject_is_the_one_who_is_asked_for_in_every_camera(in_view, asked, who):
    keypoints, cameras, clocks, truth = in_view
    people = find_people(keypoints, cameras, [clocks])
    subject = choose_subject(keypoints, people, asked)
    chosen = np.take_along_axis(truth, np.maximum(subject.person, 0)[..., None], 2)[..., 0]
    followed = set(chosen[subject.person >= 0].tolist())
    assert len(followed) == 1 and (who is None or followed == {who})
    assert subject.people == 2 and subject.number == {"largest": 1}.get(asked, subject.number)
    assert f"person {subject.number}" in subject.notices[0] and "2 people" in subject.notices[0]
    # The detector's order changes all the time here: so do its tracks, in all cameras.
    assert sum("its track changed" in notice for notice in subject.notices) == 3


def test_the_two_numbers_are_of_the_two_people(in_view):
    keypoints, cameras, clocks, _ = in_view
    people = find_people(keypoints, cameras, [clocks])
    one, other = (choose_subject(keypoints, people, number).person for number in (1, 2))
    both = (one >= 0) & (other >= 0)
    assert both.mean() > 0.9 and (one != other)[both].all()


def test_a_person_who_is_not_there_is_refused_with_how_many_there_are(in_view):
    keypoints, cameras, clocks, _ = in_view
    people = find_people(keypoints, cameras, [clocks])
    with pytest.raises(PipelineError, match="no person 3.*2 people"):
        choose_subject(keypoints, people, 3)
    with pytest.raises(PipelineError, match="no person 2.*one person"):
        only_person(keypoints.isel(person=[0]), 2)


def test_people_whom_no_two_cameras_see_are_refused(in_view):
    keypoints, cameras, clocks, _ = in_view
    elsewhere = keypoints.assign(position=keypoints.position.copy())
    elsewhere.position[1] += 700.0
    elsewhere.position[2] -= 700.0
    with pytest.raises(PipelineError, match="no two cameras see the same one"):
        find_people(elsewhere, cameras, [clocks])


def test_one_person_in_view_is_taken_as_they_are(in_view):
    keypoints, *_ = in_view
    assert several_in_view(keypoints)
    alone = keypoints.copy(deep=True)
    alone.confidence[:, 1:, 1] = 0.0
    assert not several_in_view(alone)
    assert (only_person(alone, "central").person == 0).all()


# Whose results a run gives


def test_another_person_has_results_of_their_own_and_nothing_of_the_usual_one(tmp_path):
    static = Trial("s", "static", {}, tmp_path, tmp_path / "s")
    trial = Trial(
        "t", "t", {}, tmp_path, tmp_path / "t", Subject(1.8, 80.0), scaling_trial=static,
        session_trials=(static,),
    )  # fmt: skip
    other = with_person(trial, 2, "largest")
    assert other.results.name == "t_person2" and other.subject == Subject()
    assert other.scaling_trial is None and other.session_trials == ()
    for stage in ("frames", "detect", "keypoints"):
        assert other.folder(stage) == trial.folder(stage)
    assert other.folder("synchronize").parent == other.results
    assert with_person(trial, 1, "largest") is trial and with_person(trial, 2, 2) is trial
    assert with_person(trial, "central", "largest").results.name == "t_central"


@pytest.mark.parametrize("text", ["0", "-1", "tallest", "2.5", ""])
def test_persons_that_cannot_be_meant_are_named(text):
    with pytest.raises(PipelineError, match="expected largest, central"):
        parse_person(text)


# Recordings


def test_the_simulator_lists_two_persons_in_changing_order(tmp_path):
    plan = plan_from(
        {"motion": "gait", "model": "pose2sim", "persons": 2, "cameras": 2, "static": False,
         "duration_s": 0.6}, 0, []
    )  # fmt: skip
    simulation = simulate(plan)
    alone = simulate(plan.model_copy(update={"persons": 1}))
    for name, view in simulation.trials[0].views.items():
        np.testing.assert_array_equal(view.position, alone.trials[0].views[name].position)
    write_session(simulation, tmp_path / "s", "pipeline", False, no_progress)
    assert (tmp_path / "s" / "truth" / "gait1_person2" / "keypoints.trc").is_file()
    with pytest.raises(PipelineError, match="one person only"):
        write_session(simulation, tmp_path / "v", "pipeline", True, no_progress)


def run(*arguments):
    return CliRunner().invoke(cli.app, ["run", *map(str, arguments)])


def distance_m(results, truth):
    """Median distance (time) of a result's keypoints from a true person's."""
    points = load_dataset(results / "05_triangulate" / "points.nc").position
    time_s, names, position = read_trc(truth / "keypoints.trc")
    known = [name for name in map(str, points.keypoint.values) if name in names]
    true = xr.DataArray(
        position[:, [names.index(name) for name in known]], dims=("time", "keypoint", "axis"),
        coords={"time": time_s, "keypoint": known, "axis": ["x", "y", "z"]},
    ).interp(time=points.time)  # fmt: skip
    apart = np.linalg.norm(
        (points.sel(keypoint=known) - true).transpose("time", "keypoint", "axis"), axis=-1
    )
    return np.nanmedian(apart[np.isfinite(apart).any(1)], axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("start_spread_s", [0.0, 2.0])
def test_both_persons_of_a_simulated_session_are_followed_without_a_switch(
    tmp_path, start_spread_s
):
    plan = plan_from(
        {"motion": "squats", "model": "pose2sim", "persons": 2, "cameras": 3, "static": False,
         "start_spread_s": start_spread_s, "seed": 4}, 1.0, []
    )  # fmt: skip
    session = tmp_path / "session"
    write_session(simulate(plan), session, "pipeline", False, no_progress)
    ended = run(session, "--person", "all", "--to", "triangulate")
    assert ended.exit_code == 0, ended.output
    truths = [session / "truth" / name for name in ("squats1", "squats1_person2")]
    followed = []
    for results in (session / "results" / name for name in ("squats1", "squats1_person2")):
        far = [distance_m(results, truth) for truth in truths]
        who = int(np.argmin([np.median(each) for each in far]))
        followed.append(who)
        assert np.median(far[who]) < 0.1 and far[who].max() < 0.4 < np.median(far[1 - who])
    assert sorted(followed) == [0, 1]
    refused = run(session, "--person", "3", "--to", "triangulate")
    assert refused.exit_code == 1 and "no person 3" in str(refused.exception)


@pytest.mark.slow
def test_both_persons_of_the_two_person_demo_are_followed_without_a_switch(tmp_path):
    source = asset_folder("demo-multi-person")
    for video in source.glob("*.mp4"):
        (tmp_path / "videos" / "both").mkdir(parents=True, exist_ok=True)
        shutil.copy(video, tmp_path / "videos" / "both")
    (tmp_path / "calibration").mkdir()
    shutil.copy(source / "Calib.qca.txt", tmp_path / "calibration")
    ended = run(tmp_path, "--person", "all", "--to", "triangulate")
    assert ended.exit_code == 0, ended.output
    names = vocabulary("blazepose-33").keypoints
    shoulders = [names.index("LShoulder"), names.index("RShoulder")]
    paths = []
    for results in ("both", "both_person2"):
        points = load_dataset(tmp_path / "results" / results / "05_triangulate" / "points.nc")
        position = points.position.transpose("time", "keypoint", "axis").values[:, shoulders]
        width_m = np.linalg.norm(position[:, 0] - position[:, 1], axis=-1)
        low, high = np.nanpercentile(width_m, [10, 90])
        assert np.isfinite(width_m).mean() > 0.8 and high - low < 0.12
        assert np.nanmedian(points.reprojection_error_m) < 0.04
        paths.append(position.mean(1))
    walker, assistant = sorted(paths, key=lambda path: np.nanmean(path[:, 1]), reverse=True)
    # One walks on a treadmill, a step above the other, who stands at its edge, 0.6 m away and more.
    assert (
        np.linalg.norm(walker - assistant, axis=-1)[np.isfinite(walker + assistant).all(-1)] > 0.4
    ).all()
    for path in (walker, assistant):
        jump_m = np.linalg.norm(np.diff(path, axis=0), axis=-1)
        assert np.nanpercentile(jump_m, 95) < 0.08
