"""Detector: what an image detector would give for true keypoints, with errors like real ones.

An error is the sum of parts that behave differently: a bias of the view that stays, a wandering that
is correlated in time, a quick jitter, and outliers that last for a while. Sizes are metres at the
person, since pose networks look at a crop and err by a share of the body; all parameters are in
`detector.toml`, with where they come from.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from scipy.signal import lfilter
from scipy.special import expit

from calibration import Camera
from models.vocabulary import parts_of

Random = np.random.Generator
PerPoint = Float[np.ndarray, "time keypoint"]
DISPLACING = ("view_bias", "jitter", "blur", "occlusion", "outliers")
"""Sources of errors in the image, which confidences tell a little about."""
SHARED_S = 8.0
"""Cameras that are not started together film at least so much in common."""
LEGS = parts_of("legs")


class Errors(BaseModel):
    """Which errors a recording has: 0 is none, 1 as measured or assumed, 2 twice as much."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    calibration: float = Field(1.0, ge=0, le=10)
    """Errors of the cameras' calibration."""
    appearance: float = Field(1.0, ge=0, le=10)
    """Where this person's keypoints are marked, against the average person's: the same in all views."""
    view_bias: float = Field(1.0, ge=0, le=10)
    """A constant shift of each keypoint in each view."""
    jitter: float = Field(1.0, ge=0, le=10)
    """Slow wandering and quick jitter of keypoints that are in sight."""
    blur: float = Field(1.0, ge=0, le=10)
    """Errors along the way that a fast keypoint moves."""
    occlusion: float = Field(1.0, ge=0, le=10)
    """Larger errors, and misses, of keypoints that the body hides."""
    outliers: float = Field(1.0, ge=0, le=10)
    """Keypoints that are elsewhere for some frames."""
    missed: float = Field(1.0, ge=0, le=10)
    """Keypoints that are not found for some frames."""
    swaps: float = Field(1.0, ge=0, le=10)
    """Legs whose sides are exchanged for some frames, in views from the side."""
    clock: float = Field(1.0, ge=0, le=10)
    """Cameras that are off by up to half a frame, as after a synchronisation in whole frames."""
    dropped_frames: float = Field(1.0, ge=0, le=100)
    """Frames that a camera loses."""

    @classmethod
    def none(cls) -> "Errors":
        """No errors at all."""
        return cls(**dict.fromkeys(cls.model_fields, 0.0))

    @classmethod
    def only(cls, source: str, size: float = 1.0) -> "Errors":
        """One source of errors alone."""
        return cls.none().model_copy(update={source: size})

    def scaled(self, size: float) -> "Errors":
        """All errors larger or smaller by a factor."""
        return type(self)(**{name: size * value for name, value in self})


@cache
def parameters() -> dict[str, dict]:
    """The parameters of `detector.toml`."""
    text = resources.files("models.simulation").joinpath("detector.toml").read_text("utf-8")
    return tomllib.loads(text)


def appearance_offsets(
    names: Sequence[str], errors: Errors, random: Random
) -> dict[str, Float[np.ndarray, "3"]]:
    """How far a person's keypoints are marked from the average person's, m, in their body's frame."""
    spread = errors.appearance * parameters()["appearance"]["spread_m"]
    return {name: random.normal(0, spread, 3) for name in names}


def clock_offset_s(rate_hz: float, errors: Errors, random: Random) -> float:
    """How late a camera is after a synchronisation in whole frames."""
    return float(errors.clock * random.uniform(-0.5, 0.5) / rate_hz)


