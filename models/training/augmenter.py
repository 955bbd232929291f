"""Training of the marker augmenter: its recipe, what it learns from, and how it is judged."""

import math
from typing import Generic

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.augmenter import LOWER_FEATURES, LOWER_RESPONSES, MARKERS, REFERENCE, UPPER_FEATURES
from models.augmenter import VIDEO_KEYPOINTS as KEYPOINTS
from models.segment_augmenter import RetrainedAugmenter, segment_of
from models.simulation.sequences import Sequence, Sequences, draw_sequence, marked_skeleton
from models.training.recipe import Architecture, Schedule
from models.training.run import MODEL
from models.training.steps import Training, learn, not_a_number, random_numbers

TRAINED_ON, SCALED_ON, VALIDATED_ON = range(100, 103)
"""What random numbers are for: no other purpose, of this training or another, shares any."""
SCALED_WINDOWS = 256
NOISES = (0.0, 0.5, 1.0)
"""Of the validation's entries."""
SHAPE_SHARE = 2.0
"""How much errors within a segment count, which turn it, besides those of markers."""
_BODY = [KEYPOINTS.index(name) for name in LOWER_FEATURES]
_ARMS = [KEYPOINTS.index(name) for name in UPPER_FEATURES]
_REFERENCE = KEYPOINTS.index(REFERENCE)


class AugmenterRecipe(Schedule[Architecture], Generic[Architecture]):
    """Of the marker augmenter."""

    population: Sequences = Sequences()


def inputs_of(examples: Sequence) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """What the networks of body and arms are called with."""
    reference = examples.keypoints[:, :, _REFERENCE]
    return [
        (examples.keypoints[:, :, part], reference, examples.height_m, examples.mass_kg)
        for part in (_BODY, _ARMS)
    ]


def estimate(network: RetrainedAugmenter, examples: Sequence) -> Float[Tensor, "window frame 43 3"]:
    """Markers, m, of windows."""
    body, arms = inputs_of(examples)
    return torch.cat([network.body(*body), network.arms(*arms)], 2)


def take_scale(network: RetrainedAugmenter, examples: Sequence) -> None:
    """Normalise both networks' features and markers by those of some examples."""
    body, arms = inputs_of(examples)
    count = len(LOWER_RESPONSES)
    network.body.learn_scale(*body, examples.markers[:, :, :count])
    network.arms.learn_scale(*arms, examples.markers[:, :, count:])


def losses(
    markers: Float[Tensor, "window frame 43 3"], true: Float[Tensor, "window frame 43 3"]
) -> dict[str, Tensor]:
    """The loss, cm: mean distance of markers, and of each from where its segment's have gone."""
    error = 100 * (markers - true)
    within = error - _segment_means(error.device) @ error
    distance, shape = (torch.sqrt((each**2).sum(-1) + 1e-6).mean() for each in (error, within))
    return {
        "loss": distance + SHAPE_SHARE * shape,
        "mpjpe_mm": 10 * distance,
        "shape_mm": 10 * shape,
    }


def _segment_means(device) -> Float[Tensor, "43 43"]:
    """A matrix that puts the mean over its segment in the place of each marker."""
    segments = [segment_of(name) for name in MARKERS]
    same = torch.tensor([[one == other for other in segments] for one in segments], device=device)
    return same / same.sum(1, keepdim=True)


class AugmenterLessons:
    """Simulated sequences: those of a step depend on the recipe's seed and its number alone."""

    def __init__(self, recipe: AugmenterRecipe, device: torch.device):
        self.recipe, self.device = recipe, device
        skeleton = marked_skeleton(MODEL)
        self.suite = {f"noise {noise:g}": self._kept(skeleton, noise) for noise in NOISES}
        self.skeleton = skeleton.to(device)

    def _kept(self, skeleton, noise: float) -> Sequence:
        """Examples of people, motions and performances that are not trained on; always the same."""
        recipe = self.recipe
        population = recipe.population.model_copy(
            update={"least_noise": noise, "most_noise": noise, "clean_share": 0.0}
        )
        generator = random_numbers("cpu", VALIDATED_ON, 0, NOISES.index(noise))
        windows, frames = recipe.validation_windows, recipe.frames
        return draw_sequence(population, skeleton, windows, frames, generator, kept=True).to(
            self.device
        )

    def _drawn(self, purpose: int, step: int, windows: int) -> Sequence:
        generator = random_numbers(self.device, purpose, self.recipe.seed, step)
        recipe = self.recipe
        return draw_sequence(recipe.population, self.skeleton, windows, recipe.frames, generator)

    def step(self, training: Training, step: int) -> dict[str, float]:
        """Draw examples and learn from them; return the loss and errors, mm."""
        if step == 0:
            take_scale(training.network, self._drawn(SCALED_ON, 0, SCALED_WINDOWS))
        examples = self._drawn(TRAINED_ON, step, self.recipe.windows)
        metrics = losses(estimate(training.network, examples), examples.markers)
        return learn(training, self.recipe, step, metrics)

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Mean distance of the markers from the truth, mm, by size of errors."""
        scores = {
            name: float(losses(estimate(network, examples), examples.markers)["mpjpe_mm"])
            for name, examples in self.suite.items()
        }
        if not all(map(math.isfinite, scores.values())):
            raise not_a_number(f"validation gave {scores}")
        return scores
