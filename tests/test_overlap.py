"""A model's steps side by side, boxes between the frames that were looked at, and second looks."""

import threading
import time
import weakref
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_networks import dot_finder

from models.assets import asset_folder
from models.choice import choose
from models.overlap import ahead, estimate, overlapped
from models.people import Detections, Poses
from models.rtm import RtmPoseEstimator
from stages import frames
from stages.detect import Settings, detect_persons, frames_to_look_at
from stages.keypoints import look_again, more_confident, wider_boxes
from stages.trial import Trial, no_progress

PATIENCE_S = 5
"""How long a test waits for a thread before it fails."""


class Piece:
    """Something whose life can be watched."""

    def __init__(self, number):
        self.number = number


def same(value):
    return value


def second(_, value):
    return value


def our_threads():
    return [each for each in threading.enumerate() if each.name.endswith("(_fill)")]


def eventually(holds):
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.005)
    return holds()


@given(st.lists(st.integers(), max_size=30))
@settings(deadline=None)
def test_results_come_in_the_order_of_the_items(items):
    found = overlapped(items, lambda x: x + 1, lambda x: 2 * x, lambda x, y: (x, y))
    assert list(found) == [(x + 1, 2 * (x + 1)) for x in items]


@given(
    st.integers(0, 12),
    st.sampled_from(["items", "prepare", "infer", "read"]),
    st.sampled_from([ValueError, StopIteration, KeyboardInterrupt]),
)
@settings(deadline=None)
def test_what_a_step_raises_reaches_the_caller_after_the_results_before_it(place, step, error):
    def failing(name):
        def run(value, *more):
            if name == step and value == place:
                raise error("here")
            return value

        return run

    items = (failing("items")(value) for value in range(15))
    seen = []
    raised = RuntimeError if error is StopIteration else error  # else it would look like the end
    with pytest.raises(raised):
        for value in overlapped(items, failing("prepare"), failing("infer"), failing("read")):
            seen.append(value)
    assert seen == list(range(place)) and not our_threads()


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_threads_end_and_the_source_is_closed_when_the_caller_stops_early(taken):
    closed = threading.Event()

    def source():
        try:
            yield from count()
        finally:
            closed.set()

    found = overlapped(source(), same, same, second)
    assert list(islice(found, taken)) == list(range(taken))
    found.close()
    assert not our_threads() and (not taken or closed.wait(PATIENCE_S))


def test_at_most_five_items_are_alive_however_slow_the_caller_is():
    alive, most, made = weakref.WeakSet(), 0, 0

    def source():
        nonlocal made
        for number in range(25):
            piece = Piece(number)
            alive.add(piece)
            made += 1
            yield piece
            del piece

    for done, _ in enumerate(overlapped(source(), same, same, lambda piece, _: piece.number)):
        assert eventually(lambda done=done: made >= min(done + 5, 25))
        time.sleep(0.01)  # for those that should not be made
        assert made <= done + 5
        most = max(most, len(alive))
    assert most == 5 and not alive


def test_what_was_read_is_not_kept_while_the_next_item_is_awaited():
    alive, freed = weakref.WeakSet(), []

    def source():
        for number in range(3):
            alive.add(piece := Piece(number))
            yield piece
            del piece
            freed.append(eventually(lambda: not alive))

    assert list(overlapped(source(), same, same, lambda piece, _: piece.number)) == [0, 1, 2]
    assert freed == [True] * 3


def test_the_next_item_is_prepared_and_the_last_one_read_while_one_is_inferred():
    prepared, read = threading.Event(), threading.Event()
    together = []

    def prepare(number):
        if number == 2:
            prepared.set()
        return number

    def infer(number):
        if number == 1:
            together.append(prepared.wait(PATIENCE_S) and read.wait(PATIENCE_S))
        return number

    def take(number, _):
        read.set()
        return number

    assert list(overlapped(range(4), prepare, infer, take)) == [0, 1, 2, 3] and together == [True]


def test_work_ahead_goes_on_in_another_thread():
    names = set(ahead(threading.current_thread().name for _ in range(3)))
    assert names.isdisjoint({threading.current_thread().name})


@given(st.integers(1, 500), st.integers(1, 30))
def test_frames_to_look_at_leave_no_gap_longer_than_asked_for(number, every):
    looked = frames_to_look_at(number, every)
    assert looked[0] == 0 and looked[-1] == number - 1
    assert (np.diff(looked) <= every).all() and (np.diff(looked[:-1]) == every).all()


