"""Model lines: where the bodies of a person's OpenSim model are over time, and which are joined."""

from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float

from models.opensim_model import body_poses, load_model, rotational_coordinates, stripped_copy
from stages.motion_files import in_model_units, read_mot

SAME_TIME_S = 1e-4


def model_lines(
    folder: Path, time_s: Float[np.ndarray, "time"]
) -> tuple[xr.DataArray, list[tuple[str, str]]]:
    """Read where the bodies' origins are, which are joint centres mostly, and pairs of joined bodies.

    By forward kinematics of the kinematics' `scaled_model.osim` and `angles.mot`: (time, keypoint =
    body, axis), m, NaN where the movement is not known.
    """
    model, _ = stripped_copy(load_model(folder / "scaled_model.osim"))
    model.initSystem()
    degrees = read_mot(folder / "angles.mot")
    kept = [name for name in degrees if model.getCoordinateSet().contains(name)]
    poses = body_poses(model, in_model_units(degrees[kept], rotational_coordinates(model)))
    known = degrees.index.get_indexer(time_s, method="nearest", tolerance=SAME_TIME_S)
    position = np.where((known >= 0)[:, None, None], poses.position[known], np.nan)
    dims = ("time", "keypoint", "axis")
    coordinates = {"time": time_s, "keypoint": list(poses.names)}
    return xr.DataArray(position, coordinates, dims), joined_bodies(model)


def joined_bodies(model) -> list[tuple[str, str]]:
    """Pairs of bodies that a joint joins, the ground left out."""
    joints = model.getJointSet()
    pairs = [
        tuple(
            frame.findBaseFrame().getName()
            for frame in (joint.getParentFrame(), joint.getChildFrame())
        )
        for joint in (joints.get(index) for index in range(joints.getSize()))
    ]
    return [(parent, child) for parent, child in pairs if parent != "ground"]
