"""Swaps: in which views a pose model exchanged left and right, by the other views and the frames before.

Pose models at times give the keypoints of the left leg to the right one and the other way round, most
of all where a person is seen from the side. Each view then has two hypotheses, and so many views two to
the power of that. Which is right at which time is decided for the whole trial at once.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int

from models.continuity import LARGEST_COST, STEADY_ERROR_M, STEADY_SPEED_M_S
from models.geometric import ray_equations
from models.vocabulary import chains

EXPECTED_ERROR_M = 0.03
"""Rays usually pass each other at such a distance: detectors that disagree, and the calibration."""
INDEPENDENT_S = 0.1
"""Errors of a detector stay for so long: more frames in that time are not more evidence."""
PRIOR = 6.0
"""What an exchanged view costs for so long: squared expected errors. As are the others."""
SWITCH = 10.0
"""What it costs to begin or end an exchange."""
REVERSED = 20.0
"""What hips or shoulders cost that are reversed against where the feet point, for so long."""
NARROW_M = 0.1
"""Hips and shoulders that seem nearer than this say the less, the nearer they are."""
EVIDENCE = 6
"""So many pairs of a chain, the first, decide: whole hands are where their wrists are."""
MOST_TOGETHER = 6
"""Of so many views all hypotheses are compared; of more, those of each view against the others'."""
ROUNDS = 5

Swapped = dict[str, Bool[np.ndarray, "camera time"]]
"""Which views have left and right exchanged, by chain: legs, arms."""


def find_swaps(
    image: Float[np.ndarray, "camera time keypoint 2"],
    confidence: Float[np.ndarray, "camera time keypoint"],
    camera_from_world: Float[np.ndarray, "camera 3 4"],
    interval_s: float,
    names: Sequence[str],
    min_confidence: float,
) -> Swapped:
    """Say which views exchange left and right of the legs, and of the arms, and when.

    `image` holds undistorted image coordinates (focal length 1), NaN where nothing was seen, at equal
    intervals of time. The choice for all views and times is the one of least cost (by dynamic
    programming: Viterbi, IEEE Trans Inf Theory 13(2), 1967) of

    - how far the rays of views pass each other, in squares of `EXPECTED_ERROR_M`, truncated;
    - how far keypoints move in each image from frame to frame, as `models.continuity` has it: an
      exchange that begins makes them jump to each other's place;
    - how far the axis of hips or shoulders is turned against the feet (nothing without feet);
    - each exchange, `PRIOR` and `SWITCH`: a person seen exactly from the side looks the same either
      way, and is left alone.

    Two views of a symmetrical pose agree either way; then only the latter three decide. So it is where
    all views are exchanged at once, which agrees with itself: jumps and feet alone tell, and of more
    than `MOST_TOGETHER` views it is not even considered. Legs are exchanged as a whole, and so are
    arms: where a pose model exchanged feet but not hips, the fewer follow. Single keypoints that are
    wrong are left to the triangulation.
    """
    deciding = {chain: pairs[:EVIDENCE] for chain, pairs in chains(names).items()}
    used = np.unique(np.concatenate([pairs.ravel() for pairs in deciding.values()]))
    image, seen = image[:, :, used], confidence[:, :, used] >= min_confidence
    seen &= np.isfinite(image).all(-1)
    image = np.where(seen[..., None], image, 0.0)
    equations = ray_equations(image, camera_from_world)
    gram = np.einsum("ctk,ctkri,ctkrj->ctkij", seen, equations, equations, optimize=True)
    points = np.where((seen.sum(0) > 1)[..., None], _least_squares(gram.sum(0)), np.nan)
    depth = _depth(points, camera_from_world)[..., None, None, None]
    right = rightwards(points, [names[column] for column in used])
    share = min(1.0, interval_s / INDEPENDENT_S)
    search = _jointly if len(image) <= MOST_TOGETHER else _by_turns
    found = {}
    for chain, pairs in deciding.items():
        if not len(pairs):
            found[chain] = np.zeros(seen.shape[:2], bool)
            continue
        pairs = np.searchsorted(used, pairs)
        both = seen[:, :, pairs].all(-1)
        evidence = gram[:, :, pairs] * both[..., None, None, None]
        stay, change = _jumps(image[:, :, pairs] * depth, both, interval_s)
        found[chain] = search(evidence, both.sum(0), right, share, stay, change)
    return found


