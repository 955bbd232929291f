"""Motion: coordinates of a person's model over time, from a built-in movement or a file."""

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.interpolate import make_interp_spline

from models.opensim_model import BodyPoses, body_poses, rotational_coordinates, stripped_copy
from models.simulation.landmarks import SOLE, SOLE_HEIGHT_M, keypoint_positions
from models.simulation.movements import RATE_HZ, Movement, smoothed
from pipeline.errors import PipelineError

BEYOND_RANGE = np.radians(20)
"""Recorded angles may lie so far outside a model's range; farther, the unit is wrong."""

ALIASES = {"lumbar_extension": "L5_S1_Flex_Ext"}
"""Names of the same coordinate in Pose2Sim's model."""


def on_model(movement: Movement, model) -> pd.DataFrame:
    """Coordinates of a model (rad and m, indexed by seconds) that make a built-in movement.

    Coordinates that the movement does not speak of are 0, or at the end of their range nearest to
    it. The pelvis is placed so that the lower foot stands on the floor.
    """
    free, (moving, _) = _free_coordinates(model), stripped_copy(model)
    angles = pd.DataFrame(0.0, pd.Index(movement.time_s, name="time"), list(free))
    for name, curve in movement.curves.items():
        known = name if name in free else ALIASES.get(name)
        if known in free:
            angles[known] = np.radians(curve)
    for name, coordinate in free.items():
        angles[name] = angles[name].clip(coordinate.getRangeMin(), coordinate.getRangeMax())
    # The range of Pose2Sim's pelvis height does not hold here: it is set below.
    angles[["pelvis_tx", "pelvis_ty", "pelvis_tz"]] = 0.0
    if not movement.walks:
        _keep_feet_apart(angles, moving)
    feet = _feet(body_poses(moving, angles))
    lowest = feet[..., 1].min(1)
    # Which point of which foot is lowest changes at once in gait; the pelvis does not.
    lowest = smoothed(lowest) if movement.walks else lowest
    angles["pelvis_ty"] = SOLE_HEIGHT_M + movement.lift_m - lowest
    angles["pelvis_tx"] = _forward_m(movement, feet[..., 0])
    angles["pelvis_tz"] = -feet[..., 2].mean()
    return angles


def _forward_m(movement: Movement, feet_x: Float[np.ndarray, "time point"]):
    """Where the pelvis is along X, from where the feet are in front of it."""
    if movement.walks:
        speed = np.gradient(feet_x, movement.time_s, axis=0)
        # A foot that stands moves backwards under the pelvis, faster than the mean of both.
        standing = speed[speed < 0.5 * speed.min()]
        return -np.median(standing) * (movement.time_s - movement.time_s.mean())
    return movement.forward_m - feet_x.mean(1)


def _keep_feet_apart(angles: pd.DataFrame, model) -> None:
    """Turn the hips so that the feet stay as far apart, and as turned out, as in the first sample.

    Else bending the legs would sweep them aside by a decimetre. Newton's method; two steps leave
    less than a millimetre.
    """
    step, wanted = np.radians(0.5), _sideways(model, angles[:1])
    for _ in range(2):
        here, slopes = _sideways(model, angles), []
        for hip in ("hip_adduction", "hip_rotation"):
            both = [f"{hip}_r", f"{hip}_l"]
            slopes.append((_sideways(model, angles.assign(**(angles[both] + step))) - here) / step)
        turn = np.linalg.solve(np.stack(slopes, -1), (wanted - here)[..., None])[..., 0]
        for column, hip in enumerate(("hip_adduction", "hip_rotation")):
            angles[[f"{hip}_r", f"{hip}_l"]] += turn[..., column]


def _sideways(model, angles: pd.DataFrame) -> Float[np.ndarray, "time side 2"]:
    """Where along Z the heel and the big toe of the right and of the left foot are."""
    placed = keypoint_positions(body_poses(model, angles))
    ends = [[placed[f"{side}{end}"][:, 2] for end in ("Heel", "BigToe")] for side in "RL"]
    return np.moveaxis(np.array(ends), 2, 0)


def _feet(poses: BodyPoses) -> Float[np.ndarray, "time point 3"]:
    placed = keypoint_positions(poses)
    return np.stack([placed[f"{side}{part}"] for side in "RL" for part in SOLE], axis=1)


def _free_coordinates(model) -> dict:
    """Coordinates that follow no other one, by name."""
    state, coordinates = model.initSystem(), model.getCoordinateSet()
    each = (coordinates.get(index) for index in range(coordinates.getSize()))
    return {c.getName(): c for c in each if not c.isDependent(state)}


def recorded(table: pd.DataFrame, model, path: Path) -> pd.DataFrame:
    """A recorded motion (degrees and m) as coordinates of a model, rad and m, at `RATE_HZ`.

    Coordinates that the file lacks are at the model's default.

    Raises PipelineError for coordinates that the model does not have, angles far outside the model's
    ranges or all within a few degrees (a wrong unit), or times that do not grow.
    """
    free = _free_coordinates(model)
    if unknown := sorted(name for name in table if not model.getCoordinateSet().contains(name)):
        raise PipelineError(
            f"{path} has coordinates that the model lacks: {', '.join(unknown)}. Name the model that "
            f"it was made with: --model. This one has {', '.join(sorted(free))}."
        )
    time_s = table.index.to_numpy(float)
    if len(time_s) < 4 or not (np.diff(time_s) > 0).all() or table.isna().any(axis=None):
        raise PipelineError(
            f"{path}: a motion needs at least four rows of numbers, in order of time"
        )
    angles = table[[name for name in table if name in free]]
    turning = sorted(rotational_coordinates(model) & set(angles))
    angles = angles.assign(**{name: np.radians(angles[name]) for name in turning})
    _check_ranges(angles[turning], free, path)
    defaults = {name: c.getDefaultValue() for name, c in free.items() if name not in angles}
    at = np.arange(time_s[0], time_s[-1] + 1e-9, 1 / RATE_HZ)
    resampled = make_interp_spline(time_s, angles.to_numpy(float), k=3)(at)
    index = pd.Index(at - at[0], name="time")
    return pd.DataFrame(resampled, index, angles.columns).assign(**defaults)


def _check_ranges(angles: pd.DataFrame, free, path) -> None:
    largest = np.degrees(angles.abs().max(axis=None))
    if 0 < largest < np.pi:
        raise PipelineError(
            f"{path}: no angle goes beyond {largest:.2f}°. If these are radians, write inDegrees=no "
            "into the file's header."
        )
    for name, values in angles.items():
        low, high = free[name].getRangeMin(), free[name].getRangeMax()
        if values.min() < low - BEYOND_RANGE or values.max() > high + BEYOND_RANGE:
            least, most, low, high = np.degrees([values.min(), values.max(), low, high])
            raise PipelineError(
                f"{path}: {name} goes from {least:.0f} to {most:.0f}°, but the model's range is "
                f"{low:.0f} to {high:.0f}°. Does inDegrees in the file's header name its unit wrongly?"
            )
