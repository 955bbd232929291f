"""Fit the simulator's detector noise to the demo: how its 2D keypoints miss the smoothed 3D points.

    python -m benchmarks.detector

Prints the fitted tables of `models/simulation/detector.toml`. The embedded pose model (BlazePose) on
the demo's footage: four cameras, 99 frames, a person who balances. Frames in which a camera follows
the bystander are left out (a median error above 15 cm), and the camera that is late is shifted to
where it disagrees least. Errors are metres at the person. The smoothed point is itself made from
four views, and so nearer to each of them than the truth is: errors are enlarged by the square root
of equations to degrees of freedom, 8 to 5. What calibration adds is in the view's bias.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from calibration import read_cameras
from models.simulation.detector import parameters
from models.simulation.landmarks import segments
from models.simulation.occlusion import hidden
from pipeline.config import configure
from pipeline.demo import build_demo
from pipeline.files import load_dataset
from pipeline.runner import run_trial
from pipeline.session import open_session
from stages.frames import image_sizes
from stages.series import by_name, stretches
from stages.trial import Trial, no_progress

LATE = {"cam03": -0.067}
"""The lag that the pipeline itself reports for the demo."""
RATE_HZ = 60.0
ENLARGED = np.sqrt(8 / 5)
FOLLOWED_WITHIN_M = 0.15
OUTLIER = 4.0
"""Robust standard deviations beyond which an error is an outlier."""
ASSUMED_HEIGHT_M = 1.7


def run_demo(folder: Path) -> Trial:
    """Run the demo up to the markers, its late camera shifted."""
    (trial,) = open_session(build_demo(folder)).select()
    trial = replace(trial, clock_offsets_s=LATE)
    for _ in run_trial(
        trial, lambda t: configure(t.activity, {}), lambda *_: no_progress, last="augment"
    ):
        pass
    return trial


def residuals(trial: Trial):
    """Errors (camera, time, keypoint, 2) in m, hidden and confidence (camera, time, keypoint), names."""
    timeline = load_dataset(trial.folder("frames") / "timeline.nc")
    keypoints = load_dataset(trial.folder("synchronize") / "keypoints.nc")
    smooth = load_dataset(trial.folder("smooth") / "points.nc").position
    markers = by_name(load_dataset(trial.folder("augment") / "markers.nc").position, "marker")
    points = by_name(smooth, "keypoint")
    ears = (points["LEar"] + points["REar"]) / 2
    body = markers | {"Head": ears + 0.65 * (ears - markers["Neck"])}
    cameras, _ = read_cameras(trial.calibration, list(trial.videos), image_sizes(timeline))
    errors, covered = [], []
    for camera in cameras:
        world, pixels = smooth.values, keypoints.position.sel(camera=camera.name).values
        depth = world @ camera.camera_from_world[2, :3] + camera.camera_from_world[2, 3]
        error = (pixels - camera.project(world)) * (depth / camera.intrinsics[0, 0])[..., None]
        followed = np.nanmedian(np.linalg.norm(error, axis=-1), axis=1) < FOLLOWED_WITHIN_M
        errors.append(np.where(followed[:, None, None], error * ENLARGED, np.nan))
        covered.append(hidden(world, body, segments(), ASSUMED_HEIGHT_M, camera.center))
    names = [str(name) for name in keypoints.keypoint.values]
    return np.stack(errors), np.stack(covered), keypoints.confidence.values, names


def fit_keypoints(error, bias, out, names) -> None:
    """Print bias, slow wandering and quick jitter of each group of keypoints."""
    moving = np.where(out[..., None], np.nan, error - bias)
    lags = np.array([2, 4, 6, 8, 12])

    def covariance(values, lag):
        return np.nanmean(values[:, lag:] * values[:, : values.shape[1] - lag])

    curve = np.array([covariance(moving, lag) for lag in lags])
    slope, _ = np.polyfit(lags / RATE_HZ, np.log(curve), 1)
    correlation_s = -1 / slope
    print(f"[wander]\ncorrelation_s = {correlation_s:.2f}\n\n[keypoints]")
    for word in parameters()["keypoints"]:
        columns = [i for i, name in enumerate(names) if word in name.lower()]
        if word == "head":
            columns = [names.index(name) for name in ("Nose", "LEye", "REye", "LEar", "REar")]
        if not columns:
            continue
        group = moving[:, :, columns]
        total = np.nanvar(group)
        slow = covariance(group, 2) * np.exp(2 / RATE_HZ / correlation_s)
        constant = np.sqrt((bias[:, :, columns] ** 2).mean())
        print(
            f"{word} = {{ bias_m = {constant:.4f}, wander_m = {np.sqrt(slow):.4f}, "
            f"jitter_m = {np.sqrt(max(total - slow, 0)):.4f} }}"
        )


def fit_bursts(title: str, active, size_m: float | None = None) -> float:
    """Print how often something starts and how long it lasts; return how long, s."""
    runs = [s for camera in active for series in camera.T for s in stretches(series)]
    seconds = active.size / RATE_HZ
    length = np.mean([run.stop - run.start for run in runs]) / RATE_HZ
    print(f"\n[{title}]\nstarts_per_s = {len(runs) / seconds:.3f}\nduration_s = {length:.2f}")
    if size_m:
        print(f"size_m = {size_m:.3f}")
    return length


def main() -> None:
    """Print the fitted tables."""
    with tempfile.TemporaryDirectory() as scratch:
        error, covered, confidence, names = residuals(run_demo(Path(scratch) / "demo"))
    bias = np.nanmedian(error, axis=1, keepdims=True)
    away = np.linalg.norm(error - bias, axis=-1)
    known = np.isfinite(away)
    robust = np.nanmedian(away) / 1.177  # the median of a two-dimensional Gaussian's length
    out = known & (away > OUTLIER * robust)
    fit_keypoints(error, bias, out, names)
    fit_bursts("outliers", out, float(np.sqrt((away[out] ** 2).mean() / 2)))
    low = known & (confidence < 0.3)
    lasts_s = fit_bursts("missed", low & ~covered)
    inside = known & ~out
    factor = np.median(away[inside & covered]) / np.median(away[inside & ~covered])
    print(f"starts_per_s_hidden = {low[covered & known].mean() / lasts_s:.3f}")
    print(
        f"\n[hidden]\nerror_factor = {factor:.2f}  # {(covered & known).sum() / known.sum():.0%} are hidden"
    )
    size = np.log(np.maximum(np.linalg.norm(error, axis=-1), 1e-3) / 0.03)
    sure = np.log(np.clip(confidence, 1e-3, 0.999) / (1 - np.clip(confidence, 1e-3, 0.999)))
    design = np.stack([np.ones(known.sum()), size[known], covered[known]], 1)
    fitted, *_ = np.linalg.lstsq(design, sure[known], rcond=None)
    spread = (sure[known] - design @ fitted).std()
    print(
        f"\n[confidence]\nat_30_mm = {fitted[0]:.2f}\nper_log_error = {fitted[1]:.2f}\n"
        f"hidden = {fitted[2]:.2f}\nspread = {spread:.2f}"
    )


if __name__ == "__main__":
    main()
