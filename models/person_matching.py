"""Person matching: who is who in calibrated views, over time.

Detectors list the persons of each view in any order, and the tracks of two who pass each other may be
exchanged. So each view is cut into pieces that are surely of one person. Pieces of two views are of one
person if the rays to their keypoints meet; pieces of one view, if the pose goes on from one to the other.
They are joined, those with most evidence first, but never two that one view shows at a time
(correlation clustering: Bansal, Blum and Chawla, Machine Learning 56, 2004). So matches agree over any
number of views, without going through their combinations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np
from jaxtyping import Float, Int

from models.person_pieces import LEAST_KEYPOINTS, Piece, View, pose_distance

MEETING_M = 0.12
"""Rays to the keypoints of one person miss each other by less than this on average, and to those of two
by more. In the two-person demo half of the misses are below 0.07 and 90 % above 0.08 to 0.27."""
LARGEST_M = 0.3
"""Larger misses count as this: a keypoint may be on something else."""
PARALLEL = 1e-3
"""Squared sine of the angle between rays, below which they meet anywhere: 2°."""
SAMPLE_S = 1 / 30
"""Views are compared at samples this far apart."""
BLOCK = 200
"""So many samples at a time, which bounds the memory."""
LINKED_S, LINK_S = 1.0, 0.2
"""A pose is looked for in its view for so long after it was lost; that it goes on there counts as much as
rays of two views that meet for so long."""
LINK_NEAR, LINK_SPEED_PER_S = 0.12, 2.5
"""It goes on if half of its keypoints are nearer than this share of the body's size, and so many sizes a
second more."""
LEAST_S = 0.05
"""Pieces are joined for evidence worth rays of two views that meet for so long."""


@dataclass(frozen=True)
class Evidence:
    """For each two pieces of which something is known: how surely they are of one person."""

    one: Int[np.ndarray, "pair"]
    other: Int[np.ndarray, "pair"]
    seconds: Float[np.ndarray, "pair"]
    """Of rays that meet exactly; below 0 where they miss, minus infinity for pieces that one view shows
    at a time."""


def ray_miss(
    one: View, frames: Int[np.ndarray, "time"], other: View, others: Int[np.ndarray, "time"]
) -> Float[np.ndarray, "time pose other_pose"]:
    """Mean distance between two views' rays to the same keypoints, m, for all pairs of poses.

    Each counts up to `LARGEST_M`, and so much where the rays come nearest behind a camera. NaN where too
    few keypoints can be compared.
    """
    ray, origin = _rays(one, frames)
    other_ray, other_origin = _rays(other, others)
    ray, other_ray, between = ray[:, :, None], other_ray[:, None], other_origin - origin
    across = np.cross(ray, other_ray)
    squared_sine = (across**2).sum(-1)
    safe = np.maximum(squared_sine, 1e-12)
    along = (np.cross(between, other_ray) * across).sum(-1)
    other_along = (np.cross(between, ray) * across).sum(-1)
    miss = np.minimum(np.abs(across @ between) / np.sqrt(safe), LARGEST_M)
    miss = np.where((along > 0) & (other_along > 0), miss, LARGEST_M)
    known = squared_sine > PARALLEL  # never so for NaN
    mean = np.where(known, miss, 0).sum(-1) / np.maximum(known.sum(-1), 1)
    return np.where(known.sum(-1) >= LEAST_KEYPOINTS, mean, np.nan)


def _rays(view: View, frames):
    """Directions of length 1 (time, pose, keypoint, 3) in the world, and the camera's centre."""
    rotation, translation = view.camera_from_world[:, :3], view.camera_from_world[:, 3]
    image = view.image[frames]
    ray = np.concatenate([image, np.ones_like(image[..., :1])], -1) @ rotation
    return ray / np.linalg.norm(ray, axis=-1, keepdims=True), -rotation.T @ translation


