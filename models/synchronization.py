"""Synchronization: when two cameras saw the same movement, from 2D keypoints and the calibration.

Two cameras' rays to a keypoint meet only if both saw it at the same moment. By how much they miss
each other also depends on constant errors, of the calibration and of where a pose model marks a joint
in each view. What counts is therefore by how much the miss changes within a fifth of a second, against
how much it would change if the cameras had watched two different movements.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

WIDTH_S = 0.05
"""Tracks are smoothed by a Gaussian of this standard deviation: movements are slower, jitter is not."""
STEP_S = 1 / 30
"""Between the samples that cameras are compared on, and between the offsets that are tried."""
CHANGE_STEPS = 6
"""Changes are looked at over so many steps."""
FINE_STEP_S, FINE_CHANGE_STEPS = 1 / 120, 12
"""The same for offsets between steps: shorter changes leave more of a short recording to look at."""
USUAL_M = 0.03
"""Changes that detectors make by mistake; one several times larger does not count for more."""
BLOCK_STEPS = 30
"""Time is gone through in blocks of a second, which bounds the memory."""
BLOCKS = 60
"""Of a longer recording so many blocks are looked at, spread evenly, which bounds the time."""
PARALLEL = 1e-4
"""Squared sine of the angle between rays, below which their miss is not trusted: 0.6°."""


@dataclass(frozen=True)
class Track:
    """Where one camera saw a person's keypoints, on its own clock."""

    time_s: Float[np.ndarray, "frame"]
    image: Float[np.ndarray, "frame keypoint 2"]
    """Undistorted image coordinates (focal length 1); NaN where not seen."""
    camera_from_world: Float[np.ndarray, "3 4"]

    def sample(
        self, at_s: Float[np.ndarray, "time"]
    ) -> tuple[Float[np.ndarray, "time keypoint 2"], Float[np.ndarray, "time keypoint 2"]]:
        """Image coordinates, and their change per second, at any times on the camera's clock.

        By local linear regression with Gaussian weights (Fan and Gijbels, Local Polynomial Modelling
        and Its Applications, 1996, section 3.2), which needs no regular frames. NaN where more than
        half of the usual weight is missing: beyond the ends, and in gaps.
        """
        weight, later = _kernel(self.time_s, at_s)
        once = csr_array((weight.data * later, *_places(weight)), weight.shape)
        twice = csr_array((weight.data * later**2, *_places(weight)), weight.shape)
        seen = np.isfinite(self.image).all(-1)
        values = np.where(seen[..., None], self.image, 0.0).reshape(len(seen), -1)
        shape = (len(at_s), *self.image.shape[1:])
        s0, s1, s2 = ((each @ seen.astype(float))[..., None] for each in (weight, once, twice))
        y0, y1 = ((each @ values).reshape(shape) for each in (weight, once))
        interval_s = np.median(np.diff(self.time_s))
        enough = s0 >= 0.5 * WIDTH_S * np.sqrt(2 * np.pi) / interval_s
        determinant = np.where(enough, s0 * s2 - s1**2, np.nan)
        return (s2 * y0 - s1 * y1) / determinant, (s0 * y1 - s1 * y0) / determinant


def _kernel(time_s, at_s) -> tuple[csr_array, np.ndarray]:
    """Weights (time, frame) of the frames around each time, and how much later each frame is, s."""
    first = np.searchsorted(time_s, at_s - 3 * WIDTH_S)
    count = np.searchsorted(time_s, at_s + 3 * WIDTH_S) - first
    pointers = np.r_[0, np.cumsum(count)]
    frame = np.arange(pointers[-1]) + np.repeat(first - pointers[:-1], count)
    later = time_s[frame] - np.repeat(at_s, count)
    weight = np.exp(-0.5 * (later / WIDTH_S) ** 2)
    return csr_array((weight, frame, pointers), (len(at_s), len(time_s))), later


def _places(matrix: csr_array):
    return matrix.indices, matrix.indptr


@dataclass(frozen=True)
class Rays:
    """A camera's rays to the keypoints at whole steps of its own clock."""

    first: int
    """Step of the first sample."""
    direction: Float[np.ndarray, "keypoint sample 3"]
    """Of length 1, in the world; NaN where not seen."""
    center: Float[np.ndarray, "3"]
    """Where the camera is, m."""

    @classmethod
    def of(cls, track: Track, step_s: float = STEP_S) -> "Rays":
        """Smooth and sample a track."""
        first, last = track.time_s[[0, -1]] / step_s
        steps = np.arange(int(np.ceil(first - 1e-6)), int(np.floor(last + 1e-6)) + 1)
        image, _ = track.sample(steps * step_s)
        rotation, translation = track.camera_from_world[:, :3], track.camera_from_world[:, 3]
        ray = np.concatenate([image, np.ones_like(image[..., :1])], -1) @ rotation
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        direction = np.moveaxis(ray, 1, 0).astype(np.float32)
        return cls(int(steps[0]), direction, -rotation.T @ translation)