@dataclass(frozen=True)
class Clocks:
    """How cameras are started by hand: not together, and each with a clock of its own."""

    start_spread_s: float = 0.0
    """Each camera starts up to so long after the first moment, and stops as long before the last."""
    drift_ppm: float = 0.0
    """Each camera's rate is off by up to so many parts of a million, either way."""

    @property
    def needed_s(self) -> float:
        """How long a movement must last for all cameras to share `SHARED_S` of it; 0 if together."""
        return 2 * self.start_spread_s + SHARED_S if self.start_spread_s else 0.0

    def draw(self, random: Random) -> tuple[float, float, float]:
        """Seconds until a camera starts and from its stop to the end, and its interval's factor."""
        late_s, early_s, drift = random.uniform([0, 0, -1], 1)
        factor = 1 + drift * self.drift_ppm * 1e-6
        return self.start_spread_s * late_s, self.start_spread_s * early_s, factor


def kept_frames(count: int, errors: Errors, random: Random) -> Bool[np.ndarray, "frame"]:
    """Which frames a camera does not lose; never the first nor the last."""
    kept = (
        random.uniform(size=count)
        >= errors.dropped_frames * parameters()["frames"]["dropped_share"]
    )
    kept[[0, -1]] = True
    return kept


def detect(
    points: Float[np.ndarray, "time keypoint 3"],
    names: Sequence[str],
    hidden: Bool[np.ndarray, "time keypoint"],
    camera: Camera,
    rate_hz: float,
    errors: Errors,
    bias_m: Float[np.ndarray, "keypoint 2"],
    random: Random,
) -> tuple[Float[np.ndarray, "time keypoint 2"], PerPoint]:
    """Pixels and confidences that a detector gives for true points (m); NaN and 0 where it has none.

    `bias_m` is the view's, as of `view_bias`.
    """
    depth = points @ camera.camera_from_world[2, :3] + camera.camera_from_world[2, 3]
    px_per_m = camera.intrinsics[0, 0] / depth
    moving_m = _moving_error_m(points, names, hidden, camera, rate_hz, errors, random)
    error_m = bias_m + moving_m
    pixels = camera.project(points) + error_m * px_per_m[..., None]
    pixels = _swap_legs(pixels, names, points, camera, rate_hz, errors, random)
    confidence = _confidence(error_m, hidden, rate_hz, errors, random)
    missed = _missed(hidden, rate_hz, errors, random)
    inside = ((pixels >= 0) & (pixels <= np.array(camera.image_size) - 1)).all(-1)  # not if NaN
    found = inside & ~missed
    return np.where(found[..., None], pixels, np.nan), np.where(found, confidence, 0.0)


def view_bias(
    names: Sequence[str], errors: Errors, random: Random
) -> Float[np.ndarray, "keypoint 2"]:
    """How far a view shifts each keypoint, in the image's plane at the person, m."""
    spread = errors.view_bias * by_keypoint(names, "bias_m")[:, None]
    return spread * random.normal(size=(len(names), 2))


def _moving_error_m(points, names, hidden, camera, rate_hz, errors, random):
    """Errors that change, in the image's plane at the person, m (time, keypoint, 2)."""
    table, shape = parameters(), (len(points), len(names), 2)
    size = {key: by_keypoint(names, key)[:, None] for key in ("wander_m", "jitter_m")}
    wander = size["wander_m"] * correlated(shape, rate_hz, table["wander"]["correlation_s"], random)
    quick = size["jitter_m"] * random.normal(size=shape)
    behind = hidden[..., None]
    extra = np.sqrt(table["hidden"]["error_factor"] ** 2 - 1)
    covered = errors.occlusion * extra * size["wander_m"]
    covered = covered * correlated(shape, rate_hz, table["wander"]["correlation_s"], random)
    error = errors.jitter * (wander + quick) + np.where(behind, covered, 0)
    seen = points @ camera.camera_from_world[:3, :3].T + camera.camera_from_world[:3, 3]
    in_image = seen[..., :2] / seen[..., 2:]  # moves too as the person comes nearer
    velocity = np.gradient(in_image, 1 / rate_hz, axis=0) * seen[..., 2:]
    error += (
        errors.blur
        * table["blur"]["half_exposure_s"]
        * velocity
        * random.normal(size=(*shape[:2], 1))
    )
    outliers = table["outliers"]
    started = errors.outliers * outliers["starts_per_s"]
    out, start = bursts(shape[:2], rate_hz, started, outliers["duration_s"], random)
    # One displacement as long as an outlier lasts.
    thrown = random.normal(0, outliers["size_m"], shape)
    thrown = np.take_along_axis(thrown, start[..., None], axis=0)
    return error + np.where(out[..., None], thrown, 0)


