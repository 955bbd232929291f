"""Checkpoints: everything that a training needs to go on, as tensors and text."""

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from models.training.recipe import Schedule
from models.training.steps import Training, start_training
from models.weights import read_tensors, write_tensors
from pipeline.errors import PipelineError


class Best(BaseModel):
    """The validation with the lowest mean error."""

    model_config = ConfigDict(extra="forbid")

    step: int
    mean_mm: float
    scores_mm: dict[str, float]
    """Mean distance from the truth by entry of the suite."""


class Record(BaseModel):
    """How far a training is."""

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    """Steps done."""
    seconds: dict[str, float] = {}
    """Spent, by kind of device."""
    best: Best | None = None
    since_best: int = 0
    """Validations without a better one."""

    def ended(self, recipe: Schedule) -> str | None:
        """Why there is nothing left to do, or None."""
        if self.step >= recipe.steps:
            return f"all {recipe.steps} steps are done"
        if self.since_best >= recipe.patience:
            return f"no validation was better in the last {self.since_best}"
        return None

    def judge(self, scores_mm: dict[str, float]) -> bool:
        """Take in a validation's scores; tell whether it is the best so far."""
        mean = sum(scores_mm.values()) / len(scores_mm)
        better = self.best is None or mean < self.best.mean_mm
        if better:
            self.best = Best(step=self.step, mean_mm=mean, scores_mm=scores_mm)
        self.since_best = 0 if better else self.since_best + 1
        return better


def save_checkpoint(path: Path, training: Training, recipe: Schedule, record: Record) -> None:
    """Write a checkpoint in the place of the last one."""
    about = {"recipe": recipe.model_dump_json(), "record": record.model_dump_json()}
    write_tensors(path, _tensors_of(training), about)


def load_checkpoint(
    path: Path, recipe: Schedule, device: torch.device | str
) -> tuple[Training, Record]:
    """Make a training that goes on from a checkpoint.

    Raises PipelineError if the file is damaged, or of another recipe.
    """
    tensors, about = read_tensors(path)
    remedy = "Start anew with --fresh, or elsewhere with --out FOLDER"
    try:
        record = Record.model_validate_json(about["record"])
        of_file = type(recipe).model_validate_json(about["recipe"])
    except (KeyError, ValidationError) as error:
        raise PipelineError(
            f"{path} is no checkpoint of this version and method: {error}. {remedy}"
        ) from error
    if of_file != recipe:
        fields = [n for n in type(recipe).model_fields if getattr(of_file, n) != getattr(recipe, n)]
        raise PipelineError(
            f"{path} was made by another recipe: {', '.join(fields)} differ. {remedy}; or go on with "
            f"--recipe {path.with_name('recipe.toml')}"
        )
    training = start_training(recipe, device)
    try:
        _restore(training, tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise PipelineError(
            f"{path} does not fit the {recipe.method} network of this version: {why}. {remedy}"
        ) from error
    return training, record


def _tensors_of(training: Training) -> dict[str, Tensor]:
    optimised = training.optimiser.state_dict()["state"]
    names = [name for name, _ in training.network.named_parameters()]
    return {
        **{f"network/{name}": value for name, value in training.network.state_dict().items()},
        **{f"average/{name}": value for name, value in training.average.state_dict().items()},
        **{
            f"optimiser/{names[index]}/{key}": value
            for index, state in optimised.items()
            for key, value in state.items()
        },
    }


def _restore(training: Training, tensors: dict[str, Tensor]) -> None:
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimiser": {}}
    for path, value in tensors.items():
        part, _, name = path.partition("/")
        parts[part][name] = value
    training.network.load_state_dict(parts["network"])
    training.average.load_state_dict(parts["average"])
    moments: dict[int, dict[str, Tensor]] = {}
    numbers = {name: n for n, (name, _) in enumerate(training.network.named_parameters())}
    for path, value in parts["optimiser"].items():
        name, _, key = path.rpartition("/")
        moments.setdefault(numbers[name], {})[key] = value
    groups = training.optimiser.state_dict()["param_groups"]
    training.optimiser.load_state_dict({"state": moments, "param_groups": groups})
