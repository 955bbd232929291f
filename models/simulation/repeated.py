"""Repeated: a movement done several times in a row, for recordings that start seconds apart."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.interpolate import CubicSpline

from models.simulation.motion import on_model
from models.simulation.movements import MOVEMENTS, RATE_HZ
from models.simulation.scene import random_for

BESIDE_M = 0.9
"""Who walks by passes so far to the right of the origin."""
BETWEEN_S = 0.8
"""From the end of one repetition to the start of the next one."""


def performed(motion: str, model, seed: int, what: str, at_least_s: float = 0.0) -> pd.DataFrame:
    """A built-in movement on a model, as often as it takes to fill some time, each time drawn anew."""
    walks, parts = MOVEMENTS[motion](random_for(seed, what)).walks, []
    lasts_s = 0.0
    while not parts or lasts_s < at_least_s:
        again = f"{what}, time {len(parts) + 1}" if parts else what
        parts.append(on_model(MOVEMENTS[motion](random_for(seed, again)), model))
        lasts_s += float(parts[-1].index[-1]) + (BETWEEN_S if len(parts) > 1 else 0)
    return joined(parts, walks) if len(parts) > 1 else parts[0]


def passing_by(model, seed: int, what: str, lasts_s: float) -> pd.DataFrame:
    """Someone who walks by, against the direction in which gait goes, and on and on, for some seconds."""
    walk = on_model(MOVEMENTS["gait"](random_for(seed, what)), model)
    lengthwise = walk["pelvis_tx"]
    strides_m = len(walk) * (lengthwise.iloc[-1] - lengthwise.iloc[0]) / (len(walk) - 1)
    count = int(lasts_s * RATE_HZ + 0.5) + 1
    parts = [
        walk.assign(pelvis_tx=lengthwise + strides_m * index)
        for index in range(count // len(walk) + 1)
    ]
    angles = pd.concat(parts).iloc[:count]
    angles = angles.set_axis(pd.Index(np.arange(count) / RATE_HZ, name="time"))
    turned = _turned(angles, np.pi)
    return turned.assign(pelvis_tz=turned["pelvis_tz"] + BESIDE_M)


def joined(parts: Sequence[pd.DataFrame], walks: bool) -> pd.DataFrame:
    """Coordinates (rad and m, indexed by seconds) of movements that follow each other.

    Between them a cubic spline leads from one to the next, with no jump in speed. Who walks turns
    round there, and comes back: every second part is turned by half a turn about the vertical
    through the origin. Feet slide in between: it is no more than a plausible way from pose to pose.
    """
    start_s, times, tables = 0.0, [], []
    for index, part in enumerate(parts):
        tables.append(_turned(part, index * np.pi) if walks else part)
        times.append(start_s + part.index.to_numpy(float))
        start_s = times[-1][-1] + BETWEEN_S
    known_s, table = np.concatenate(times), pd.concat(tables)
    time_s = np.arange(round(known_s[-1] * RATE_HZ) + 1) / RATE_HZ
    return pd.DataFrame(
        CubicSpline(known_s, table.to_numpy(float))(time_s),
        pd.Index(time_s, name="time"),
        table.columns,
    )


def _turned(angles: pd.DataFrame, heading: float) -> pd.DataFrame:
    """The same movement in another direction: whole half turns, rad, about the vertical.

    Of the pelvis's angles (tilt about Z, then list about X, then rotation about Y) half a turn
    before all of them changes the sign of the first two and adds to the third.
    """
    sign = np.cos(heading).round()
    changed = ["pelvis_tilt", "pelvis_list", "pelvis_tx", "pelvis_tz"]
    turned = angles.assign(pelvis_rotation=angles["pelvis_rotation"] + heading)
    return turned.assign(**(sign * turned[changed]))
