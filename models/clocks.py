"""Clocks: cameras' offsets and rates from what they saw, and what speaks against the answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from models.clock_agreement import agreed_clocks
from models.clock_fit import ClockFit, fit_clocks
from models.clock_search import Rival, Search
from models.synchronization import STEP_S, Track

LOOSE_S = 0.006
"""Largest standard error of an answer. Where seconds of a recording disagree by more about the offset,
they are not of one movement: recordings of different moments give 7 ms and more (docs)."""
REFUTED = 2.0, 0.004
"""A rival is refuted if its standard error is larger than so many times the answer's, and than this, s."""
TRIED = 2
"""So many of the strongest rivals are tried."""
MOST_RIVALS = 5
"""So many of the strongest rivals are looked at."""
SHORT_S, LEAST_SHARE = 4.0, 0.35
"""A shorter recording has too few seconds that could disagree. Its cameras are believed without, if they
agree on so much of the motion; no rival, of other moments, did there."""
DRIFT_FROM_S, DRIFT_ERRORS = 60.0, 4.0
"""Rates are looked at in recordings longer than this, and believed from so many standard errors on."""
ZERO_ERRORS, ZERO_FRAMES = 2.0, 0.25
"""An offset within so many standard errors of 0, and within so much of a frame, is 0."""


@dataclass(frozen=True)
class Clocks:
    """Session time = offset + rate * own time, by camera."""

    offset_s: Float[np.ndarray, "camera"]
    rate: Float[np.ndarray, "camera"]
    error_s: Float[np.ndarray, "camera"]
    """Standard error of the offset; 0 for clocks that are given, NaN where nothing is known."""

    @classmethod
    def plain(cls, offset_s: Sequence[float], error_s: Sequence[float]) -> "Clocks":
        """Clocks that run at the right rate."""
        offset = np.array(offset_s, float)
        return cls(offset, np.ones_like(offset), np.array(error_s, float))


@dataclass(frozen=True)
class Answer:
    """An estimate, and how well it stands."""

    steps: Int[np.ndarray, "camera"]
    """Where the fit began."""
    clocks: Clocks
    fit: ClockFit
    rival: Rival | None
    """Another answer that could not be refuted."""

    @property
    def loose_s(self) -> float:
        """The largest standard error; infinite if the fit did not settle."""
        return _loose_s(self.fit)


def estimate_clocks(
    tracks: Sequence[Track], search: Search, given_s: Mapping[int, float]
) -> Answer | None:
    """Find the clocks of all cameras that are not given; None if no offset explains anything.

    The offsets that agree best, unless others fit them and the best do not: cameras that overlap
    longer may agree on more of what they did not see together.
    """
    fixed = {camera: round(offset / STEP_S) for camera, offset in given_s.items()}
    steps = search.best(fixed)
    if search.agreement(steps) <= 0:
        return None
    free = [camera for camera in range(len(tracks)) if camera not in given_s]
    start_s = steps * STEP_S
    start_s[list(given_s)] = list(given_s.values())
    fit, rivals = fit_clocks(tracks, start_s, free), search.rivals(steps, free)[:MOST_RIVALS]
    others = ((rival, fit_clocks(tracks, rival.from_there(start_s), free)) for rival in rivals)
    if _loose_s(fit) > LOOSE_S:
        others = list(others)
        best = min(others, key=lambda each: _loose_s(each[1]), default=None)
        if best and _loose_s(best[1]) < _loose_s(fit):
            others = [each for each in others if each is not best]
            others.append((Rival(best[0].group, -best[0].shift_s), fit))
            fit, steps = best[1], search.in_steps(best[0].from_there(steps * STEP_S))
    fit = _with_drift_if_any(tracks, fit, free)
    times, least_s = REFUTED
    largest = max(times * _loose_s(fit), least_s)
    standing = next((rival for rival, other in others if _loose_s(other) < largest), None)
    return Answer(steps, _as_clocks(fit, tracks), fit, standing)


def _loose_s(fit: ClockFit) -> float:
    """The largest standard error; infinite if the fit did not settle."""
    return float(fit.offset_error_s.max()) if fit.settled else np.inf


def estimate_short(
    tracks: Sequence[Track], search: Search, answer: Answer, free: Sequence[int]
) -> Clocks | None:
    """The clocks of a recording that is too short for a fit; None if it is not, or they are not sure."""
    start, end = answer.fit.span_s
    if end - start > SHORT_S or search.rivals(answer.steps, free):
        return None
    offset_s = answer.steps * STEP_S
    fixed = [camera for camera in range(len(tracks)) if camera not in free]
    offset_s[fixed] = answer.clocks.offset_s[fixed]
    agreed = agreed_clocks(tracks, offset_s, free)
    if agreed.share < LEAST_SHARE:
        return None
    return Clocks.plain(agreed.offset_s, agreed.error_s)


def estimate_near(
    tracks: Sequence[Track], own_s: Float[np.ndarray, "camera"], given: Sequence[int]
) -> Answer:
    """The clocks nearest to the cameras' own ones that let rays meet."""
    free = [camera for camera in range(len(tracks)) if camera not in given]
    fit = fit_clocks(tracks, own_s, free)
    return Answer(np.round(own_s / STEP_S).astype(int), _as_clocks(fit, tracks), fit, None)


def _with_drift_if_any(tracks, fit: ClockFit, free) -> ClockFit:
    start, end = fit.span_s
    if end - start < DRIFT_FROM_S:
        return fit
    drifting = fit_clocks(tracks, fit.offset_s, free, with_drift=True)
    sure = np.abs(drifting.drift_s) > DRIFT_ERRORS * drifting.drift_error_s
    if not (drifting.settled and sure.any()):
        return fit
    return replace(drifting, drift_s=np.where(sure, drifting.drift_s, 0.0))


def _as_clocks(fit: ClockFit, tracks: Sequence[Track]) -> Clocks:
    """Offset at the own clock's zero, and rate; what is not to be told from 0 is 0."""
    start, end = fit.span_s
    slope = 2 * fit.drift_s / max(end - start, STEP_S)
    offset = fit.offset_s + slope * (fit.offset_s - (start + end) / 2)
    frame_s = np.array([np.median(np.diff(track.time_s)) for track in tracks])
    small = np.abs(offset) <= ZERO_FRAMES * frame_s
    zero = small & (np.abs(offset) <= ZERO_ERRORS * fit.offset_error_s) & (slope == 0)
    return Clocks(np.where(zero, 0.0, offset), 1 + slope, fit.offset_error_s)


def movement_m(track: Track, height_m: float = 1.6) -> float:
    """How far the keypoints that move most go about in the image, m at the person, roughly.

    The range of each (5th to 95th percentile), against the height of the body in the image; of
    keypoints the 80th percentile, so that a waving hand alone does not count. 0 if there is nothing.
    """
    position, _ = track.sample(np.arange(track.time_s[0], track.time_s[-1], STEP_S))
    seen = np.isfinite(position).all(-1)
    often = seen.sum(0) > max(0.2 * seen.shape[0], 1)
    position = position[seen.any(1)][:, often]
    if not position.size:
        return 0.0
    body = np.nanmax(position[..., 1], 1) - np.nanmin(position[..., 1], 1)
    low, high = np.nanpercentile(position, [5, 95], axis=0)
    reach = np.linalg.norm(high - low, axis=-1)
    return float(height_m * np.percentile(reach, 80) / max(np.median(body), 1e-9))
