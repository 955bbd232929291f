"""The file of the pose model's heatmaps: written frame by frame, and read piece by piece."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5netcdf
import h5py
import numpy as np
import xarray as xr

from models.people import PoseMaps
from pipeline.errors import PipelineError
from pipeline.files import replacing

FILE = "heatmaps.nc"


class HeatmapWriter:
    """Collects the subject's heatmaps of all cameras, compressed, and writes them as NetCDF-4.

    In memory first, as `save_dataset` does: some 5 kB a frame and camera.
    """

    def __init__(self, cameras: Sequence[str], frames: int, keypoints: Sequence[str]):
        self._content = io.BytesIO()
        self._file = h5netcdf.File(self._content, "w")
        self._sizes = {"camera": len(cameras), "frame": frames, "keypoint": len(keypoints)}
        self._cameras, self._keypoints = list(cameras), list(keypoints)

    def keep(self, camera: str, frame: int, maps: PoseMaps) -> None:
        """Take the maps of one frame, whose person 0 is the subject."""
        if not self._file.variables:
            self._lay_out(maps.probability.shape[-2:])
        at = self._cameras.index(camera), frame
        if np.isfinite(maps.map_from_image[0]).all():
            self._file["probability"][at] = maps.probability[0]
            self._file["map_from_image"][at] = maps.map_from_image[0]

    def _lay_out(self, shape: tuple[int, int]) -> None:
        sizes = self._sizes | {"row": shape[0], "column": shape[1], "axis": 2, "term": 3}
        self._file.dimensions = sizes
        for name, values in (("camera", self._cameras), ("keypoint", self._keypoints)):
            self._file.create_variable(
                name, (name,), h5py.string_dtype(), data=np.array(values, "O")
            )
        cells = ("camera", "frame", "keypoint", "row", "column")
        one_frame = (1, 1, *(sizes[name] for name in cells[2:]))
        maps = self._file.create_variable(
            "probability", cells, "u1", chunks=one_frame, compression="gzip", compression_opts=4
        )
        maps.attrs["units"] = "1/255"
        affine = ("camera", "frame", "axis", "term")
        self._file.create_variable("map_from_image", affine, "f8", fillvalue=np.nan)
        self._file["map_from_image"].attrs["units"] = "cells (column, row) of px (x, y, 1)"

    def write(self, path: Path) -> bool:
        """Write what was kept, and return True; write nothing and return False if nothing was."""
        kept = bool(self._file.variables)
        self._file.close()
        if kept:
            with replacing(path) as temporary:
                temporary.write_bytes(self._content.getbuffer())
        return kept


@contextmanager
def opened(path: Path) -> Iterator[xr.Dataset]:
    """Open a file of `HeatmapWriter`, to be read piece by piece.

    Raises PipelineError if it is no such file.
    """
    try:
        dataset = xr.open_dataset(path, engine="h5netcdf", cache=False)
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"cannot read {path}: {error}. Make it again: --from keypoints"
        ) from error
    with dataset:
        yield dataset
