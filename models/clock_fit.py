"""Clock fit: cameras' clocks to a millisecond, from how far rays to the same keypoint miss each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from models.synchronization import STEP_S, Track

CHANGE_STEPS = 12
"""Misses are compared over so many steps: constant errors, of calibration and views, drop out."""
BLOCK_STEPS, BLOCKS = 30, 40
"""Errors a second apart are taken to be independent. Of longer recordings so many blocks are used."""
SCALES_M = (0.15, 0.06)
"""Changes that are usual, in a first fit and in the last; much larger ones are mistakes."""
PROBE_S, LARGEST_STEP_S, ENOUGH_S = 0.01, 0.02, 4e-4
"""How slopes are probed, how far one step goes, and when the fit is at rest."""
SYSTEMATIC_S = 0.001
"""What no scatter shows: errors of views and calibration that go with the pose."""
ITERATIONS, SAME_SLOPE = 12, 4
"""Steps until it is given up, and steps with one slope."""
PARALLEL = 1e-3
"""Points whose rays are closer to parallel than this do not count."""


@dataclass(frozen=True)
class ClockFit:
    """Clocks that let rays meet best: session time = own time + offset + drift * x.

    x goes from -1 at the start of the time that two cameras share to 1 at its end.
    """

    offset_s: Float[np.ndarray, "camera"]
    drift_s: Float[np.ndarray, "camera"]
    offset_error_s: Float[np.ndarray, "camera"]
    """Standard error, from how much seconds of the recording differ; 0 for given clocks."""
    drift_error_s: Float[np.ndarray, "camera"]
    miss_m: float
    """Median of a ray's distance from the point, constant errors included."""
    settled: bool
    """The fit came to rest, where the cost is lowest in every direction."""
    span_s: tuple[float, float]
    """Session times at which x is -1 and 1."""


def fit_clocks(
    tracks: Sequence[Track],
    offset_s: Float[np.ndarray, "camera"],
    free: Sequence[int],
    with_drift: bool = False,
) -> ClockFit:
    """Move the free cameras' clocks from where they nearly fit to where rays meet best.

    All cameras are triangulated together, so that movements along the epipolar lines of a pair count
    too where there are three. Robust (Geman and McClure's weights); errors by the sandwich formula over
    blocks of a second (Liang and Zeger, Biometrika 73(1), 1986).
    """
    problem = _Problem.of(tracks, offset_s, free, with_drift)
    parameters, rests = np.zeros(problem.size), True
    for scale_m in SCALES_M:
        parameters, rests = problem.solve(parameters, scale_m)
    found, slope = (each(parameters, SCALES_M[-1]) for each in (problem.measure, problem.slope))
    moved, error = np.zeros((2, len(tracks), 2))
    moved[free, : problem.terms] = parameters.reshape(len(free), -1)
    error[free, : problem.terms] = _standard_errors(found.gradient, slope).reshape(len(free), -1)
    lowest = bool(np.linalg.eigvalsh(slope).min(initial=np.inf) > 0)
    offset = np.asarray(offset_s) + moved[:, 0]
    return ClockFit(offset, moved[:, 1], *error.T, found.miss_m, rests and lowest, problem.span_s)


def _standard_errors(gradient, slope) -> Float[np.ndarray, "parameter"]:
    """Standard errors, the larger of those from the scatter over blocks and over keypoints.

    Blocks count only if there are enough of them: in short recordings keypoints alone do.
    """
    inverse, size, errors = np.linalg.pinv(slope), len(slope), []
    for parts, enough in ((gradient.sum(1), 2 * size + 2), (gradient.sum(0), 0)):
        parts = parts[parts.any(1)]
        if len(parts) >= enough:
            freedom = len(parts) / max(len(parts) - size, 1)
            covariance = freedom * inverse @ (parts.T @ parts) @ inverse.T
            errors.append(np.sqrt(np.diag(covariance)))
    return np.hypot(np.max(errors, axis=0), SYSTEMATIC_S) if errors else np.full(size, np.inf)


