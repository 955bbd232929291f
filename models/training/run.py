"""A run of training: a folder with checkpoints and curves, from which it can go on at any time.

`checkpoint.safetensors` is the state after the latest validation or stop, `best.safetensors` the
averaged weights of the best validation, `recipe.toml` what made them, `curve.csv` and `logs/` how it
went.
"""

import json
import shutil
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock, Timeout
from torch import nn

from models.opensim_model import generic_model, load_model, stripped_copy
from models.skeleton import Skeleton, read_skeleton
from models.training.checkpoint import Record, load_checkpoint, save_checkpoint
from models.training.learning_curve import CURVE, LOGS, Curve, opened_curve
from models.training.recipe import Recipe, Schedule
from models.training.steps import Training, learning_rate, start_training, train_step
from models.training.validation import draw_suite, validate
from models.weights import save_weights
from pipeline.errors import PipelineError
from pipeline.files import replacing

MODEL = "pose2sim"
"""Whose bodies people of the training have: a packaged model, so that all train alike."""
SAVE_EVERY_S = 300
"""What a crash costs at most, where validations are farther apart."""
CHECKPOINT, BEST, RECIPE = "checkpoint.safetensors", "best.safetensors", "recipe.toml"


class Lessons(Protocol):
    """What a network is trained on, and judged by."""

    def step(self, training: Training, step: int) -> dict[str, float]:
        """Draw examples and learn from them; return the loss and other metrics."""

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Mean distance from the truth (mm) by entry of a fixed suite."""


class Watch(Protocol):
    """Who is told how it goes."""

    def stepped(self, step: int, metrics: dict[str, float]) -> None:
        """Take note of a step, counted from 1."""

    def validated(self, step: int, mean_mm: float, is_best: bool) -> None:
        """Take note of a validation."""


class TriangulationLessons:
    """Simulated people before cameras."""

    def __init__(self, recipe: Recipe, device: torch.device):
        self.recipe, skeleton = recipe, training_skeleton()
        suite = draw_suite(recipe.population, skeleton, recipe.validation_windows)
        self.suite = [examples.to(device) for examples in suite]
        self.skeleton = skeleton if device.type == "cpu" else training_skeleton().to(device)

    def step(self, training: Training, step: int) -> dict[str, float]:
        """Draw examples and learn from them; return the loss and other metrics."""
        return train_step(training, self.recipe, self.skeleton, step)

    def validate(self, network: nn.Module) -> dict[str, float]:
        """MPJPE by entry of `validation.SUITE`."""
        return validate(network, self.suite)


def train(
    recipe: Schedule,
    folder: Path,
    device: torch.device,
    fresh: bool,
    should_stop: Callable[[], bool],
    watch: Watch,
    lessons: Callable[[Any, torch.device], Lessons] = TriangulationLessons,
) -> Record:
    """Train from where the folder's checkpoint is, or from the start, until the end or a stop.

    With `fresh`, what an earlier run has written there is removed first. `should_stop` is asked
    before every step; `lessons` makes what is learned, of the recipe and the device.

    Raises PipelineError if another process trains there, the checkpoint is damaged or of another
    recipe, the loss is not a number, or memory is short.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            if fresh:
                _discard(folder)
            run = _open_run(recipe, folder, device)
            if not run.record.ended(recipe):
                _go_on(run, should_stop, watch, lessons(recipe, device))
            return run.record
    except Timeout as error:
        raise PipelineError(
            f"another process trains in {folder}. Wait for it, or take another folder: --out FOLDER"
        ) from error
    except torch.OutOfMemoryError as error:
        raise PipelineError(
            f"the {kind_of(device)} has too little memory for batches of {recipe.windows} windows of "
            f"{recipe.frames} frames: use fewer in the recipe, and --fresh"
        ) from error


def training_skeleton() -> Skeleton:
    """Make the average person that examples are drawn from, on the CPU."""
    known = generic_model(MODEL)
    return read_skeleton(stripped_copy(load_model(known.folder / known.model))[0]).float()


