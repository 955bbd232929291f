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
def vocabulary(name: str) -> Vocabulary:
    """Return a vocabulary by name. Raises PipelineError, with the names there are, if unknown."""
    text = resources.files("models").joinpath("vocabularies.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    if name not in table:
        raise PipelineError(
            f"there is no keypoint vocabulary '{name}'. There are: {', '.join(table)}"
        )
    entry = table[name]
    bones = tuple((start, end) for start, end in entry["bones"])
    return Vocabulary(name, entry["description"], tuple(entry["keypoints"]), bones)
