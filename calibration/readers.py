"""Reads the cameras of any known calibration format, and matches them to videos by name."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import ParseError

from calibration.aniposelib_toml import read_toml
from calibration.camera import Camera
from calibration.opencap_pickle import read_opencap
from calibration.qualisys import read_qualisys
from pipeline.errors import PipelineError

READERS = {".qca.txt": read_qualisys, ".toml": read_toml, ".pickle": read_opencap}

WRONG_CONTENT = (
    ParseError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    OverflowError,
)
"""What readers raise for a file that is not what it should be."""
CROPPED_PX = 16
"""Encoders crop or pad an image to a multiple of 8 or 16 px: such a difference is no other camera."""


def read_file(path: Path) -> list[Camera]:
    """Read all cameras of a calibration file, or of a folder of OpenCap's pickles.

    Raises PipelineError for an unknown format, an unreadable file, or one without cameras.
    """
    if not path.exists():
        raise PipelineError(f"there is no calibration at {path}")
    reader = next((r for suffix, r in READERS.items() if path.name.lower().endswith(suffix)), None)
    if path.is_dir():
        reader = read_opencap
    if reader is None:
        known = ", ".join(READERS)
        raise PipelineError(f"{path}: unknown calibration format. Known: {known}")
    try:
        cameras = reader(path)
    except WRONG_CONTENT as error:
        raise PipelineError(
            f"{path} is no calibration of its format, or damaged: {error!r}. Export it again."
        ) from error
    if not cameras:
        raise PipelineError(f"{path} holds no cameras")
    names = [camera.name for camera in cameras]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PipelineError(
            f"{path} has several cameras named {', '.join(twice)}. Keep one of each."
        )
    return cameras


def read_cameras(
    path: Path,
    names: Sequence[str],
    image_sizes: Mapping[str, tuple[int, int]] | None = None,
    world_up: str | None = None,
) -> tuple[list[Camera], list[str]]:
    """Return the cameras of these videos, in their order and in a Y-up world, and notices.

    `image_sizes` are the videos' widths and heights (px): a calibration for another size of the
    same shape is scaled, one that differs by a few pixels is kept, any other is refused. `world_up`
    is the axis that points up, where the file does not know.
    """
    if len(names) < 2:
        raise PipelineError(
            f"only one camera ({', '.join(names)}): at least two are needed to see in depth."
        )
    calibrated = read_file(path)
    chosen = match(names, calibrated, path)
    if world_up:
        chosen = [replace(camera, world_up=world_up) for camera in chosen]
    cameras = [
        replace(camera, name=name).in_y_up_world()
        for name, camera in zip(names, chosen, strict=True)
    ]
    notices = []
    used = {camera.name for camera in chosen}
    if unused := [camera.name for camera in calibrated if camera.name not in used]:
        notices.append(f"calibrated, but not in this trial: {', '.join(unused)}")
    if image_sizes:
        fitted = [_fit(camera, image_sizes[camera.name]) for camera in cameras]
        cameras = [camera for camera, _ in fitted]
        notices += [notice for _, notice in fitted if notice]
    return cameras, notices


def match(names: Sequence[str], cameras: Sequence[Camera], path: Path) -> list[Camera]:
    """Return the camera of each video: the one of its name, else the one of nearly its name.

    Raises PipelineError for a video without a camera, or two videos of one.
    """
    exact = {camera.name: camera for camera in cameras}
    similar: dict[str, list[Camera]] = {}
    for camera in cameras:
        similar.setdefault(_key(camera.name), []).append(camera)
    found = {
        name: [exact[name]] if name in exact else similar.get(_key(name), []) for name in names
    }
    if missing := [name for name, candidates in found.items() if len(candidates) != 1]:
        raise PipelineError(
            f"{path} has no camera {', '.join(missing)}. It has {', '.join(exact)}; the trial has "
            f"{', '.join(names)}. Name each video, or folder of keypoints, after its camera."
        )
    chosen = [found[name][0] for name in names]
    if len({camera.name for camera in chosen}) < len(chosen):
        raise PipelineError(
            f"two of the videos {', '.join(names)} are of one camera of {path} (it has "
            f"{', '.join(exact)}). Keep one of each."
        )
    return chosen


def _key(name: str) -> str:
    """`cam01`, `Cam_1` and `cam1` are one camera; `cam1` and `cam10`, `cam1_1` and `cam11` are two."""
    joined = re.sub(r"(?<!\d)[\s._-]+|[\s._-]+(?!\d)", "", name.casefold())
    return re.sub(r"0*(\d+)", r"\1", joined)


def _fit(camera: Camera, video: tuple[int, int]) -> tuple[Camera, str | None]:
    calibrated = camera.image_size
    if calibrated == video:
        return camera, None
    sizes = f"calibrated at {calibrated[0]}x{calibrated[1]} px, its video has {video[0]}x{video[1]}"
    if max(abs(a - b) for a, b in zip(calibrated, video, strict=True)) <= CROPPED_PX:
        return replace(camera, image_size=video), (
            f"camera {camera.name}: {sizes}. Taken as cropped or padded by the encoder at the right "
            "or lower edge; if it was cropped elsewhere or resized, points are off by as much."
        )
    if abs(video[0] / calibrated[0] / (video[1] / calibrated[1]) - 1) < 0.01:
        return camera.scaled_to(
            video
        ), f"camera {camera.name}: {sizes}. Its intrinsics were scaled."
    hint = " Turn the videos, or calibrate upright." if calibrated == video[::-1] else ""
    raise PipelineError(
        f"camera {camera.name}: {sizes}, another shape.{hint} This calibration is not of this video."
    )