@dataclass(frozen=True)
class _Measured:
    gradient: Float[np.ndarray, "block keypoint parameter"]
    miss_m: float


@dataclass(frozen=True)
class _Problem:
    tracks: Sequence[Track]
    start_s: Float[np.ndarray, "camera"]
    free: list[int]
    at_s: Float[np.ndarray, "block sample"]
    """Session times; of a block, `CHANGE_STEPS` more than are its own."""
    span_s: tuple[float, float]
    terms: int
    """Per camera: the offset, or offset and drift."""

    @classmethod
    def of(cls, tracks, offset_s, free, with_drift) -> "_Problem":
        """Take blocks out of the time that at least two cameras share, if their clocks are so."""
        start = np.sort([t.time_s[0] + o for t, o in zip(tracks, offset_s, strict=True)])[1]
        end = np.sort([t.time_s[-1] + o for t, o in zip(tracks, offset_s, strict=True)])[-2]
        length = BLOCK_STEPS + CHANGE_STEPS
        count = max(int((end - start) / STEP_S - CHANGE_STEPS) // BLOCK_STEPS, 1)
        chosen = np.linspace(0, count - 1, min(count, BLOCKS)).round()
        at = start + (chosen[:, None] * BLOCK_STEPS + np.arange(length)) * STEP_S
        span = (float(start), float(end))
        return cls(tracks, np.array(offset_s, float), list(free), at, span, 1 + with_drift)

    @property
    def size(self) -> int:
        return len(self.free) * self.terms

    @property
    def terms_at(self) -> Float[np.ndarray, "block sample term"]:
        """What each parameter adds to a clock."""
        start, end = self.span_s
        x = (2 * self.at_s - start - end) / max(end - start, STEP_S)
        return np.stack([np.ones_like(x), x], -1)[..., : self.terms]

    def at_blocks(self, values: np.ndarray) -> np.ndarray:
        """Values by sample as values by block and sample."""
        return values.reshape(*self.at_s.shape, *values.shape[1:])

    def measure(self, parameters: Float[np.ndarray, "parameter"], scale_m: float) -> _Measured:
        """Slope of the robust cost with each parameter, by block."""
        shift = np.repeat(self.start_s[:, None], self.at_s.size, 1)
        moved = self.terms_at.reshape(-1, self.terms) @ parameters.reshape(len(self.free), -1).T
        shift[self.free] += moved.T
        miss, slope, seen = misses(self.tracks, self.at_s.ravel() - shift)

        def change(values):
            blocks = self.at_blocks(values)
            return blocks[:, CHANGE_STEPS:] - blocks[:, :-CHANGE_STEPS]

        changed, sloped = change(miss), change(slope[..., self.free])
        same = ~change(seen.astype(int)).any(-1)  # what other cameras see is another point
        known = same & np.isfinite(changed).all(-1) & np.isfinite(sloped).all((-2, -1))
        changed, sloped = (np.where(known.reshape(*known.shape, *[1] * (each.ndim - 3)), each, 0.0)
                           for each in (changed, sloped))  # fmt: skip
        seen_by = self.at_blocks(seen.sum(-1))[:, CHANGE_STEPS:]
        squares = (changed**2).sum(-1) / np.maximum(2 * seen_by - 3, 1)
        weight = known / (1 + squares / scale_m**2) ** 2
        by_camera = np.einsum("btk,btkr,btkrc->btkc", weight, changed, sloped, optimize=True)
        terms = self.terms_at[:, :-CHANGE_STEPS]
        gradient = np.einsum("btkc,btp->bkcp", by_camera, terms)
        gradient = gradient.reshape(*gradient.shape[:2], -1)
        distance = np.linalg.norm(miss, axis=-1) / np.sqrt(np.maximum(2 * seen.sum(-1) - 3, 1))
        some = np.isfinite(distance)
        return _Measured(gradient, float(np.median(distance[some])) if some.any() else np.inf)

    def slope(self, parameters, scale_m) -> Float[np.ndarray, "parameter parameter"]:
        """How the whole gradient changes with the parameters, by central differences.

        Not from products of slopes: those count the noise of the speeds as if it were movement.
        """
        probes = PROBE_S * np.eye(self.size)
        columns = [
            self.measure(parameters + probe, scale_m).gradient.sum((0, 1))
            - self.measure(parameters - probe, scale_m).gradient.sum((0, 1))
            for probe in probes
        ]
        matrix = np.stack(columns, -1) / (2 * PROBE_S)
        return (matrix + matrix.T) / 2

    def solve(self, parameters, scale_m) -> tuple[Float[np.ndarray, "parameter"], bool]:
        """Newton's method, with a new slope now and then; False if it does not come to rest."""
        for iteration in range(ITERATIONS):
            if iteration % SAME_SLOPE == 0:
                sizes, directions = np.linalg.eigh(self.slope(parameters, scale_m))
                inverse = (directions / np.maximum(np.abs(sizes), 1e-9)) @ directions.T  # downhill
            step = -inverse @ self.measure(parameters, scale_m).gradient.sum((0, 1))
            parameters = parameters + np.clip(step, -LARGEST_STEP_S, LARGEST_STEP_S)
            if np.abs(step).max() < ENOUGH_S:
                return parameters, True
        return parameters, False


def misses(
    tracks: Sequence[Track], own_s: Float[np.ndarray, "camera time"]
) -> tuple[
    Float[np.ndarray, "time keypoint row"],
    Float[np.ndarray, "time keypoint row camera"],
    Bool[np.ndarray, "time keypoint camera"],
]:
    """Triangulate what cameras saw at these times of their own clocks, by linear least squares.

    Returns how far each camera's ray misses the point that all who see it give (two rows a camera, m,
    the equations of `geometric.triangulate`), the change of that per second that is added to a camera's
    clock, and who sees it. NaN where no point is determined.
    """
    sampled = [track.sample(at) for track, at in zip(tracks, own_s, strict=True)]
    image, speed = (np.stack(each, 2) for each in zip(*sampled, strict=True))
    seen = np.isfinite(image).all(-1)
    poses = np.stack([track.camera_from_world for track in tracks])
    rows = np.where(seen[..., None], image, 0.0)[..., None] * poses[:, None, 2] - poses[:, :2]
    rows = np.where(seen[..., None, None], rows, 0.0)
    across, constant = rows[..., :3], rows[..., 3]
    to_point = _pseudo_inverse(across, seen)
    point = -np.einsum("tkicr,tkcr->tki", to_point, constant, optimize=True)
    miss = np.einsum("tkcri,tki->tkcr", across, point, optimize=True) + constant
    depth = np.einsum("ci,tki->tkc", poses[:, 2, :3], point) + poses[:, 2, 3]
    moved = np.where(
        seen[..., None], -speed * depth[..., None], 0.0
    )  # a later clock is an earlier frame
    point_moved = -np.einsum("tkicr,tkcr->tkic", to_point, moved, optimize=True)
    slope = np.einsum("tkcri,tkid->tkcrd", across, point_moved, optimize=True)
    each = np.arange(len(tracks))
    slope[:, :, each, :, each] += np.moveaxis(moved, 2, 0)
    return miss.reshape(*seen.shape[:2], -1), slope.reshape(*seen.shape[:2], -1, len(tracks)), seen


def _pseudo_inverse(across, seen) -> Float[np.ndarray, "time keypoint 3 camera 2"]:
    """From the rows' right-hand sides to the point; NaN where rays are too few or too parallel."""
    normal = np.einsum("tkcri,tkcrj->tkij", across, across, optimize=True)
    size = np.trace(normal, axis1=-2, axis2=-1) / 3
    solvable = (seen.sum(-1) >= 2) & (np.linalg.det(normal) > PARALLEL * size**3)
    inverse = np.full(normal.shape, np.nan)
    inverse[solvable] = np.linalg.inv(normal[solvable])
    return np.einsum("tkij,tkcrj->tkicr", inverse, across, optimize=True)
