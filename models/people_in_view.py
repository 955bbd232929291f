"""People in view: each person's poses in all views, in what order, and where they may be mistaken."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Int

from models.person_matching import LINKED_S, SAMPLE_S, Evidence, evidence_of, joined
from models.person_pieces import LONGEST_S, Piece, View, pieces_of, without_doubles

LEAST_SEEN = 0.1
"""A person is who two views saw for more than this share of the time that they saw anyone: others are
mistakes of the detector, or hardly in view."""
UNSURE_S = 0.1
"""Two persons may be mistaken for each other from some time on, if what speaks for who is who is worth no
more than rays of two views that meet for so long."""


@dataclass(frozen=True)
class Person:
    """Where one person is in each view."""

    pose: tuple[Int[np.ndarray, "frame"], ...]
    """By view: which of each frame's poses they are; -1 where they were not seen."""
    size: float
    """Of the box around them, in focal lengths, times seconds, of all views: how large and how long."""
    off_centre: float
    """Of their box's middle from the images' middles, in focal lengths, on average."""
    steps: Int[np.ndarray, "step"]
    """When two views at least saw them, in whole samples of `SAMPLE_S`, ascending."""

    @classmethod
    def of(cls, views: Sequence[View], pose: Sequence[Int[np.ndarray, "frame"]]) -> "Person":
        """Measure a person."""
        size, off_centre, seconds, steps = 0.0, 0.0, 0.0, []
        for view, chosen in zip(views, pose, strict=True):
            frames = np.flatnonzero(chosen >= 0)
            interval_s = float(np.median(np.diff(view.time_s)))
            middle, side = (each[frames, chosen[frames]] for each in view.extent)
            size += side.sum() * interval_s
            off_centre += np.linalg.norm(middle, axis=-1).sum() * interval_s
            seconds += len(frames) * interval_s
            first = np.floor(view.time_s[frames] / SAMPLE_S).astype(int)
            stands_for = max(1, int(np.ceil(interval_s / SAMPLE_S - 0.05)))
            steps.append(np.unique(first[:, None] + np.arange(stands_for)))
        step, views_there = np.unique(np.concatenate(steps), return_counts=True)
        return cls(tuple(pose), size, off_centre / max(seconds, 1e-9), step[views_there > 1])


@dataclass(frozen=True)
class Match:
    """Who is in view."""

    people: list[Person]
    """The largest and longest in view first."""
    agreement_s: float
    """How well their poses fit together: as rays of two views that meet for so long."""
    returned_s: list[tuple[int, float]]
    """Who (index) was out of view, and is taken to be the one who is seen from then on, s."""
    unsure_s: list[tuple[int, int, float]]
    """Which two (indices) may be mistaken for each other from when on, s."""


def match(views: Sequence[View]) -> Match:
    """Find who is which pose of which view.

    Poses that no other view confirms are nobody's. Who comes into view after somebody has left it is taken
    to be the same person, unless it could be two of them: only a face would tell.
    """
    views = [without_doubles(view) for view in views]
    pieces = pieces_of(views)
    evidence = evidence_of(views, pieces)
    group = joined(evidence, len(pieces))
    found = {int(each): _person(views, pieces, group == each) for each in np.unique(group)}
    longest = max((len(each.steps) for each in found.values()), default=0)
    found = {
        number: each for number, each in found.items() if len(each.steps) > LEAST_SEEN * longest
    }
    returned = []
    while pair := _next_in_view(found):
        one, other = pair
        from_s = float(found.pop(other).steps[0] * SAMPLE_S)
        returned = [(one if each == other else each, at_s) for each, at_s in returned]
        returned.append((one, from_s))
        group[group == other] = one
        found[one] = _person(views, pieces, group == one)
    order = sorted(found, key=lambda number: -found[number].size)
    inside = (group[evidence.one] == group[evidence.other]) & np.isfinite(evidence.seconds)
    return Match(
        [found[number] for number in order],
        float(evidence.seconds[inside].sum()),
        [(order.index(number), time_s) for number, time_s in returned],
        _unsure(views, pieces, evidence, group, order),
    )


def _person(views, pieces: Sequence[Piece], mine: Bool[np.ndarray, "piece"]) -> Person:
    pose = [np.full(len(view.time_s), -1) for view in views]
    for index in np.flatnonzero(mine):
        piece = pieces[index]
        pose[piece.view][piece.frames] = piece.poses
    return Person.of(views, pose)


def _next_in_view(people: dict[int, Person]) -> tuple[int, int] | None:
    """Who left view, and who came next, if each is the only one: the pair with the shortest time between."""
    span = {number: (each.steps[0], each.steps[-1]) for number, each in people.items()}
    pairs = [(a, b) for a in span for b in span if span[a][1] < span[b][0]]

    def meet(one: int, other: int) -> bool:
        return one != other and span[one][0] <= span[other][1] and span[other][0] <= span[one][1]

    sole = [
        (a, b)
        for a, b in pairs
        if not any((c == a and meet(d, b)) or (d == b and meet(c, a)) for c, d in pairs)
    ]
    return min(sole, key=lambda pair: span[pair[1]][0] - span[pair[0]][1], default=None)


def _unsure(
    views, pieces: Sequence[Piece], evidence: Evidence, group, order: Sequence[int]
) -> list[tuple[int, int, float]]:
    """When two persons, both in view before and after, might as well have been exchanged.

    At each time the evidence between what is before and what is after it, for them as they are against
    them exchanged.
    """
    if not pieces:
        return []
    middle = np.array([np.mean(views[p.view].time_s[p.frames[[0, -1]]]) for p in pieces])
    grid = np.arange(middle.min(), middle.max(), 3 * SAMPLE_S)
    says = np.maximum(evidence.seconds, -LONGEST_S)  # both in one view: surely two
    ends = np.sort(np.stack([middle[evidence.one], middle[evidence.other]]), 0)
    start, stop = np.searchsorted(grid, ends, side="right")
    found = []
    for one, other in combinations(range(len(order)), 2):
        both = [group[evidence.one], group[evidence.other]]
        labels = [np.select([b == order[one], b == order[other]], [1, -1], 0) for b in both]
        margin = np.zeros(len(grid) + 1)
        signed = says * labels[0] * labels[1]
        np.add.at(margin, start, signed)
        np.add.at(margin, stop, -signed)
        there = np.ones(len(grid), bool)
        for number in (order[one], order[other]):
            mine = np.sort(middle[group == number])
            near = [np.searchsorted(mine, grid + shift) for shift in (-LINKED_S, 0, LINKED_S)]
            there &= (near[0] < near[1]) & (near[1] < near[2])
        low = there & (np.cumsum(margin)[:-1] < UNSURE_S)
        edges = np.flatnonzero(np.diff(np.r_[False, low].astype(int)) == 1)
        found += [(one, other, float(grid[edge])) for edge in edges]
    return found
