"""The keypoint vocabularies of pose models, as data."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from pipeline.errors import PipelineError


@dataclass(frozen=True)
class Vocabulary:
    """Names of a pose model's keypoints, in its order, and the bones to draw between them."""

    name: str
    description: str
    keypoints: tuple[str, ...]
    bones: tuple[tuple[str, str], ...]


@cache
def vocabularies() -> dict[str, Vocabulary]:
    """Return all vocabularies by name."""
    text = resources.files("models").joinpath("vocabularies.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    bones = table.pop("bones")
    found = {}
    for name, entry in table.items():
        keypoints = tuple(entry["keypoints"])
        drawn = tuple((start, end) for start, end in bones if {start, end} <= set(keypoints))
        found[name] = Vocabulary(name, entry["description"], keypoints, drawn)
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
