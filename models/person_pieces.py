"""Pieces: the poses of one view, cut so that each piece is of one person."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

LEAST_KEYPOINTS = 4
"""Poses are compared by so many keypoints at least."""
DOUBLE = 0.06
"""Two poses in a frame, half of whose keypoints are nearer to each other than this share of the body's
size, are of one person who was detected twice."""
JITTER, SPEED_PER_S = 0.06, 2.5
"""From frame to frame, half of a person's keypoints move less than this share of the body's size, and
less than so many sizes a second (4 m/s) more."""
LONGEST_S, LONGEST_GAP_S = 0.25, 0.1
"""Pieces are no longer than this, as a pose may slide from one person onto another who is beside; and
none goes on over a longer gap."""


@dataclass(frozen=True)
class View:
    """The poses that one camera saw, in any order."""

    time_s: Float[np.ndarray, "frame"]
    """On the clock of all views."""
    image: Float[np.ndarray, "frame pose keypoint 2"]
    """Undistorted image coordinates (focal length 1); NaN where not seen."""
    camera_from_world: Float[np.ndarray, "3 4"]

    @property
    def seen(self) -> Bool[np.ndarray, "frame pose"]:
        """Where there is a pose."""
        return np.isfinite(self.image).all(-1).sum(-1) >= LEAST_KEYPOINTS

    @cached_property
    def extent(self) -> tuple[Float[np.ndarray, "frame pose 2"], Float[np.ndarray, "frame pose"]]:
        """Middle and longer side of the box around each pose; NaN and 0 where there is none."""
        known = np.isfinite(self.image).all(-1, keepdims=True)
        low = np.where(known, self.image, np.inf).min(2)
        high = np.where(known, self.image, -np.inf).max(2)
        seen = self.seen[..., None]
        low, high = np.where(seen, low, np.nan), np.where(seen, high, np.nan)
        return (low + high) / 2, np.nan_to_num((high - low).max(-1))


@dataclass(frozen=True)
class Piece:
    """Poses of one view that follow each other: surely of one person."""

    view: int
    frames: Int[np.ndarray, "frame"]
    """In order of time."""
    poses: Int[np.ndarray, "frame"]
    """Which of each frame's poses it is."""

    @property
    def first(self) -> tuple[int, int]:
        """Frame and pose of its start."""
        return int(self.frames[0]), int(self.poses[0])

    @property
    def last(self) -> tuple[int, int]:
        """Frame and pose of its end."""
        return int(self.frames[-1]), int(self.poses[-1])


def pose_distance(
    ones: Float[np.ndarray, "*any keypoint 2"], others: Float[np.ndarray, "*any keypoint 2"]
) -> Float[np.ndarray, "*any"]:
    """Median distance between the keypoints that both have; infinite if these are too few."""
    apart = np.linalg.norm(ones - others, axis=-1)
    known = np.isfinite(apart)
    # Of what is not known as many are smaller as are larger: nanmedian is slow, and warns.
    ordered, count = np.sort(np.where(known, apart, np.inf), axis=-1), known.sum(-1)
    middle = np.take_along_axis(ordered, np.maximum(count - 1, 0)[..., None] // 2, -1)[..., 0]
    return np.where(count >= LEAST_KEYPOINTS, middle, np.inf)


def without_doubles(view: View) -> View:
    """Leave out poses of a person who has another pose in the same frame, with more keypoints."""
    image, (_, size) = view.image.copy(), view.extent
    known = np.isfinite(image).all(-1).sum(-1)
    for one in range(image.shape[1]):
        for other in range(one + 1, image.shape[1]):
            largest = np.maximum(size[:, one], size[:, other])
            double = pose_distance(image[:, one], image[:, other]) < DOUBLE * largest
            worse = np.where(known[:, one] >= known[:, other], other, one)
            image[double, worse[double]] = np.nan
    return replace(view, image=image)


def pieces_of(views: Sequence[View]) -> list[Piece]:
    """Cut all views into pieces, in order of view and start.

    From frame to frame a pose goes on to the one that is near enough to it, if there is only one: where
    two persons are at one place in the image, pieces end and new ones begin.
    """
    return [piece for index, view in enumerate(views) for piece in _pieces_of(index, view)]


def _pieces_of(index: int, view: View) -> list[Piece]:
    seen, (_, size) = view.seen, view.extent
    found: list[list[tuple[int, int]]] = []
    going: list[list[tuple[int, int]]] = []
    for frame in np.flatnonzero(seen.any(1)):
        poses = np.flatnonzero(seen[frame])
        before = _continued(view, size, going, frame, poses)
        going = []
        for pose, piece in zip(poses, before, strict=True):
            if piece is None:
                piece = []
                found.append(piece)
            piece.append((int(frame), int(pose)))
            going.append(piece)
    return [Piece(index, *np.array(piece).T) for piece in found]


def _continued(view: View, size, going, frame: int, poses) -> list:
    """For each pose of a frame, the piece that goes on with it, or None."""
    if not going:
        return [None] * len(poses)
    last, chosen = np.array([piece[-1] for piece in going]).T
    first = np.array([piece[0][0] for piece in going])
    now = view.time_s[frame]
    gap_s, lasts_s = now - view.time_s[last], now - view.time_s[first]
    distance = pose_distance(view.image[last, chosen][:, None], view.image[frame, poses][None])
    near = distance < ((JITTER + SPEED_PER_S * gap_s) * size[last, chosen])[:, None]
    near &= ((gap_s < LONGEST_GAP_S) & (lasts_s < LONGEST_S))[:, None]
    clear = near & (near.sum(0) == 1) & (near.sum(1) == 1)[:, None]
    return [going[column.argmax()] if column.any() else None for column in clear.T]