def overlap(box, other):
    """Intersection over union of boxes (frame, 4)."""
    sides = np.minimum(box[:, 2:], other[:, 2:]) - np.maximum(box[:, :2], other[:, :2])
    shared = np.clip(sides, 0, None).prod(-1)
    areas = [(each[:, 2:] - each[:, :2]).prod(-1) for each in (box, other)]
    return shared / (sum(areas) - shared)


@pytest.mark.slow
def test_boxes_between_looks_are_where_looking_at_every_frame_finds_them():
    video = asset_folder("demo-single-person") / "cam01.mp4"
    info = frames.probe(video, no_progress)
    timeline = frames.as_dataset({"cam01": info}, info.rate_hz)
    trial = Trial("t", "t", {"cam01": video}, Path(), Path())
    boxes = []
    for every in (1, 4):
        its = Settings(backend="blazepose", detect_every=every)
        boxes.append(detect_persons(trial, timeline, choose(its), its, no_progress)["cam01"]["box"])
    found = overlap(*(each[:, 0] for each in boxes))
    assert len(found) == 100 and np.nanmin(found) > 0.8 and np.isfinite(found).all()
    np.testing.assert_array_equal(boxes[0][::4, 0], boxes[1][::4, 0])


def painted(foot=425):
    """Red and green dots, and a blue leg that is the bluer the lower, down to its foot."""
    image = np.zeros((500, 300, 3), np.uint8)
    image[98:103, 148:153, 2] = 255
    image[198:203, 148:153, 1] = 255
    image[250:foot, 148:153, 0] = np.linspace(60, 165, foot - 250).astype(np.uint8)[:, None]
    return image


@pytest.fixture
def estimator(tmp_path):
    return RtmPoseEstimator(dot_finder(tmp_path / "network.onnx"), "cpu")


class TestLookAgain:
    def test_a_keypoint_beyond_the_margin_widens_the_box_by_it_and_no_other(self):
        boxes = np.array([[100.0, 100, 200, 300]] * 4)
        at = np.tile(np.array([150.0, 200]), (4, 3, 1))
        sure = np.full((4, 3), 0.9)
        at[0, 1] = 150, 325  # 1.25 of half the height
        at[1, 1] = 150, 315  # within what the margin leaves
        at[2, 1], sure[2, 1] = (150, 400), 0.2
        at[3, 0], at[3, 2] = (80, 200), np.nan
        sure[3, 2] = 0
        wider = wider_boxes(boxes, Poses(at, sure))
        np.testing.assert_array_equal(wider[0], [100, 100, 200, 325])
        np.testing.assert_array_equal(wider[3], [80, 100, 200, 300])
        assert np.isnan(wider[1:3]).all()

    def test_a_leg_that_was_cut_off_is_seen_farther_down_and_a_whole_one_is_left(self, estimator):
        images = [painted(), painted(), np.zeros((500, 300, 3), np.uint8)]
        boxes = np.array([[[100.0, 80, 200, 360]], [[100.0, 80, 200, 430]], [[np.nan] * 4]])
        persons = [Detections(each, np.zeros(1), np.ones(1)) for each in boxes]
        first = estimate(estimator, images, persons)
        again = look_again(estimator, images, persons, first)
        foot = np.array([150, 424])
        cut, more = (np.linalg.norm(each[0].keypoints[0, 2] - foot) for each in (first, again))
        assert cut > 10 and more < 3
        assert again[0].confidences[0, 2] > first[0].confidences[0, 2]
        np.testing.assert_allclose(again[0].keypoints[0, :2], [[150, 100], [150, 200]], atol=2.5)
        np.testing.assert_allclose(again[1].keypoints[0, 2], foot, atol=2.5)
        assert again[1] is first[1] and again[2] is first[2]

    def test_of_two_looks_the_more_confident_one_counts_person_by_person(self):
        sure = np.array([[0.9, 0.1], [0.3, 0.3], [0.0, 0.0]])
        one = Poses(np.full((3, 2, 2), 1.0), sure)
        other = Poses(np.full((3, 2, 2), 2.0), np.full((3, 2), 0.4))
        kept = more_confident(one, other)
        assert kept.keypoints[:, 0, 0].tolist() == [1, 2, 2]
        np.testing.assert_array_equal(kept.confidences[:2], [[0.9, 0.1], [0.4, 0.4]])
