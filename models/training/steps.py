"""Training: one step after the other, on examples that are drawn for it.

Whatever is drawn depends on the recipe's seed and the number of the step alone, so that a training
that was stopped goes on as if it had not been.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from models.networks import NETWORKS
from models.simulation.population import draw
from models.skeleton import Skeleton
from models.training.recipe import Recipe, Schedule
from pipeline.errors import PipelineError

TRAINED_ON, VIEWS, VALIDATED_ON = range(3)
"""What random numbers are for: no two purposes share any."""


@dataclass(frozen=True)
class Training:
    """What a step changes."""

    network: nn.Module
    average: AveragedModel
    """Of the weights after all steps, most of the latest."""
    optimiser: torch.optim.AdamW

    @property
    def device(self) -> torch.device:
        """Where all of it is."""
        return next(self.network.parameters()).device


def random_numbers(
    device: torch.device | str, purpose: int, seed: int, number: int
) -> torch.Generator:
    """Return a generator that no other purpose, seed or number has."""
    mixed = np.random.SeedSequence((purpose, seed, number)).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(mixed))


def start_training(recipe: Schedule, device: torch.device | str) -> Training:
    """Make a network with random weights, the same on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        network = NETWORKS[recipe.method][0](recipe.architecture)
    network = network.to(device).train()
    network.mixed_precision = recipe.mixed_precision and torch.device(device).type == "cuda"
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=recipe.weight_decay)

    def averaged(average: Tensor, latest: Tensor, count: Tensor) -> Tensor:
        """Count on the old the more, the more of it there is: the first weights are soon forgotten."""
        share = ((1 + count) / (10 + count)).clamp(max=recipe.averaging)
        return torch.lerp(latest, average, share.to(average.dtype))

    return Training(network, AveragedModel(network, avg_fn=averaged), optimiser)


def learning_rate(recipe: Schedule, step: int) -> float:
    """Linear warm-up times a cosine (Loshchilov and Hutter, SGDR, ICLR 2017) to 0 at the end."""
    warm = min(1.0, (step + 1) / max(1, recipe.warm_up_steps))
    return recipe.learning_rate * warm * (1 + math.cos(math.pi * step / recipe.steps)) / 2


def views_of_step(recipe: Recipe, step: int) -> int:
    """Return how many views the examples of a step have."""
    counts, shares = np.transpose(sorted(recipe.views.items()))
    random = np.random.default_rng([VIEWS, recipe.seed, step])
    return int(random.choice(counts, p=shares / shares.sum()))


def train_step(
    training: Training, recipe: Recipe, skeleton: Skeleton, step: int
) -> dict[str, float]:
    """Draw examples and learn from them; return the loss and the network's other metrics.

    Raises PipelineError, and changes nothing, if the loss or its gradient is not a number.
    """
    device = training.device
    generator = random_numbers(device, TRAINED_ON, recipe.seed, step)
    examples = draw(
        recipe.population,
        skeleton,
        recipe.windows,
        recipe.frames,
        views_of_step(recipe, step),
        generator,
    )
    return learn(training, recipe, step, training.network.loss(examples, generator))


def learn(
    training: Training, recipe: Schedule, step: int, metrics: dict[str, Tensor]
) -> dict[str, float]:
    """Learn from the loss of a step, which is one of the metrics; return the metrics.

    Raises PipelineError, and changes nothing, if the loss or its gradient is not a number.
    """
    training.optimiser.zero_grad()
    metrics["loss"].backward()
    gradient = nn.utils.clip_grad_norm_(training.network.parameters(), recipe.largest_gradient)
    if not torch.isfinite(metrics["loss"].detach() + gradient):
        raise not_a_number(f"the loss or its gradient is not a number in step {step + 1}")
    for group in training.optimiser.param_groups:
        group["lr"] = learning_rate(recipe, step)
    training.optimiser.step()
    training.average.update_parameters(training.network)
    return {name: float(value.detach()) for name, value in metrics.items()}


def not_a_number(what: str) -> PipelineError:
    """Return what to raise when training has gone astray."""
    return PipelineError(
        f"{what}. The last checkpoint is as it was. Train from the start with a smaller "
        "learning_rate in the recipe: --fresh"
    )
