"""Tracking: which boxes of one view are of one person, from frame to frame.

After ByteTrack (Zhang et al., ECCV 2022): sure detections are given to the tracks first, and those that
are left to unsure ones, which a person half hidden gives. Times are in seconds, so that a rate of frames
or frames that were not looked at change nothing.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

SURE = 0.6
"""A detection is sure with this share of the score that the view's best person usually has: scores of
detectors, and mean confidences of brought keypoints, differ in size."""
OVERLAP = 0.2
"""A person's squares overlap at least this much (intersection over union) with where they are expected."""
LOST_S = 1.0
"""A person who was not seen for longer gets a new track."""
PREDICTED_S = 0.3
"""Persons are expected to go on at their speed for so long, and to stay there then."""


@dataclass
class _Track:
    """Where one person was seen last."""

    number: int
    square: Float[np.ndarray, "3"]
    """Centre and side, px."""
    velocity: Float[np.ndarray, "3"]
    """px/s."""
    time_s: float

    def expected(self, time_s: float) -> Float[np.ndarray, "3"]:
        """The square at a later time, at constant velocity; its side stays."""
        ahead_s = min(time_s - self.time_s, PREDICTED_S)
        return self.square + self.velocity * ahead_s

    def move(self, square: Float[np.ndarray, "3"], time_s: float) -> None:
        """Go on to where the person is now; half of the velocity is of this step."""
        step = (square - self.square) / (time_s - self.time_s)
        self.velocity = (self.velocity + step) / 2 * [1, 1, 0]
        self.square, self.time_s = square, time_s


def track(
    boxes: Float[np.ndarray, "frame detection 4"],
    scores: Float[np.ndarray, "frame detection"],
    time_s: Float[np.ndarray, "frame"],
) -> Int[np.ndarray, "frame detection"]:
    """Number of the track that each box (x1 y1 x2 y2, px) is part of, from 0; -1 where of none.

    Boxes are NaN where there is no detection; their order within a frame does not matter. Frames without
    any, such as those that no detector looked at, change nothing. People who pass each other may leave
    with each other's track: boxes alone do not tell them apart (`models.person_matching` does).
    """
    numbers = np.full(scores.shape, -1)
    found = np.isfinite(boxes).all(-1)
    if not found.any():
        return numbers
    best = np.where(found, scores, -np.inf).max(1)
    sure = found & (scores >= SURE * np.median(best[found.any(1)]))
    squares, tracks, count = _squares(boxes), [], 0
    for frame in np.flatnonzero(found.any(1)):
        now = float(time_s[frame])
        tracks = [each for each in tracks if now - each.time_s <= LOST_S]
        seen_s = max((each.time_s for each in tracks), default=now)
        left = _assign(tracks, squares[frame], sure[frame], now, numbers[frame])
        recent = [each for each in left if each.time_s == seen_s]
        _assign(recent, squares[frame], found[frame] & ~sure[frame], now, numbers[frame])
        for index in np.flatnonzero(sure[frame] & (numbers[frame] < 0)):
            numbers[frame, index] = count
            tracks.append(_Track(count, squares[frame, index], np.zeros(3), now))
            count += 1
    return numbers


def _squares(boxes) -> Float[np.ndarray, "*any 3"]:
    """Centre and longer side: arms and strides change a box's width, and hardly its square."""
    center, size = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    return np.concatenate([center, size.max(-1, keepdims=True)], -1)


def _assign(
    tracks: list[_Track],
    squares: Float[np.ndarray, "detection 3"],
    wanted: Bool[np.ndarray, "detection"],
    now: float,
    numbers: Int[np.ndarray, "detection"],
) -> list[_Track]:
    """Give detections to the tracks where they overlap most in all; return the tracks left over."""
    indices = np.flatnonzero(wanted)
    if not tracks or not len(indices):
        return tracks
    expected = np.stack([each.expected(now) for each in tracks])
    overlap = overlaps(expected, squares[indices])
    rows, columns = linear_sum_assignment(np.where(overlap >= OVERLAP, overlap, 0), maximize=True)
    taken = {row: indices[column] for row, column in zip(rows, columns, strict=True)
             if overlap[row, column] >= OVERLAP}  # fmt: skip
    for row, index in taken.items():
        numbers[index] = tracks[row].number
        tracks[row].move(squares[index], now)
    return [each for row, each in enumerate(tracks) if row not in taken]


def overlaps(
    ones: Float[np.ndarray, "one 3"], others: Float[np.ndarray, "other 3"]
) -> Float[np.ndarray, "one other"]:
    """Intersection over union of squares (centre and side), each with each."""
    one, other = ones[:, None], others[None]
    low = np.maximum(one[..., :2] - one[..., 2:] / 2, other[..., :2] - other[..., 2:] / 2)
    high = np.minimum(one[..., :2] + one[..., 2:] / 2, other[..., :2] + other[..., 2:] / 2)
    shared = np.clip(high - low, 0, None).prod(-1)
    return shared / np.maximum(one[..., 2] ** 2 + other[..., 2] ** 2 - shared, 1e-9)


def persons_of(
    numbers: Int[np.ndarray, "frame detection"],
    boxes: Float[np.ndarray, "frame detection 4"],
    most: int,
    least_frames: int,
) -> Int[np.ndarray, "frame person"]:
    """The track of each person, -1 where there is none; at most so many persons at a time.

    A person is a row of tracks that follow each other. The tracks that are seen largest and longest come
    first, each as the first person who is not seen meanwhile. Tracks of fewer frames than `least_frames`
    are only followed as the first person: of others, they are mistakes of the detector.
    """
    count = numbers.max(initial=-1) + 1
    persons = np.full((len(numbers), most), -1)
    side = np.where(numbers >= 0, _squares(boxes)[..., 2], 0.0)
    size = np.bincount(numbers[numbers >= 0], side[numbers >= 0], count)
    for number in np.argsort(-size, kind="stable"):
        at = np.flatnonzero((numbers == number).any(1))
        span = slice(at[0], at[-1] + 1)
        free = (persons[span] < 0).all(0)
        free[1:] &= len(at) >= least_frames
        if free.any():
            persons[span, free.argmax()] = number
    return persons
