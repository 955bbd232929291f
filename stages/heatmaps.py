"""Heatmaps of the pose model, of any time that the cameras share."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from calibration import Camera
from models.heatmaps import Heatmaps, Projection, projection_of
from models.multiview import JOINTS
from models.swaps import Swapped, exchange

MapsOf = Callable[[slice], Heatmaps]
"""Gives the maps of some samples of a common timeline."""


def nearest_frames(
    frame_time: Float[np.ndarray, "frame"], time: Float[np.ndarray, "time"], farthest_s: float
) -> Int[np.ndarray, "time"]:
    """Index of the frame nearest to each time, s; -1 where none is within `farthest_s`.

    `frame_time` ascends, and may end in NaN.
    """
    known = frame_time[np.isfinite(frame_time)]
    after = np.clip(np.searchsorted(known, time), 1, len(known) - 1)
    nearest = np.where(time - known[after - 1] <= known[after] - time, after - 1, after)
    return np.where(np.abs(known[nearest] - time) <= farthest_s, nearest, -1)


def on_timeline(
    stored: xr.Dataset, keypoints: xr.Dataset, timeline: xr.Dataset, cameras: Sequence[Camera]
) -> MapsOf:
    """Say how to get the maps of samples of synchronised `keypoints`, a few at a time.

    Each sample takes those of every camera's nearest frame, none farther than half the time from
    frame to frame; maps are not interpolated. They are of each frame's first person: there are none
    where the subject is another. `timeline` is that of the frames stage.
    """
    clock = keypoints.clock_offset + keypoints.clock_rate * timeline.frame_time
    half_s, frames = 0.5 / timeline["rate_hz"], {}
    for camera in cameras:
        nearest = nearest_frames(
            clock.sel(camera=camera.name).values,
            keypoints.time.values,
            1.001 * float(half_s.sel(camera=camera.name)),
        )
        first = keypoints.subject.sel(camera=camera.name).values[nearest] == 0
        frames[camera.name] = np.where(first, nearest, -1)
    names = [str(name) for name in stored.keypoint.values]
    known = [name for name in names if name in JOINTS]
    columns, joints = [names.index(n) for n in known], [JOINTS.index(n) for n in known]
    projection = projection_of(cameras, torch.zeros(1))

    def of(samples: slice) -> Heatmaps:
        views = [_view(stored, name, each[samples], columns) for name, each in frames.items()]
        maps, affine = (np.stack(each, 1)[None] for each in zip(*views, strict=True))
        whole = np.zeros((*maps.shape[:3], len(JOINTS), *maps.shape[4:]), np.float32)
        whole[:, :, :, joints] = maps / np.float32(255)
        repeated = (
            each.expand(1, affine.shape[1], *each.shape) for each in vars(projection).values()
        )
        return Heatmaps(
            torch.from_numpy(whole),
            torch.from_numpy(affine.astype(np.float32)),
            Projection(*repeated),
        )

    return of


def exchanged(maps_of: MapsOf, swapped: Swapped) -> MapsOf:
    """Exchange left and right in maps where they are swapped."""

    def of(samples: slice) -> Heatmaps:
        maps = maps_of(samples)
        some = {chain: views[:, samples] for chain, views in swapped.items()}
        by_camera = maps.probability[0].numpy().swapaxes(0, 1)
        right = exchange(by_camera, some, JOINTS).swapaxes(0, 1)
        return replace(maps, probability=torch.from_numpy(right)[None])

    return of


def _view(stored: xr.Dataset, camera: str, frames: Int[np.ndarray, "time"], columns: list[int]):
    """One camera's maps (time, keypoint, row, column) and their affines, of frames or of none (-1)."""
    some = stored.sel(camera=camera)
    maps = np.zeros((len(frames), len(columns), *some.probability.shape[-2:]), np.uint8)
    affine = np.full((len(frames), 2, 3), np.nan)
    there = frames >= 0
    if there.any():
        first, last = frames[there].min(), frames[there].max()
        some = some.isel(frame=slice(first, last + 1))
        maps[there] = some.probability.values[frames[there] - first][:, columns]
        affine[there] = some.map_from_image.values[frames[there] - first]
    return maps, affine
