"""Courses: what kind of recipe, lessons and model card each network that can be trained has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from models.training.augmenter import AugmenterLessons, AugmenterRecipe
from models.training.augmenter_card import augmenter_card
from models.training.model_card import triangulation_card
from models.training.recipe import Recipe, Schedule
from models.training.run import Lessons, TriangulationLessons


class Course(NamedTuple):
    """Of one network."""

    recipe: type[Schedule]
    lessons: Callable[[Any, torch.device], Lessons]
    """Of the recipe and the device."""
    card: Callable[[Path, str], str]
    """Text of a model card, of a file of weights and the network's name."""


_TRIANGULATION = Course(Recipe, TriangulationLessons, triangulation_card)
COURSES = {
    "algebraic": _TRIANGULATION,
    "volumetric": _TRIANGULATION,
    "augmenter": Course(AugmenterRecipe, AugmenterLessons, augmenter_card),
}
