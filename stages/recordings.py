"""Recordings to compare: angles and points of any program's files, and where their worlds are."""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import yaml
from jaxtyping import Float

from calibration import Camera
from calibration.readers import read_file
from pipeline.errors import PipelineError
from pipeline.files import load_dataset
from stages.export import read_trc
from stages.motion_files import in_file_units, read_mot

ANGLE_FILES = ("09_kinematics/angles.mot", "angles.mot")
POINT_FILES = {
    "markers": ("08_export/markers.trc", "markers.trc"),
    "keypoints": ("06_smooth/points.nc", "keypoints.trc"),
}
"""Where a folder of results, or of truth, keeps what can be compared."""


@dataclass(frozen=True)
class Trajectories:
    """Points over time."""

    time_s: Float[np.ndarray, "time"]
    names: tuple[str, ...]
    position: Float[np.ndarray, "time point 3"]
    """m, NaN where missing."""

    def of(self, names: Sequence[str]) -> Float[np.ndarray, "time point 3"]:
        """Positions of these points, in this order."""
        return self.position[:, [self.names.index(name) for name in names]]


@dataclass(frozen=True)
class Recording:
    """One side of a comparison."""

    name: str
    angles: pd.DataFrame
    """Degrees and metres, by coordinate, indexed by seconds; without columns if there are none."""
    points: dict[str, Trajectories]
    """By the kind of point: markers, keypoints; `points` of a lone file."""
    cameras: tuple[Camera, ...] = ()
    """True cameras in the points' world, if known."""
    model: str = ""
    """The OpenSim model that the angles are of, if known."""


class Space(NamedTuple):
    """Where the reference's world is in the result's: result = rotation · reference + translation."""

    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]
    """m"""
    description: str


IDENTITY = Space(np.eye(3), np.zeros(3), "identity: both are taken to be in the same world")


def is_rotation(name: str) -> bool:
    """Whether a coordinate is an angle: OpenSim's models end the names of translations so."""
    return not re.search(r"_t[xyz]$", name)


def in_common(names: Collection[str], others: Collection[str]) -> list[str]:
    """Names that both sides have, in the order of the first."""
    return [name for name in names if name in others]


def pairs_of_points(result: Recording, reference: Recording) -> list[tuple[str, str]]:
    """Kinds of points to compare: of the same name, and a lone file's with any that fit it."""
    return [
        (kind, other)
        for kind, mine in result.points.items()
        for other, truth in reference.points.items()
        if (kind == other or "points" in (kind, other)) and in_common(mine.names, truth.names)
    ]


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names for the user: the first ones, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def read_angles(path: Path) -> pd.DataFrame:
    """Read coordinates in degrees and metres, whatever unit the file's header says.

    Coordinates that end in `_beta` are left out: they repeat a knee's angle for the patella, and
    OpenCap's files have them in radians beside angles in degrees. Raises PipelineError if the header
    lacks the unit.
    """
    angles = read_mot(path)
    header = path.read_text(encoding="utf-8").lower().partition("endheader")[0]
    unit = re.search(r"^\s*indegrees\s*=\s*(yes|no)\s*$", header, re.MULTILINE)
    if unit is None:
        raise PipelineError(
            f"the header of {path} does not say whether its angles are in degrees or radians. Add the "
            "line inDegrees=yes or inDegrees=no above endheader."
        )
    _check(angles.index.values, list(angles), path)
    angles = angles[[name for name in angles if not name.endswith("_beta")]]
    radians = unit[1] == "no"
    return in_file_units(angles, set(filter(is_rotation, angles))) if radians else angles


def read_points(path: Path) -> Trajectories:
    """Read points of a TRC file, or of a stage's `points.nc`."""
    if path.suffix.lower() != ".nc":
        time_s, names, position = read_trc(path)
    else:
        array = load_dataset(path).position.transpose("time", "keypoint", "axis")
        time_s, position = array.time.values, array.values.astype(float)
        names = list(map(str, array.keypoint.values))
    _check(time_s, names, path)
    return Trajectories(time_s, tuple(names), position)


def _check(time_s: Float[np.ndarray, "time"], names: list[str], path: Path) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PipelineError(f"{path} has {listed(twice)} twice. Keep one of each name.")
    if not (np.diff(time_s) > 0).all():
        raise PipelineError(
            f"the times of {path} do not increase from row to row. Export it again."
        )


def read_space(path: Path) -> Space:
    """Read the transform between worlds that OpenCap's data set has as mocapToVideoTransform.yaml.

    `R_fromMocap_toVideo` (3 x 3) turns the reference's axes into the result's;
    `position_fromMocapOrigin_toVideoOrigin` (3, m) is the result's origin seen from the reference's,
    in the reference's axes: video = R (mocap - position).

    Raises PipelineError if it lacks them, or the rotation is none: some published ones are singular.
    """
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
        rotation = np.asarray_chkfinite(table["R_fromMocap_toVideo"], float).reshape(3, 3)
        position = np.asarray_chkfinite(table["position_fromMocapOrigin_toVideoOrigin"], float)
        position = position.reshape(3)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, ValueError, KeyError) as error:
        raise PipelineError(
            f"{path} gives no transform: {' '.join(str(error).split())}. Expected "
            "R_fromMocap_toVideo (3 x 3) and position_fromMocapOrigin_toVideoOrigin (3, m)."
        ) from error
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise PipelineError(
            f"R_fromMocap_toVideo of {path} is no rotation (determinant {np.linalg.det(rotation):.3g}, "
            "must be 1, rows at right angles and of length 1). Correct it, or have a rigid one fitted."
        )
    return Space(rotation, -rotation @ position, f"by {path.name}")


def read_recording(path: Path) -> Recording:
    """Read a .mot file, a .trc file, or what a folder of results or truth has of both.

    Raises PipelineError if there is nothing to compare.
    """
    suffix = path.suffix.lower()
    if path.is_file() and suffix == ".mot":
        return Recording(str(path), read_angles(path), {})
    if path.is_file() and suffix == ".trc":
        return Recording(str(path), pd.DataFrame(), {"points": read_points(path)})
    if not path.is_dir():
        what = "is no .mot file, .trc file or folder" if path.exists() else "does not exist"
        raise PipelineError(
            f"{path} {what}. Give a trial's results folder, a folder with {ANGLE_FILES[-1]} or "
            "markers.trc, or such a file."
        )
    angles = _first(path, ANGLE_FILES)
    points = {kind: _first(path, names) for kind, names in POINT_FILES.items()}
    points = {kind: read_points(file) for kind, file in points.items() if file}
    if not angles and not points:
        known = ", ".join(sum(POINT_FILES.values(), ANGLE_FILES))
        raise PipelineError(f"{path} has none of {known}. Run the trial first, or give a file.")
    cameras = path / "cameras.toml"
    known = tuple(each.in_y_up_world() for each in read_file(cameras)) if cameras.exists() else ()
    table = read_angles(angles) if angles else pd.DataFrame()
    return Recording(str(path), table, points, known, model_of(path))


def model_of(folder: Path) -> str:
    """The OpenSim model of a folder of results, or of simulated truth; empty if it does not say."""
    for name, part, key in (
        ("09_kinematics/kinematics.json", "model", "name"),
        ("simulation.json", "plan", "model"),
    ):
        if (folder / name).is_file():
            return json.loads((folder / name).read_text(encoding="utf-8"))[part][key]
    return ""


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)
