"""Descent: go down a cost by damped steps, as Levenberg and Marquardt do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

ENOUGH = 1e-5
"""A step that lessens the cost by no more than such a share is the last."""
MOST_DAMPING = 1e6


class Look(Protocol):
    """What is seen at a place."""

    cost: float


At = TypeVar("At")
Seen = TypeVar("Seen", bound=Look)


@dataclass(frozen=True)
class Pace:
    """How many steps are made, and how far they are trusted."""

    most_steps: int
    first_damping: float
    least_damping: float


def descend(
    at: At,
    look: Callable[[At], Seen],
    step: Callable[[At, Seen, float], At | None],
    pace: Pace,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> At:
    """Return where the cost no longer falls, or where the steps ended.

    `step` gives the place that a step with some damping leads to, or None if there is none so.
    """
    here, damping = look(at), pace.first_damping
    for done in range(pace.most_steps):
        progress(done, pace.most_steps)
        while damping <= MOST_DAMPING:
            tried = step(at, here, damping)
            there = None if tried is None else look(tried)
            if there is not None and there.cost <= here.cost:
                break
            damping *= 10
        else:
            break
        gain, damping = here.cost - there.cost, max(damping / 10, pace.least_damping)
        at, here = tried, there
        if gain <= ENOUGH * here.cost:
            break
    return at
