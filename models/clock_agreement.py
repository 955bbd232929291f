"""Clock agreement: offsets between the steps of a search, where a recording is too short for a fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

from models.synchronization import (
    FINE_CHANGE_STEPS,
    FINE_STEP_S,
    Rays,
    Track,
    compare_keypoints,
)

NEAR_STEPS = 12
"""A clock is looked for within so many fine steps, a tenth of a second, of where the search has it."""
ROUNDS, PARABOLA = 8, 2
"""Each camera is moved so often, to the top of a parabola through so many steps on either side."""

Curves = dict[tuple[int, int], Float[np.ndarray, "lag"]]
"""By pair of cameras."""


@dataclass(frozen=True)
class Agreed:
    """Where cameras agree best: session time = own time + offset."""

    offset_s: Float[np.ndarray, "camera"]
    error_s: Float[np.ndarray, "camera"]
    """Standard error, from how much the keypoints differ (jackknife); 0 for given clocks."""
    share: float
    """How much of the motion that both see the offsets explain; of the camera that agrees least."""


def agreed_clocks(
    tracks: Sequence[Track], start_s: Float[np.ndarray, "camera"], free: Sequence[int]
) -> Agreed:
    """Move the free cameras' clocks to where all cameras' rays agree best, from within 0.1 s.

    It uses all that a short recording has, and always has an answer; a fit is more exact where there
    is enough. Errors by leaving out one keypoint at a time (Efron and Stein, Ann Stat 9(3), 1981).
    """
    start = np.asarray(start_s) / FINE_STEP_S
    lags, found = _near(tracks, start)
    whole = {pair: each.sum(1) for pair, each in found.items()}
    best = _best(lags, _shares(whole), start, free)
    keypoints = tracks[0].image.shape[1]
    left_out = [{pair: whole[pair] - found[pair][:, k] for pair in found} for k in range(keypoints)]
    without = np.stack([_best(lags, _shares(each), best, free) for each in left_out])
    spread = ((without - without.mean(0)) ** 2).sum(0) * (keypoints - 1) / keypoints
    agreement, motion = ({pair: each[row] for pair, each in whole.items()} for row in (0, 1))
    shares = [
        _at(lags, agreement, best, camera) / max(_at(lags, motion, best, camera), 1e-9)
        for camera in free
    ]
    return Agreed(best * FINE_STEP_S, np.sqrt(spread) * FINE_STEP_S, min(shares, default=0.0))


def _near(tracks, start) -> tuple[Curves, dict[tuple[int, int], np.ndarray]]:
    """By pair of cameras: lags around where they start, and agreement and motion by keypoint."""
    rays = [Rays.of(track, FINE_STEP_S) for track in tracks]
    around = np.arange(-2 * NEAR_STEPS - PARABOLA, 2 * NEAR_STEPS + PARABOLA + 1)
    lags, found = {}, {}
    for one, other in combinations(range(len(rays)), 2):
        pair = one, other
        lags[pair] = round(start[other] - start[one]) + around
        found[pair] = compare_keypoints(rays[one], rays[other], lags[pair], FINE_CHANGE_STEPS)
    return lags, found


def _shares(both: dict[tuple[int, int], np.ndarray]) -> Curves:
    """Agreement as a share of the motion, weighted by all of it: longer overlaps have no advantage."""
    return {
        pair: agreement / np.maximum(motion, 1e-9) * motion.mean()
        for pair, (agreement, motion) in both.items()
    }


def _best(lags: Curves, curves: Curves, start, free) -> Float[np.ndarray, "camera"]:
    """Offsets of all cameras, in steps, where they agree best."""
    offset = start.copy()
    steps = np.arange(-NEAR_STEPS, NEAR_STEPS + 1)
    around = np.arange(-PARABOLA, PARABOLA + 1)
    for _ in range(ROUNDS):
        for camera in free:
            tried = start[camera] - offset[camera] + steps
            top = tried[_curve(lags, curves, offset, camera, tried).argmax()]
            near = _curve(lags, curves, offset, camera, top + around)
            bend, slope, _ = np.polyfit(around, near, 2)
            offset[camera] += top + (np.clip(-slope / (2 * bend), -1, 1) if bend < 0 else 0.0)
    return offset


def _curve(lags: Curves, curves: Curves, offset, camera, shift) -> Float[np.ndarray, "shift"]:
    """Sum over a camera's pairs with all the others, its offset shifted by so many steps."""
    total = np.zeros(len(shift))
    for (one, other), curve in curves.items():
        if camera in (one, other):
            way = 1 if camera == other else -1
            total += np.interp(offset[other] - offset[one] + way * shift, lags[one, other], curve)
    return total


def _at(lags: Curves, curves: Curves, offset, camera) -> float:
    return float(_curve(lags, curves, offset, camera, np.zeros(1))[0])