@dataclass(frozen=True)
class Evidence:
    """What two cameras say about every offset of the second one's clock against the first one's.

    At lag n, n steps are added to the second clock to get the first one; the middle is lag 0.
    """

    agreement: Float[np.ndarray, "lag"]
    """Above 0 where the offset explains what both saw, below where it contradicts; 0 where they do not
    overlap. Counts keypoints and samples, each between -1 and 1."""
    motion: Float[np.ndarray, "lag"]
    """What the agreement would be, if the rays' misses did not change at all."""


def compare(one: Rays, other: Rays, steps: int) -> Evidence:
    """Try all offsets of the other camera's clock, up to so many steps either way."""
    by_keypoint = compare_keypoints(one, other, np.arange(-steps, steps + 1), CHANGE_STEPS)
    return Evidence(*by_keypoint.sum(1))


def compare_keypoints(
    one: Rays, other: Rays, lags: Int[np.ndarray, "lag"], change_steps: int
) -> Float[np.ndarray, "2 keypoint lag"]:
    """Agreement and motion of each keypoint, at neighbouring lags of the other camera's clock.

    `d` being the change of the miss, and `a` and `b` the changes that it would have if only the one or
    only the other camera had seen the keypoint move, the agreement of a sample is f(a² + b²) - f(d²)
    with f(x) = x / (x + u²), Geman and McClure's: cameras that watch different movements give about 0,
    whatever moves and however much.

    A keypoint's misses are one product of matrices for all pairs of samples; an offset is a diagonal.
    """
    across = np.cross(other.direction, (other.center - one.center).astype(np.float32))
    keypoints, samples, _ = one.direction.shape
    others, low, high = other.direction.shape[1], int(lags[0]), int(lags[-1])
    total = np.zeros((2, keypoints, len(lags)))
    for start in _block_starts(samples - change_steps):
        shown = slice(start, min(start + BLOCK_STEPS + change_steps, samples))
        lowest = start + one.first - other.first - high
        window = slice(max(lowest, 0), min(lowest + shown.stop - start + high - low, others))
        if min(shown.stop - start, window.stop - window.start) <= change_steps:
            continue
        miss = _misses(one.direction[:, shown], other.direction[:, window], across[:, window])
        both = _agreement(miss, change_steps)
        time, other_time = np.indices(both.shape[2:])
        lag = lowest + high - low - window.start + time - other_time
        tried = (lag >= 0) & (lag < len(lags))
        total += _by_lag(both[..., tried], lag[tried], len(lags))
    return total


def _block_starts(samples: int) -> Int[np.ndarray, "block"]:
    starts = np.arange(0, max(samples, 1), BLOCK_STEPS)
    if len(starts) <= BLOCKS:
        return starts
    return starts[np.linspace(0, len(starts) - 1, BLOCKS).round().astype(int)]


def _by_lag(values, lag, count) -> Float[np.ndarray, "2 keypoint lag"]:
    """Sums of values (2, keypoint, any) over what belongs to the same lag."""
    rows = values.reshape(-1, values.shape[-1])
    sums = [np.bincount(lag, row, count) for row in rows]
    return np.reshape(sums, (*values.shape[:2], count))


def _misses(direction, other_direction, across) -> Float[np.ndarray, "keypoint time other_time"]:
    """Distances between rays, m, with a sign, of each of the one's samples and each of the other's."""
    cosine = direction @ other_direction.transpose(0, 2, 1)
    sine = np.sqrt(np.maximum(1 - cosine**2, PARALLEL))
    return direction @ across.transpose(0, 2, 1) / sine


def _agreement(miss, change_steps: int) -> Float[np.ndarray, "2 keypoint time other_time"]:
    """Agreement and motion of each pair of samples."""
    early, late = slice(None, -change_steps), slice(change_steps, None)
    here = miss[:, early, early]
    both = (miss[:, late, late] - here) ** 2
    apart = (miss[:, late, early] - here) ** 2 + (miss[:, early, late] - here) ** 2
    known = np.isfinite(both) & np.isfinite(apart)
    both, apart = np.where(known, both, 0.0), np.where(known, apart, 0.0)
    moves = apart / (apart + USUAL_M**2)
    return np.stack([moves - both / (both + USUAL_M**2), moves])