def by_keypoint(names: Sequence[str], key: str) -> Float[np.ndarray, "keypoint"]:
    """A parameter of each keypoint: that of the first group whose word is in its name."""
    groups = parameters()["keypoints"]

    def find(name):
        low = name.lower()
        return next((g[key] for word, g in groups.items() if word in low), groups["head"][key])

    return np.array([find(name) for name in names])


def correlated(shape, rate_hz: float, correlation_s: float, random: Random) -> np.ndarray:
    """Gaussian noise of variance 1 whose correlation falls exponentially with time (axis 0)."""
    kept = np.exp(-1 / (rate_hz * correlation_s))
    steps = random.normal(size=shape) * np.sqrt(1 - kept**2)
    steps[0] /= np.sqrt(1 - kept**2)
    return lfilter([1.0], [1.0, -kept], steps, axis=0)


def bursts(shape, rate_hz: float, starts_per_s: float, duration_s: float, random: Random):
    """Where something that starts at random lasts (time, …), and the sample at which it started."""
    time = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    starts = random.uniform(size=shape) < starts_per_s / rate_hz
    length = np.ceil(random.exponential(duration_s * rate_hz, size=shape)).astype(int)
    begun = np.maximum.accumulate(np.where(starts, time, -1), axis=0)
    until = np.take_along_axis(time + length, np.maximum(begun, 0), axis=0)
    return (begun >= 0) & (time < until), np.maximum(begun, 0)


def _swap_legs(pixels, names, points, camera, rate_hz, errors, random):
    """Exchange the legs' sides in bursts, where the hips are seen nearly edge on."""
    table, names = parameters()["swaps"], list(names)
    pairs = [
        (names.index(f"R{part}"), names.index(f"L{part}")) for part in LEGS if f"R{part}" in names
    ]
    right, left = names.index("RHip"), names.index("LHip")
    across = (points[:, right] - points[:, left]) @ camera.camera_from_world[:2, :3].T
    apart = np.linalg.norm(points[:, right] - points[:, left], axis=-1)
    edge_on = np.linalg.norm(across, axis=-1) < table["edge_on"] * apart
    lasting, _ = bursts(
        (len(points),), rate_hz, errors.swaps * table["starts_per_s"], table["duration_s"], random
    )
    swapped, now = pixels.copy(), edge_on & lasting
    for one, other in pairs:
        swapped[now, one], swapped[now, other] = pixels[now, other], pixels[now, one]
    return swapped


def _missed(hidden, rate_hz, errors, random):
    """Where keypoints are not found: for a while, and the more so where they are hidden."""
    table = parameters()["missed"]
    starts = errors.missed * table["starts_per_s"]
    seen, _ = bursts(hidden.shape, rate_hz, starts, table["duration_s"], random)
    starts = errors.occlusion * table["starts_per_s_hidden"]
    covered, _ = bursts(hidden.shape, rate_hz, starts, table["duration_s"], random)
    return seen | (covered & hidden)


def _confidence(error_m, hidden, rate_hz, errors, random):
    """Confidences that tell a little about errors: linear in the error's logarithm, and noisy."""
    table = parameters()["confidence"]
    if not any(getattr(errors, source) for source in DISPLACING):
        return np.ones(hidden.shape)
    size = np.log(np.maximum(np.linalg.norm(error_m, axis=-1), 1e-3) / 0.03)
    noise = table["spread"] * correlated(hidden.shape, rate_hz, table["correlation_s"], random)
    covered = min(errors.occlusion, 1.0) * table["hidden"] * hidden
    return expit(table["at_30_mm"] + table["per_log_error"] * size + covered + noise)