def exchange(
    values: Float[np.ndarray, "camera time keypoint *any"], swapped: Swapped, names: Sequence[str]
) -> Float[np.ndarray, "camera time keypoint *any"]:
    """Exchange left and right of the chains where they are swapped."""
    result = values.copy()
    for chain, pairs in chains(names).items():
        camera, time = np.nonzero(swapped[chain])
        there = camera[:, None, None], time[:, None, None]
        result[*there, pairs] = values[*there, pairs[:, ::-1]]
    return result


def rightwards(
    points: Float[np.ndarray, "time keypoint 3"], names: Sequence[str]
) -> Float[np.ndarray, "time 3"]:
    """Direction to the person's right by where the feet point and the shanks stand; else NaN.

    It does not depend on what is called left and right, nor on how far the trunk bends: feet and shanks
    are never in line.
    """
    needed = [f"{side}{part}" for part in ("BigToe", "Heel", "Knee", "Ankle") for side in "RL"]
    if not set(needed) <= set(names):
        return np.full((len(points), 3), np.nan)
    both = points[:, [list(names).index(name) for name in needed]].reshape(-1, 4, 2, 3).sum(2)
    toes, heels, knees, ankles = both.swapaxes(0, 1)
    right = np.cross(toes - heels, knees - ankles)
    return right / np.linalg.norm(right, axis=-1, keepdims=True)