def _discard(folder: Path) -> None:
    for name in (CHECKPOINT, BEST, RECIPE, CURVE):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / LOGS, ignore_errors=True)


def kind_of(device: torch.device) -> str:
    """Name the kind of a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({torch.get_num_threads()} threads)"


@dataclass
class _Run:
    """A training in its folder."""

    recipe: Schedule
    folder: Path
    training: Training
    record: Record
    counted_until: float = field(default_factory=time.monotonic)
    """Until when the record's seconds are counted."""

    def save(self) -> None:
        """Write a checkpoint."""
        self.count_seconds()
        save_checkpoint(self.folder / CHECKPOINT, self.training, self.recipe, self.record)

    def count_seconds(self) -> None:
        """Add what has passed to the record."""
        now, kind, spent = time.monotonic(), kind_of(self.training.device), self.record.seconds
        spent[kind] = spent.get(kind, 0.0) + now - self.counted_until
        self.counted_until = now


def _open_run(recipe: Schedule, folder: Path, device: torch.device) -> _Run:
    path = folder / CHECKPOINT
    if path.exists():
        return _Run(recipe, folder, *load_checkpoint(path, recipe, device))
    with replacing(folder / RECIPE) as temporary:
        temporary.write_text(to_toml(recipe.model_dump(mode="json")), encoding="utf-8")
    return _Run(recipe, folder, start_training(recipe, device), Record())


def _go_on(run: _Run, should_stop: Callable[[], bool], watch: Watch, lessons: Lessons) -> None:
    recipe, record = run.recipe, run.record
    saved, since_validation = record.step, []
    with opened_curve(run.folder, record.step) as curve:
        while not record.ended(recipe) and not should_stop():
            metrics = lessons.step(run.training, record.step)
            record.step += 1
            since_validation.append(metrics)
            watch.stepped(record.step, metrics)
            if record.step % recipe.validation_every == 0 or record.step == recipe.steps:
                _validate(run, lessons, curve, _means(since_validation), watch)
                saved, since_validation = record.step, []
            elif time.monotonic() - run.counted_until > SAVE_EVERY_S:
                run.save()
                saved = record.step
        if saved != record.step:
            run.save()


def _validate(
    run: _Run, lessons: Lessons, curve: Curve, means: dict[str, float], watch: Watch
) -> None:
    """Judge the averaged weights, keep the best, and write the checkpoint last."""
    record, recipe = run.record, run.recipe
    average = run.training.average.module.eval()
    scores = lessons.validate(average)
    run.count_seconds()
    is_best = record.judge(scores)
    if is_best:
        facts = {
            "recipe": recipe.model_dump(mode="json"),
            "record": record.model_dump(mode="json"),
        }
        save_weights(run.folder / BEST, recipe.method, average, facts)
    mean = sum(scores.values()) / len(scores)
    curve.add(
        {
            "step": record.step,
            "seconds": round(sum(record.seconds.values()), 1),
            "learning_rate": learning_rate(recipe, record.step - 1),
            **{f"training/{name}": value for name, value in means.items()},
            **{f"validation_mm/{name}": value for name, value in scores.items()},
            "validation_mm/mean": mean,
        }
    )
    run.save()
    watch.validated(record.step, mean, is_best)


def _means(of_steps: list[dict[str, float]]) -> dict[str, float]:
    sums: defaultdict[str, float] = defaultdict(float)
    for metrics in of_steps:
        for name, value in metrics.items():
            sums[name] += value / len(of_steps)
    return dict(sums)


def to_toml(table: dict[str, Any], path: str = "") -> str:
    """Write nested tables of numbers, texts and truth values, which TOML writes as JSON does."""
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in plain.items()]
    for key in table:
        if key not in plain:
            lines += [f"\n[{path}{key}]\n", to_toml(table[key], f"{path}{key}.")]
    return "".join(lines)
