"""Qualisys Track Manager's calibration export, `*.qca.txt`: XML, whatever its suffix says."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from calibration.camera import Camera, camera_from
from pipeline.errors import PipelineError

SUBPIXELS = 64
"""Focal lengths and centres are in 64ths of a pixel."""


def read_qualisys(path: Path) -> list[Camera]:
    """Read the cameras of a Qualisys calibration; positions are in mm there, and Z is up.

    Qualisys's camera looks along its -z, with y up: turned by 180° about x to get OpenCV's. The
    distortion coefficients are OpenCV's k1, k2, p1, p2, k3.
    """
    cameras = ElementTree.parse(path).getroot().findall("cameras/camera")
    return [_camera(element) for element in cameras]


def _camera(element) -> Camera:
    lens, pose, view = (element.find(name) for name in ("intrinsic", "transform", "fov_video"))
    left, right, top, bottom = (
        float(view.get(edge)) for edge in ("left", "right", "top", "bottom")
    )
    focal_u, focal_v, center_u, center_v = (
        float(lens.get(name)) / SUBPIXELS
        for name in ("focalLengthU", "focalLengthV", "centerPointU", "centerPointV")
    )
    rows = [[float(pose.get(f"r{i}{j}")) for j in (1, 2, 3)] for i in (1, 2, 3)]
    rotation = np.diag([1.0, -1.0, -1.0]) @ rows
    position_m = np.array([float(pose.get(axis)) for axis in "xyz"]) / 1000
    return camera_from(
        name=element.attrib["serial"],
        image_size=(right - left + 1, bottom - top + 1),
        intrinsics=[[focal_u, 0, center_u - left], [0, focal_v, center_v - top], [0, 0, 1]],
        distortion=[
            float(lens.get(name, 0))
            for name in (
                "radialDistortion1", "radialDistortion2",
                "tangentalDistortion1", "tangentalDistortion2", "radialDistortion3",
            )
        ],
        rotation=rotation,
        translation=-rotation @ position_m,
        world_up="+z",
    )  # fmt: skip


def write_qualisys(cameras: list[Camera], path: Path) -> None:
    """Write cameras of a Z-up world, as far as the format goes: five distortion coefficients."""
    root = ElementTree.Element("calibration", source="markerless-pipeline", type="regular")
    group = ElementTree.SubElement(root, "cameras")
    for camera in cameras:
        if camera.world_up != "+z":
            raise PipelineError(f"camera {camera.name}: a Qualisys file needs a world with Z up")
        if np.any(camera.distortion[5:]):
            raise PipelineError(f"camera {camera.name}: a Qualisys file holds 5 lens coefficients")
        lens = np.pad(camera.distortion[:5], (0, 5 - len(camera.distortion[:5])))
        width, height = camera.image_size
        attributes = {"active": "1", "avg-residual": "0", "model": "none", "serial": camera.name}
        element = ElementTree.SubElement(group, "camera", attributes)
        edges = {"left": "0", "top": "0", "right": str(width - 1), "bottom": str(height - 1)}
        ElementTree.SubElement(element, "fov_video", edges)
        rows = np.diag([1.0, -1.0, -1.0]) @ camera.camera_from_world[:3, :3]
        pose = {f"r{i + 1}{j + 1}": repr(float(rows[i, j])) for i in range(3) for j in range(3)}
        pose |= {a: repr(float(v)) for a, v in zip("xyz", camera.center * 1000, strict=True)}
        ElementTree.SubElement(element, "transform", pose)
        matrix = camera.intrinsics * SUBPIXELS
        values = {
            "focalLengthU": matrix[0, 0], "focalLengthV": matrix[1, 1],
            "centerPointU": matrix[0, 2], "centerPointV": matrix[1, 2],
            "radialDistortion1": lens[0], "radialDistortion2": lens[1], "radialDistortion3": lens[4],
            "tangentalDistortion1": lens[2], "tangentalDistortion2": lens[3],
        }  # fmt: skip
        texts = {name: repr(float(value)) for name, value in values.items()}
        ElementTree.SubElement(element, "intrinsic", texts)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
