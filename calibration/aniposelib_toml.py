"""The TOML of aniposelib and Pose2Sim: one table a camera, rotation as a Rodrigues vector."""

import tomllib
from pathlib import Path

import cv2

from calibration.camera import Camera, camera_from
from pipeline.errors import PipelineError


def read_toml(path: Path) -> list[Camera]:
    """Read the cameras of a TOML calibration; metres. The world's Z is up, as in Pose2Sim, unless
    `[metadata] world_up` says otherwise (ours does).

    Raises PipelineError for fisheye cameras, whose lens model OpenCV's pinhole is not.
    """
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    up = document.pop("metadata", {}).get("world_up", "+z")
    return [_camera(table, up) for table in document.values() if isinstance(table, dict)]


def _camera(table, world_up) -> Camera:
    if table.get("fisheye"):
        raise PipelineError(
            f"camera {table['name']} is calibrated as fisheye, which is not supported: undistort "
            "its videos, or calibrate it with the standard lens model."
        )
    return camera_from(
        name=str(table["name"]),
        image_size=table["size"],
        intrinsics=table["matrix"],
        distortion=table["distortions"],
        rotation=table["rotation"],
        translation=table["translation"],
        world_up=world_up,
    )


def write_toml(cameras: list[Camera], path: Path) -> None:
    """Write cameras as TOML, in the world that they are in."""
    blocks = []
    for camera in cameras:
        rotation = cv2.Rodrigues(camera.camera_from_world[:3, :3])[0].ravel()
        blocks.append(
            f"[{_key(camera.name)}]\n"
            f"name = {_text(camera.name)}\n"
            f"size = {list(camera.image_size)}\n"
            f"matrix = {camera.intrinsics.tolist()}\n"
            f"distortions = {camera.distortion.tolist()}\n"
            f"rotation = {rotation.tolist()}\n"
            f"translation = {camera.camera_from_world[:3, 3].tolist()}\n"
            "fisheye = false\n"
        )
    blocks.append(f"[metadata]\nworld_up = {_text(cameras[0].world_up)}\nunits = 'm'\n")
    path.write_text("\n".join(blocks), encoding="utf-8")


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_key = _text
