"""The model card of the retrained marker augmenter."""

from pathlib import Path

from models.training.augmenter import NOISES
from models.training.model_card import rendered
from models.weights import read_facts


def augmenter_card(path: Path, method: str) -> str:
    """Text of the card, of a file of weights."""
    facts = read_facts(path)
    recipe, scores_mm = facts["recipe"], facts["record"]["best"]["scores_mm"]
    return rendered(
        "augmenter_card.md.j2",
        path,
        method,
        by_noise={noise: scores_mm[f"noise {noise:g}"] for noise in NOISES},
        frames_of_entry=recipe["validation_windows"] * recipe["frames"],
    )
