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


SETTLED_DIGITS = 9
"""Rotations and translations (m) are rounded to so many digits, a nanometre. Formats differ in units,
axes and how they write rotations, and so in the last bits of the same calibration; OpenSim's inverse
kinematics, which is iterative, makes far more of such a difference than it is worth. Rounded, the same
calibration gives the same angles whichever file it came in."""

Calibration = Path | Mapping[str, Path]
"""A file of all cameras, a folder of OpenCap's pickles, or a file by camera."""


def read_file(calibration: Calibration) -> list[Camera]:
    """Read all cameras of a calibration file, of a folder of OpenCap's pickles, or of a file by camera.

    A camera with a file of its own is the only one in that file, whatever it is called there, or the
    one of its name.

    Raises PipelineError for an unknown format, an unreadable file, or one without cameras.
    """
    if isinstance(calibration, Path):
        return _read_path(calibration)
    if not calibration:
        raise PipelineError(
            "no camera of this trial has a calibration file. `pipeline inspect SESSION` tells where it is "
            'expected, or name one in session.toml: calibration = "FILE"'
        )
    cameras = []
    for name, path in calibration.items():
        held = _read_path(path)
        own = held if len(held) == 1 else match([name], held, path)
        cameras.append(replace(own[0], name=name))
    return cameras


def _read_path(path: Path) -> list[Camera]:
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
    calibration: Calibration,
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
    calibrated = read_file(calibration)
    chosen = match(names, calibrated, calibration)
    if world_up:
        chosen = [replace(camera, world_up=world_up) for camera in chosen]
    cameras = [
        _settled(replace(camera, name=name).in_y_up_world())
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


def match(
    names: Sequence[str], cameras: Sequence[Camera], calibration: Calibration
) -> list[Camera]:
    """Return the camera of each video: the one of its name, else the one of nearly its name.

    Raises PipelineError for a video without a camera, or two videos of one.
    """
    found = {name: similar(name, cameras) for name in names}
    held = ", ".join(camera.name for camera in cameras)
    if missing := [name for name, candidates in found.items() if len(candidates) != 1]:
        remedy = (
            "Name each video, or folder of keypoints, after its camera."
            if isinstance(calibration, Path)
            else "Bring its file too, or leave the camera out: cameras = [...] in session.toml."
        )
        raise PipelineError(
            f"{described(calibration)} has no camera {', '.join(missing)}. It has {held}; the trial has "
            f"{', '.join(names)}. {remedy}"
        )
    chosen = [found[name][0] for name in names]
    if len({camera.name for camera in chosen}) < len(chosen):
        raise PipelineError(
            f"two of the videos {', '.join(names)} are of one camera of {described(calibration)} (it has "
            f"{held}). Keep one of each."
        )
    return chosen


def similar(name: str, cameras: Sequence[Camera]) -> list[Camera]:
    """The camera of exactly this name, else all of nearly this name."""
    exact = [camera for camera in cameras if camera.name == name]
    return exact or [camera for camera in cameras if _key(camera.name) == _key(name)]


def described(calibration: Calibration) -> str:
    """What a message calls a calibration."""
    if isinstance(calibration, Path):
        return str(calibration)
    return f"the calibration ({', '.join(map(str, calibration.values()))})"


def _settled(camera: Camera) -> Camera:
    # Adding 0 makes a negative zero a positive one.
    return replace(camera, camera_from_world=camera.camera_from_world.round(SETTLED_DIGITS) + 0.0)


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
