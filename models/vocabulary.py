"""The keypoint vocabularies of pose models, as data: names, sides, sigmas, and what derives from them."""

import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from jaxtyping import Int

from pipeline.errors import PipelineError


@dataclass(frozen=True)
class Vocabulary:
    """A pose model's keypoints, in its order, left and right of the person."""

    name: str
    description: str
    keypoints: tuple[str, ...]
    sigmas: tuple[float, ...]
    """Of object keypoint similarity: annotators' scatter as a share of the root of a person's area."""
    pairs: tuple[tuple[str, str], ...]
    """Keypoints that are one thing on two sides: the right one, the left one."""
    bones: tuple[tuple[str, str], ...]
    """To draw."""


@dataclass(frozen=True)
class Derivation:
    """How a keypoint comes from those that a pose model gives."""

    rule: str
    """`measured`, as it is; `middle` of two; `small toe`, by a fixed ratio."""
    of: tuple[str, ...]


@cache
def _table() -> dict:
    text = resources.files("models").joinpath("vocabularies.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def vocabularies() -> dict[str, Vocabulary]:
    """Return all vocabularies by name."""
    found = {}
    for name, entry in _table()["vocabularies"].items():
        keypoints = tuple(entry["keypoints"])
        drawn = ((start, end) for start, end in _table()["bones"] if {start, end} <= {*keypoints})
        named = tuple((right, left) for right, left in entry.get("pairs", []))
        pairs = (*side_pairs(keypoints), *named)
        sigmas = tuple(entry["sigmas"])
        found[name] = Vocabulary(name, entry["description"], keypoints, sigmas, pairs, tuple(drawn))
    return found


def vocabulary(name: str) -> Vocabulary:
    """Return a vocabulary by name. Raises PipelineError, with the names there are, if unknown."""
    known = vocabularies()
    if name not in known:
        raise PipelineError(
            f"there is no keypoint vocabulary '{name}'. There are: {', '.join(known)}"
        )
    return known[name]


def vocabulary_of_size(count: int) -> Vocabulary:
    """Return the vocabulary of so many keypoints.

    Raises PipelineError, with those there are, unless there is exactly one.
    """
    fitting = [each for each in vocabularies().values() if len(each.keypoints) == count]
    if len(fitting) != 1:
        known = ", ".join(f"{n} ({len(each.keypoints)})" for n, each in vocabularies().items())
        raise PipelineError(
            f"{len(fitting) or 'no'} keypoint vocabularies have {count} keypoints. Known: {known}. "
            'Use keypoints of one of these, and name it in session.toml if need be: keypoints = "halpe-26"'
        )
    return fitting[0]


def side_pairs(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Right and left names that differ in a leading R and L alone, in the order of the left ones."""
    lefts = (name for name in names if name.startswith("L") and f"R{name[1:]}" in names)
    return tuple((f"R{name[1:]}", name) for name in lefts)


def mirrored(names: Sequence[str]) -> tuple[int, ...]:
    """Index of each name's partner on the other side (as of `side_pairs`); of itself in the middle."""
    partner = dict(side_pairs(names))
    partner |= {left: right for right, left in partner.items()}
    place = {name: index for index, name in enumerate(names)}
    return tuple(place[partner.get(name, name)] for name in names)


def parts_of(chain: str) -> tuple[str, ...]:
    """Names, without the side, of the keypoints of a chain: `legs` or `arms`."""
    return tuple(_table()["chains"][chain])


def chains(names: Sequence[str]) -> dict[str, Int[np.ndarray, "pair 2"]]:
    """Indices of right and left keypoints that go together: of the legs and of the arms."""
    place = {name: index for index, name in enumerate(names)}
    pairs = side_pairs(names)
    return {
        chain: np.array(
            [[place[right], place[left]] for right, left in pairs if right[1:] in parts], int
        ).reshape(-1, 2)
        for chain, parts in _table()["chains"].items()
    }


def derivations(known: Collection[str], wanted: Sequence[str]) -> dict[str, Derivation]:
    """How each of some keypoints comes from those that are known; what cannot be had is left out."""
    rules = _table()["derivations"]
    found = {}
    for name in wanted:
        if name in known:
            found[name] = Derivation("measured", (name,))
        elif name in rules and {*rules[name]["of"]} <= {*known}:
            found[name] = Derivation(rules[name]["rule"], tuple(rules[name]["of"]))
    return found
