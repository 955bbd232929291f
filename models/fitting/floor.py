"""Floor: where feet stand flat on it, which tells how they are turned better than keypoints do.

A foot whose heel and toes are low and at rest stands flat. Its sole, which is fixed to the foot as the
generic model has it, is then level; how high the floor is, is sought. Somebody who does not stand on level
ground, or never with a whole foot, has no such samples.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from models.fitting.priors import priors

SOLES = {
    f"{side}Sole{end}": (f"calcn_{side.lower()}", f"{side}{end}")
    for side in "RL"
    for end in ("Heel", "BigToe", "SmallToe")
}
"""Points of the soles: the body of each, and the keypoint above it."""
_ENDS = ("Heel", "BigToe")


def standing_flat(
    points: Mapping[str, Float[np.ndarray, "time 3"]], time_s: Float[np.ndarray, "time"]
) -> tuple[dict[str, Bool[np.ndarray, "time"]], float]:
    """When each foot (R, L) stands flat, and about how high the floor is, m; points are smoothed.

    Nowhere if heels, big toes or hips are not known.
    """
    table = priors()["floor"]
    never = {side: np.zeros(len(time_s), bool) for side in "RL"}
    needed = [f"{side}{end}" for side in "RL" for end in (*_ENDS, "Hip")]
    if len(time_s) < 3 or any(name not in points for name in needed):
        return never, 0.0
    height = {name: points[name][:, 1] for name in needed}
    ends = np.stack([height[f"{side}{end}"] for side in "RL" for end in _ENDS])
    if not np.isfinite(ends).any():
        return never, 0.0
    floor = float(np.nanpercentile(ends, table["lowest_percent"]))
    hips = (height["RHip"] + height["LHip"]) / 2
    flat = {}
    for side in "RL":
        pitched = height[f"{side}Heel"] - height[f"{side}BigToe"]
        low = (hips - floor > table["hips_above_m"]) & (np.abs(pitched) < table["level_m"])
        for end in _ENDS:
            name = f"{side}{end}"
            speed = np.linalg.norm(np.gradient(points[name], time_s, axis=0), axis=-1)
            low &= (height[name] - floor < table["low_m"]) & (speed < table["slow_m_s"])
        flat[side] = low
    return flat, floor
