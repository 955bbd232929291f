"""Synchronize: keypoints of every camera, each on its own clock, onto one common timeline."""

from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field

from pipeline.files import load_dataset, save_dataset
from stages.trial import Progress, Trial

NEEDS = ("frames", "keypoints")

MAX_LAG_S = 0.1
"""Cameras that are taken to be synchronised are looked at for lags up to this."""


class Settings(BaseModel):
    """Options of the synchronisation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_gap_frames: float = Field(1.5, gt=0)
    """Two frames of a camera farther apart than this, in its own frame intervals, are not
    interpolated between: what happened there was not filmed."""


def resample(
    values: Float[np.ndarray, "frame *values"],
    frame_time: Float[np.ndarray, "frame"],
    time: Float[np.ndarray, "time"],
    max_gap_s: float,
) -> Float[np.ndarray, "time *values"]:
    """Interpolate linearly between the two frames around each time, in seconds.

    NaN outside the recording, across gaps longer than `max_gap_s`, and where either frame is NaN.
    A time that is a frame's own, to within 0.1 ms, takes that frame's value unchanged.
    """
    after = np.clip(np.searchsorted(frame_time, time), 1, len(frame_time) - 1)
    before = after - 1
    gap = frame_time[after] - frame_time[before]
    share = (time - frame_time[before]) / gap
    share = np.where(np.abs(time - frame_time[before]) < 1e-4, 0.0, share)
    share = np.where(np.abs(time - frame_time[after]) < 1e-4, 1.0, share)
    between = (share >= 0) & (share <= 1) & ((gap <= max_gap_s) | (share == 0) | (share == 1))
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    # Not a weighted sum of both: a neighbour's NaN must not spoil an exact match.
    mixed = values[before] * (1 - share) + values[after] * share
    mixed = np.where(share == 0, values[before], np.where(share == 1, values[after], mixed))
    return np.where(between.reshape(share.shape), mixed, np.nan)


def apparent_lag_s(
    expected: Float[np.ndarray, "time keypoint 2"],
    observed: Float[np.ndarray, "time keypoint 2"],
    time_s: Float[np.ndarray, "time"],
) -> tuple[float, float]:
    """Seconds by which a camera's picture comes later than expected, and what that explains.

    `expected` is where the other cameras say that the keypoints are in its image, `observed` where
    it shows them, px. The lag, in half samples, is the one with the smallest mean distance between
    them, each counted at most three times the median; the second number is the share by which that
    mean falls. A movement too slow to tell gives a share near 0.
    """
    interval_s = float(np.median(np.diff(time_s)))
    steps = int(MAX_LAG_S / interval_s)
    lags = np.arange(-2 * steps, 2 * steps + 1) * interval_s / 2
    shifted = (resample(expected, time_s, time_s - lag, 1.5 * interval_s) for lag in lags)
    distance = np.stack([np.linalg.norm(each - observed, axis=-1) for each in shifted])
    distance = distance[:, np.isfinite(distance).all(0)]  # (lag, sample): the same for all lags
    if not distance.size:
        return 0.0, 0.0
    no_lag = distance[len(lags) // 2]
    cost = np.minimum(distance, 3 * np.median(no_lag)).mean(1)
    best = int(cost.argmin())
    return float(lags[best]), float(1 - cost[best] / max(cost[len(lags) // 2], 1e-9))


def synchronize(
    keypoints: xr.Dataset, timeline: xr.Dataset, offsets_s: dict[str, float], settings: Settings
) -> xr.Dataset:
    """Put the subject's keypoints onto the common timeline.

    `offsets_s` is added to a camera's own clock to get the session's. Keypoints are interpolated,
    never images. Confidence is interpolated likewise, and 0 where there is no position.
    """
    subject = keypoints.isel(person=0)
    positions, confidences = [], []
    for name in map(str, subject.camera.values):
        frame_time = timeline.frame_time.sel(camera=name).values
        recorded = np.isfinite(frame_time)
        clock = frame_time[recorded] + offsets_s.get(name, 0.0)
        max_gap_s = settings.max_gap_frames / float(timeline["rate_hz"].sel(camera=name))
        view = subject.sel(camera=name)
        position = view.position.transpose("frame", "keypoint", "axis").values[recorded]
        confidence = view.confidence.transpose("frame", "keypoint").values[recorded]
        time = timeline.time.values
        positions.append(resample(position, clock, time, max_gap_s))
        sampled = resample(confidence, clock, time, max_gap_s)
        confidences.append(np.where(np.isfinite(positions[-1]).all(-1), sampled, 0.0))
    return xr.Dataset(
        {
            "position": (
                ("camera", "time", "keypoint", "axis"),
                np.stack(positions),
                {"units": "px"},
            ),
            "confidence": (
                ("camera", "time", "keypoint"),
                np.nan_to_num(np.stack(confidences)),
                {"units": "1"},
            ),
        },
        coords={
            "camera": subject.camera,
            "time": timeline.time,
            "keypoint": subject.keypoint,
            "axis": ["x", "y"],
        },
        attrs=keypoints.attrs,
    )


def inputs(trial: Trial, settings: Settings) -> dict[str, object]:
    """Return what the result depends on besides other stages."""
    return {"clock_offsets_s": trial.clock_offsets_s}


def run(trial: Trial, settings: Settings, out: Path, progress: Progress) -> list[str]:
    """Resample the keypoints of one trial into `keypoints.nc`."""
    timeline = load_dataset(trial.folder("frames") / "timeline.nc")
    keypoints = load_dataset(trial.folder("keypoints") / "keypoints.nc")
    synchronized = synchronize(keypoints, timeline, trial.clock_offsets_s, settings)
    save_dataset(synchronized, out / "keypoints.nc")
    return [
        f"camera {name}: its clock was shifted by {offset:+.4f} s, as the session says."
        for name, offset in trial.clock_offsets_s.items()
        if offset
    ]
