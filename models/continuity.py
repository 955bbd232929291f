"""Which of several possible points a keypoint really was at: the ones that make a continuous path."""

import numpy as np
from jaxtyping import Float

STEADY_SPEED_M_S = 3.0
"""A keypoint usually moves slower than this; faster ones cost the more, up to `LARGEST_COST`."""
STEADY_ERROR_M = 0.03
"""Points that do not move are placed this far apart from frame to frame."""
LARGEST_COST = 9.0
"""A jump costs no more than this, however far: real movements may be fast, and paths may break."""


def most_continuous(
    position: Float[np.ndarray, "time keypoint candidate 3"],
    cost: Float[np.ndarray, "time keypoint candidate"],
    interval_s: float,
) -> Float[np.ndarray, "time keypoint 3"]:
    """Choose one candidate (m) per sample and keypoint, so that cost and movement are least together.

    `cost` is each candidate's own, on the scale of squared standard deviations; infinite where
    there is no candidate. A step costs its squared length over what is usual, truncated. The best
    path is found by dynamic programming (Viterbi, IEEE Trans Inf Theory 13(2), 1967), over whole
    trials at once and all keypoints in parallel. Samples without any candidate stay NaN; the path
    goes on across them, with more room the longer they last.
    """
    times, keypoints, candidates = cost.shape
    same = np.broadcast_to(np.arange(candidates), (keypoints, candidates))
    came_from = np.empty(cost.shape, np.int8)
    total, last, steps = cost[0], position[0], np.ones(keypoints)
    for now in range(1, times):
        present = np.isfinite(cost[now]).any(-1)[:, None]
        started = np.isfinite(total).any(-1)[:, None]
        usual = np.hypot(STEADY_SPEED_M_S * steps * interval_s, STEADY_ERROR_M)
        distance = np.linalg.norm(position[now][:, :, None] - last[:, None], axis=-1)
        jump = np.fmin((distance / usual[:, None, None]) ** 2, LARGEST_COST)
        way = total[:, None] + jump  # (keypoint, candidate now, candidate before)
        came_from[now] = np.where(present & started, way.argmin(-1), same)
        total = np.where(present, cost[now] + np.where(started, way.min(-1), 0.0), total)
        last = np.where(present[..., None], position[now], last)
        steps = np.where(present[:, 0], 1.0, steps + 1)
    chosen = total.argmin(-1)
    path = np.empty((times, keypoints, 3))
    for now in range(times - 1, -1, -1):
        path[now] = position[now, np.arange(keypoints), chosen]
        chosen = came_from[now, np.arange(keypoints), chosen] if now else chosen
    return path