def evidence_of(views: Sequence[View], pieces: Sequence[Piece]) -> Evidence:
    """Gather what rays of two views, and poses of one, say about the pieces."""
    owner = [np.full(view.image.shape[:2], -1) for view in views]
    for number, piece in enumerate(pieces):
        owner[piece.view][piece.frames, piece.poses] = number
    start, end = (f(view.time_s[at] for view in views) for f, at in ((min, 0), (max, -1)))
    time = np.arange(start, end + SAMPLE_S / 2, SAMPLE_S)
    at = [_nearest(view.time_s, time) for view in views]
    found = [_links(views, pieces)]
    for one in range(len(views)):
        for other in range(one + 1, len(views)):
            both = np.flatnonzero((at[one] >= 0) & (at[other] >= 0))
            for block in np.split(both, range(BLOCK, len(both), BLOCK)):
                frames, others = at[one][block], at[other][block]
                says = 1 - ray_miss(views[one], frames, views[other], others) / MEETING_M
                pair = owner[one][frames][:, :, None], owner[other][others][:, None]
                pair = np.broadcast_arrays(*pair)
                known = np.isfinite(says) & (pair[0] >= 0) & (pair[1] >= 0)
                seconds = SAMPLE_S * np.clip(says[known], -1, 1)
                found.append(np.stack([pair[0][known], pair[1][known], seconds]))
    one, other, seconds = np.concatenate(found, 1)
    pair, inverse = np.unique(np.stack([one, other]).astype(int), axis=1, return_inverse=True)
    return Evidence(*pair, np.bincount(inverse.ravel(), seconds, pair.shape[1]))


def _nearest(time_s, at) -> Int[np.ndarray, "time"]:
    """Index of the frame nearest to each time; -1 if none is near."""
    after = np.clip(np.searchsorted(time_s, at), 1, len(time_s) - 1)
    nearest = np.where(at - time_s[after - 1] <= time_s[after] - at, after - 1, after)
    farthest_s = 0.51 * max(float(np.median(np.diff(time_s))), SAMPLE_S)
    return np.where(np.abs(time_s[nearest] - at) <= farthest_s, nearest, -1)


def _links(views: Sequence[View], pieces: Sequence[Piece]) -> Float[np.ndarray, "3 pair"]:
    """Evidence of pieces of one view: the pose goes on in the other, or cannot, or both are there."""
    found, sizes = [], [view.extent[1] for view in views]
    for one, piece in enumerate(pieces):
        view, size = views[piece.view], sizes[piece.view]
        end_s = view.time_s[piece.frames[-1]]
        for other in range(one + 1, len(pieces)):
            later = pieces[other]
            gap_s = view.time_s[later.frames[0]] - end_s if later.view == piece.view else np.inf
            if gap_s > LINKED_S:  # and so are all that follow
                break
            if np.isin(later.frames, piece.frames).any():
                found.append((one, other, -np.inf))
            elif gap_s > 0:
                apart = pose_distance(view.image[piece.last], view.image[later.first])
                allowed = LINK_NEAR + LINK_SPEED_PER_S * gap_s
                share = apart / (allowed * max(size[piece.last], size[later.first]))
                says = float(np.clip(1 - share, -1, 1))
                found.append((one, other, LINK_S * says))
                if says > 0.5:
                    break
    return np.array(found, float).reshape(-1, 3).T


def joined(evidence: Evidence, count: int) -> Int[np.ndarray, "piece"]:
    """Number of the group of each piece: the two with most evidence are joined, again and again."""
    between: list[dict[int, float]] = [{} for _ in range(count)]
    for one, other, seconds in zip(
        evidence.one.tolist(), evidence.other.tolist(), evidence.seconds.tolist(), strict=True
    ):
        between[one][other] = between[other][one] = seconds
    queue = [
        (-s, a, b)
        for a, each in enumerate(between)
        for b, s in each.items()
        if a < b and s > LEAST_S
    ]
    heapify(queue)
    group = np.arange(count)
    while queue:
        seconds, one, other = heappop(queue)
        if between[one].get(other) != -seconds:  # joined to something meanwhile
            continue
        if len(between[one]) < len(between[other]):
            one, other = other, one
        group[group == other] = one
        del between[one][other], between[other][one]
        for third, more in between[other].items():
            del between[third][other]
            total = between[one].get(third, 0.0) + more
            between[one][third] = between[third][one] = total
            if total > LEAST_S:
                heappush(queue, (-total, *sorted((one, third))))
        between[other] = {}
    return np.unique(group, return_inverse=True)[1]
