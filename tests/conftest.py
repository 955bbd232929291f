"""A synthetic rig with known truth, and the data that lies beside the repository."""

import sys
from pathlib import Path

import cv2
import numpy as np
import opensim
import pytest

from models.opensim_model import add_markers, marker_positions, rotational_coordinates
from models.simulation.rig import looking_at as look_at
from pipeline import cli
from stages.motion_files import in_model_units

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the shared data (../shared) is not beside this checkout")
    return SHARED


def pipeline(monkeypatch, capsys, *arguments):
    """Run the command line here; return its exit code, and what it printed."""
    monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code or 0
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def ring(count: int, radius_m: float = 4.0, height_m: float = 1.5) -> np.ndarray:
    """Extrinsics (camera, 3, 4) of a ring of cameras that look at a person's middle."""
    angles = np.linspace(0.3, 0.3 + 2 * np.pi, count, endpoint=False)
    centers = np.stack(
        [radius_m * np.cos(angles), np.full(count, height_m), radius_m * np.sin(angles)], 1
    )
    return np.stack([look_at(center, np.array([0.0, 0.9, 0.0])) for center in centers])


def observe(points: np.ndarray, extrinsics: np.ndarray) -> np.ndarray:
    """Undistorted image coordinates (camera, ..., 2) of points (..., 3), by OpenCV."""
    views = [
        cv2.projectPoints(
            points.reshape(-1, 1, 3), cv2.Rodrigues(pose[:, :3])[0], pose[:, 3], np.eye(3), None
        )[0].reshape(*points.shape[:-1], 2)
        for pose in extrinsics
    ]
    return np.stack(views)


def on_opencaps_model(shared: Path, marker_set: str, recorded, names):
    """Put recorded angles (degrees and metres) on OpenCap's model with one of its marker sets.

    Returns the model, the angles of its free coordinates (rad and m), and the markers' positions
    (time, marker, 3) by OpenSim's forward kinematics.
    """
    folder = shared / "opencap"
    model = opensim.Model(str(folder / "LaiUhlrich2022.osim"))
    add_markers(model, folder / marker_set)
    contains = model.getCoordinateSet().contains
    free = recorded[[name for name in recorded if contains(name) and "beta" not in name]]
    angles = in_model_units(free, rotational_coordinates(model))
    return model, angles, marker_positions(model, angles, names)
