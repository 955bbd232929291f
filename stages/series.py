"""Time series: by the names of what they follow, their stretches, and their short gaps filled."""

from collections.abc import Callable

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float


def by_name(array: xr.DataArray, dim: str) -> dict[str, Float[np.ndarray, "time axis"]]:
    """Trajectories of a labelled array by what `dim` names: keypoints or markers."""
    values = array.transpose(dim, "time", "axis").values
    return dict(zip(map(str, array[dim].values), values, strict=True))


def stretches(flags: Bool[np.ndarray, "time"]) -> list[slice]:
    """Return the runs of samples in which a flag is set."""
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False].astype(int))).tolist()
    return [slice(*pair) for pair in zip(edges[::2], edges[1::2], strict=True)]


def fill_short_gaps(
    values: Float[np.ndarray, "time *any"], longest: int, interpolator: Callable
) -> Float[np.ndarray, "time *any"]:
    """Fill gaps (NaN) of at most `longest` samples between known ones.

    `interpolator(samples, values)` makes the curve through one series' known values.
    """
    filled = values.reshape(len(values), -1).copy()
    sample = np.arange(len(values))
    for series in filled.T:
        known = np.isfinite(series)
        short = [
            gap
            for gap in stretches(~known)
            if gap.start > 0 and gap.stop < len(series) and gap.stop - gap.start <= longest
        ]
        if short:
            curve = interpolator(sample[known], series[known])
            for gap in short:
                series[gap] = curve(sample[gap])
    return filled.reshape(values.shape)
