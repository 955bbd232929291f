"""Cameras: one model, one reader for each calibration format."""

from calibration.camera import Camera
from calibration.checks import check_geometry
from calibration.readers import read_cameras

__all__ = ["Camera", "check_geometry", "read_cameras"]
