"""Augmented markers: where on the body an augmenter puts its markers, from `augmented_markers.toml`."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from jaxtyping import Float

from pipeline.errors import PipelineError

FILE = "augmented_markers.toml"


@dataclass(frozen=True)
class AugmentedMarker:
    """Where an augmenter usually puts one marker, and how far people and moments differ from that."""

    body: str
    """Of the model, that its marker set attaches the marker to."""
    place_m: Float[np.ndarray, "3"]
    """On the unscaled model's body, in its frame; times the scale factors on a person's."""
    person_spread_m: float
    """Standard deviation between people along one axis, on the unscaled model's body."""
    moving_m: float
    """Standard deviation over time from the person's own place, along one axis."""


@cache
def augmented_markers(network: str) -> dict[str, AugmentedMarker]:
    """Markers by name, of an augmenter of `stages.augment`: `published` or `retrained`.

    They are on the bodies of the model `pose2sim`. Learned from simulated people: the file says how.
    Raises PipelineError for an augmenter that it does not know.
    """
    text = resources.files("models.fitting").joinpath(FILE).read_text("utf-8")
    tables = tomllib.loads(text)
    if network not in tables:
        raise PipelineError(
            f"{FILE} does not say where the augmenter '{network}' puts its markers. "
            f"It knows: {', '.join(tables)}."
        )
    return {
        name: AugmentedMarker(
            entry["body"], np.array(entry["place_m"]), entry["person_spread_m"], entry["moving_m"]
        )
        for name, entry in tables[network].items()
    }