def _jointly(evidence, views, right, share, stay, change) -> Bool[np.ndarray, "camera time"]:
    """Compare all hypotheses of all views."""
    states = np.array(list(product([False, True], repeat=len(evidence))))
    cost = np.empty((evidence.shape[1], len(states)))
    largest = 2 * np.maximum(2 * views - 3, 0) + LARGEST_COST
    for index, state in enumerate(states[: len(states) // 2]):
        total = np.where(state[:, None, None, None, None, None], evidence[:, :, :, ::-1], evidence)
        position, square = _fitted(total.sum(0))
        apart = np.minimum(square, largest).sum(1)
        cost[:, index] = apart + _turned(position, views, right)
        cost[:, -1 - index] = apart + _turned(position, views, -right)  # all views the other way
    return states[_cheapest((cost + PRIOR * states.sum(1)) * share, stay, change)].T


def _by_turns(evidence, views, right, share, stay, change) -> Bool[np.ndarray, "camera time"]:
    """Decide one view after the other, given the rest (iterated conditional modes), until all stay."""
    found = np.zeros(evidence.shape[:2], bool)
    for _ in range(ROUNDS):
        before = found.copy()
        for camera in range(len(evidence)):
            now = np.where(found[..., None, None, None, None], evidence[:, :, :, ::-1], evidence)
            rest = now.sum(0) - now[camera]
            without = _fitted(rest)[1]

            def added(way, rest=rest, without=without):
                position, square = _fitted(rest + way)
                apart = np.minimum(square - without, 4 + LARGEST_COST).sum(1)
                return apart + _turned(position, views, right)

            ways = (evidence[camera], evidence[camera][:, :, ::-1])
            cost = np.stack([added(way) for way in ways], 1) + [0, PRIOR]
            alone = slice(camera, camera + 1)
            found[camera] = _cheapest(cost * share, stay[alone], change[alone]).astype(bool)
        if (found == before).all():
            break
    return found


def _fitted(
    gram: Float[np.ndarray, "time pair 2 4 4"],
) -> tuple[Float[np.ndarray, "time pair 2 3"], Float[np.ndarray, "time pair"]]:
    """Points nearest to rays, m, and squared distances from them in expected errors, of both sides.

    Both sides are truncated together, so that both must agree for an exchange to pay: a camera that
    is off may well put one side in the other's place.
    """
    position = _least_squares(gram)
    square = gram[..., 3, 3] + (gram[..., :3, 3] * position).sum(-1)
    return position, square.sum(-1) / EXPECTED_ERROR_M**2


def _turned(position, views, right) -> Float[np.ndarray, "time"]:
    """Cost of hips or shoulders, a chain's first pair, that are turned against the feet."""
    axis = position[:, 0, 0] - position[:, 0, 1]
    cosine = (axis * right).sum(-1) / np.maximum(np.linalg.norm(axis, axis=-1), NARROW_M)
    known = (views[:, 0] > 1) & np.isfinite(cosine)
    return np.where(known, REVERSED * (1 - cosine) / 2, 0.0)


def _least_squares(gram: Float[np.ndarray, "*any 4 4"]) -> Float[np.ndarray, "*any 3"]:
    """Points nearest to rays, m; anywhere along them where they do not determine it."""
    normal = gram[..., :3, :3] + 1e-9 * np.eye(3)
    return -np.linalg.solve(normal, gram[..., :3, 3:])[..., 0]


def _depth(points, camera_from_world) -> Float[np.ndarray, "camera time"]:
    """How far the person is from each camera, m."""
    depth = points @ camera_from_world[:, 2, :3].T + camera_from_world[:, 2, 3]
    depth = np.ma.masked_invalid(np.where(depth > 0, depth, np.nan))
    by_time = np.ma.median(depth, axis=1)
    return np.ma.filled(by_time, np.ma.median(by_time, axis=0)).T


def _jumps(
    sides: Float[np.ndarray, "camera time pair 2 2"],
    both: Bool[np.ndarray, "camera time pair"],
    interval_s: float,
) -> tuple[Float[np.ndarray, "camera time"], Float[np.ndarray, "camera time"]]:
    """What keypoints (m) cost that stay what they were, and that are exchanged with those before."""
    time = np.arange(both.shape[1])[None, :, None]
    last = np.maximum.accumulate(np.where(both, time, -1), axis=1)
    last = np.concatenate([np.full_like(last[:, :1], -1), last[:, :-1]], axis=1)
    known = (both & (last >= 0))[..., None]
    before = np.take_along_axis(sides, np.maximum(last, 0)[..., None, None], axis=1)
    usual = np.hypot(STEADY_SPEED_M_S * interval_s * (time - last), STEADY_ERROR_M)[..., None]

    def cost(earlier):
        jump = np.linalg.norm(sides - earlier, axis=-1) / usual
        return np.where(known, np.minimum(jump**2, LARGEST_COST), 0).sum((-2, -1))

    seen = known.any((-2, -1))  # what is not seen does not change
    return cost(before), np.where(seen, cost(before[:, :, :, ::-1]) + SWITCH, np.inf)


def _cheapest(
    cost: Float[np.ndarray, "time state"],
    stay: Float[np.ndarray, "camera time"],
    change: Float[np.ndarray, "camera time"],
) -> Int[np.ndarray, "time"]:
    """The path of states of least cost; bits of a state, the highest first, are the cameras'."""
    times, states = cost.shape
    came_from = np.zeros(cost.shape, np.int16)
    total = cost[0]
    for now in range(1, times):
        origin = np.arange(states)
        for camera in range(len(stay)):
            other = np.arange(states) ^ (1 << (len(stay) - 1 - camera))
            kept, changed = total + stay[camera, now], total[other] + change[camera, now]
            origin = np.where(changed < kept, origin[other], origin)
            total = np.minimum(kept, changed)
        came_from[now] = origin
        total = total + cost[now]
    path = np.empty(times, int)
    path[-1] = total.argmin()
    for now in range(times - 1, 0, -1):
        path[now - 1] = came_from[now, path[now]]
    return path
