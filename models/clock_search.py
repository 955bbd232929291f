"""Clock search: which offsets of several cameras' clocks agree best, and which do nearly as well."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

from models.synchronization import STEP_S, Evidence, Rays, Track, compare

APART_STEPS = 4
"""Offsets closer to the best one than this are the same answer."""
RIVAL, LEAST_OVERLAP = 0.8, 0.5
"""An offset that keeps so much of the best one's agreement is its rival. Where it has less motion to
explain, since the cameras overlap less then, as much less is asked of it; but half at most."""
LARGEST_GROUP = 3
"""Groups of up to so many cameras are shifted together against the rest."""


@dataclass(frozen=True)
class Rival:
    """Another answer that explains nearly as much: a group of cameras shifted against the others."""

    group: tuple[int, ...]
    shift_s: float

    def from_there(self, offset_s: Float[np.ndarray, "camera"]) -> Float[np.ndarray, "camera"]:
        """These offsets, with the group shifted."""
        return offset_s + self.shift_s * np.isin(np.arange(len(offset_s)), self.group)


@dataclass(frozen=True)
class Search:
    """What all pairs of cameras say about all offsets. Offsets are in whole steps here."""

    pairs: Mapping[tuple[int, int], Evidence]
    cameras: int
    steps: int
    """Largest offset between two cameras."""

    @classmethod
    def of(cls, tracks: Sequence[Track], max_offset_s: float) -> "Search":
        """Compare each camera with each."""
        rays, steps = [Rays.of(track) for track in tracks], int(max_offset_s / STEP_S)
        pairs = {
            (one, other): compare(rays[one], rays[other], steps)
            for one, other in combinations(range(len(rays)), 2)
        }
        return cls(pairs, len(rays), steps)

    @classmethod
    def of_everyone(cls, people: Sequence[Sequence[Track]], max_offset_s: float) -> "Search":
        """Compare all persons of each camera (tracks by camera) with all of each other one.

        Nobody needs to know who is who: the movements of two persons agree at no offset in particular.
        """
        rays = [[Rays.of(track) for track in each] for each in people]
        steps, pairs = int(max_offset_s / STEP_S), {}
        for one, other in combinations(range(len(rays)), 2):
            each = [compare(a, b, steps) for a in rays[one] for b in rays[other]]
            agreement, motion = (
                np.sum([np.zeros(2 * steps + 1), *(getattr(pair, what) for pair in each)], 0)
                for what in ("agreement", "motion")
            )
            pairs[one, other] = Evidence(agreement, motion)
        return cls(pairs, len(rays), steps)

    def between(
        self, one: int, other: int, lag: Int[np.ndarray, "any"]
    ) -> Float[np.ndarray, "2 any"]:
        """Agreement and motion with the other camera's offset minus the one's at these lags."""
        evidence, lag = (
            (self.pairs[one, other], lag) if one < other else (self.pairs[other, one], -lag)
        )
        place = np.clip(lag, -self.steps, self.steps) + self.steps
        both = np.stack([evidence.agreement[place], evidence.motion[place]])
        return np.where(np.abs(lag) <= self.steps, both, 0.0)

    def shifted(
        self, group: Sequence[int], rest: Sequence[int], offset, shift: Int[np.ndarray, "shift"]
    ) -> Float[np.ndarray, "2 shift"]:
        """Agreement and motion between two groups of cameras, the first one's offsets shifted."""
        return sum(
            self.between(other, camera, offset[camera] - offset[other] + shift)
            for camera in group
            for other in rest
        )

    def best(self, fixed: Mapping[int, int]) -> Int[np.ndarray, "camera"]:
        """Offsets that agree best, some of them given.

        Cameras are added one by one, the one that agrees most with those before it first; then each is
        moved again to where it agrees most with all the others.
        """
        offset, placed = np.zeros(self.cameras, int), list(fixed)
        offset[placed] = list(fixed.values())
        anywhere = np.arange(-2 * self.steps, 2 * self.steps + 1)
        free = [camera for camera in range(self.cameras) if camera not in fixed]
        while len(placed) < self.cameras:
            tried = {c: self._settled(c, placed, offset, anywhere) for c in free if c not in placed}
            camera = max(tried, key=lambda c: tried[c][0])
            offset[camera] = tried[camera][1]
            placed.append(camera)
        for _ in range(2):
            for camera in free:
                others = [c for c in placed if c != camera]
                offset[camera] = self._settled(camera, others, offset, anywhere)[1]
        return offset

    def _settled(self, camera, others, offset, anywhere):
        """The largest agreement of a camera with others, and at which offset it is."""
        curve = self.shifted([camera], others, offset, anywhere - offset[camera])[0]
        return curve.max(), anywhere[curve.argmax()]

    def agreement(self, offset: Int[np.ndarray, "camera"]) -> float:
        """Of all pairs together."""
        return float(sum(self.between(a, b, offset[b] - offset[a])[0] for a, b in self.pairs))

    def rivals(self, offset: Int[np.ndarray, "camera"], free: Sequence[int]) -> list[Rival]:
        """For each group of cameras that are not given, its best other offset, if it is a rival.

        Of the offsets at which the agreement is larger than at both neighbours. The strongest first.
        """
        shift, middle = np.arange(-self.steps, self.steps + 1), self.steps
        found = []
        for size in range(1, min(len(free), LARGEST_GROUP) + 1):
            for group in combinations(free, size):
                rest = [camera for camera in range(self.cameras) if camera not in group]
                agreement, motion = self.shifted(group, rest, offset, shift)
                inner = agreement[1:-1]
                peak = (inner >= agreement[:-2]) & (inner > agreement[2:])
                peak = np.flatnonzero(peak & (np.abs(shift[1:-1]) >= APART_STEPS)) + 1
                overlap = np.clip(motion[peak] / motion[middle], LEAST_OVERLAP, 1)
                ratio = agreement[peak] / overlap / max(agreement[middle], 1e-9)
                if len(peak) and ratio.max() > RIVAL:
                    best = Rival(group, float(shift[peak[ratio.argmax()]] * STEP_S))
                    found.append((ratio.max(), best))
        return [rival for _, rival in sorted(found, key=lambda each: -each[0])]

    def curves(self, offset: Int[np.ndarray, "camera"]) -> Float[np.ndarray, "camera lag"]:
        """Agreement of each camera with all the others, as a share of their motion, by its offset.

        1 would be perfect rays; offsets are those of `lags_s`.
        """
        lags, curves = np.arange(-self.steps, self.steps + 1), []
        for camera in range(self.cameras):
            rest = [other for other in range(self.cameras) if other != camera]
            both = self.shifted([camera], rest, offset, lags - offset[camera])
            curves.append(both[0] / max(both[1].max(), 1e-9))
        return np.stack(curves)

    def in_steps(self, offset_s: Float[np.ndarray, "camera"]) -> Int[np.ndarray, "camera"]:
        """Offsets, s, as whole steps."""
        return np.round(np.asarray(offset_s) / STEP_S).astype(int)

    @property
    def lags_s(self) -> Float[np.ndarray, "lag"]:
        """Offsets of `curves`, s."""
        return np.arange(-self.steps, self.steps + 1) * STEP_S
