"""OpenCap's `cameraIntrinsicsExtrinsics.pickle`: one file a camera."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calibration.camera import Camera, camera_from
from pipeline.errors import PipelineError

FILE_NAME = "cameraIntrinsicsExtrinsics.pickle"
WORLD_UP = "-y"
"""The world is the checkerboard's; on the wall or a stand its y points down. (Lying on the floor,
"-z".)"""

_ADMITTED = {
    (module, name)
    for module in ("numpy.core.multiarray", "numpy._core.multiarray")
    for name in ("_reconstruct",)
} | {("numpy", "ndarray"), ("numpy", "dtype")}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that makes numpy arrays and nothing else: a pickle can run any program."""

    def find_class(self, module, name):
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which an array never does")
        return super().find_class(module, name)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Unpickle a dictionary of numpy arrays; refuse anything else.

    Raises PipelineError for a file that is damaged, or that asks for other code.
    """
    try:
        with open(path, "rb") as stream:
            content = _ArraysOnly(stream, encoding="latin1").load()
    except OSError as error:
        raise PipelineError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # damaged pickles raise nearly anything
        raise PipelineError(
            f"{path} was refused: {error}. Copy it again, or leave the camera out: cameras = [...] in "
            "session.toml."
        ) from error
    if not isinstance(content, dict):
        raise PipelineError(f"{path} holds no dictionary of camera parameters")
    return content


def read_opencap(path: Path) -> list[Camera]:
    """Read one camera file, or a folder with one subfolder a camera, named after it.

    Millimetres there; `imageSize` is height, then width; `rotation` turns board to camera.
    """
    files = sorted(path.glob(f"*/{FILE_NAME}")) if path.is_dir() else [path]
    return [_camera(file) for file in files]


def _camera(path: Path) -> Camera:
    content, name = load_arrays(path), path.parent.name
    wanted = ("intrinsicMat", "distortion", "imageSize", "rotation", "translation")
    if missing := [key for key in wanted if key not in content]:
        raise PipelineError(
            f"{path} lacks {', '.join(missing)}. A file with intrinsics only says how a camera "
            "sees, not where it stands: run OpenCap's extrinsic calibration."
        )
    return camera_from(
        name=name,
        image_size=np.ravel(content["imageSize"])[1::-1],
        intrinsics=content["intrinsicMat"],
        distortion=content["distortion"],
        rotation=content["rotation"],
        translation=np.ravel(content["translation"]) / 1000,
        world_up=WORLD_UP,
    )


def board_up(cameras: Sequence[Camera], axis: str | None = None) -> str:
    """Which way is up in the checkerboard's world, such as "-y": as it is in the cameras' images.

    People hold cameras upright, so that the mean of the images' up directions tells the sign of the
    axis that is known to be vertical (`axis`, x, y or z), or, less surely, the axis too.
    """
    up = -np.mean([camera.camera_from_world[1, :3] for camera in cameras], axis=0)
    index = int(np.abs(up).argmax()) if axis is None else "xyz".index(axis)
    return f"{'+' if up[index] > 0 else '-'}{'xyz'[index]}"


def write_opencap(cameras: list[Camera], folder: Path) -> None:
    """Write one pickle a camera, as OpenCap does."""
    for camera in cameras:
        if camera.world_up != WORLD_UP:
            raise PipelineError(f"camera {camera.name}: OpenCap's world has {WORLD_UP} up")
        (folder / camera.name).mkdir(parents=True, exist_ok=True)
        content = {
            "intrinsicMat": camera.intrinsics,
            "distortion": camera.distortion[None],
            "imageSize": np.array(camera.image_size[::-1], float)[:, None],
            "rotation": camera.camera_from_world[:3, :3],
            "translation": camera.camera_from_world[:3, 3:] * 1000,
        }
        with open(folder / camera.name / FILE_NAME, "wb") as stream:
            pickle.dump(content, stream)
