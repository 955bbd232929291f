"""`pipeline train`: make the weights of the learned triangulation methods, and of the augmenter."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from pipeline.terminal import console

VIEWS_OF_PLAN = 4
KILLED_BY = 128
"""What shells add to a signal's number in exit codes."""


def train(
    method: Annotated[
        Literal["algebraic", "volumetric", "augmenter"],
        typer.Argument(help="The network to train."),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.toml",
            help="algebraic, volumetric, volumetric_compact, augmenter, or your own. [METHOD]",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run. [training/RECIPE]", show_default=False)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Stop after so long; run again to go on.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Plan for so many steps, not the recipe's.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Go on where the run is, or start anew.")
    ] = True,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where to calculate.")
    ] = "auto",
    export: Annotated[
        Path | None, typer.Option(help="Then write the best weights and a model card there.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what the network costs.")
    ] = False,
) -> None:
    """Train a network on simulated people, and go on at any time where it was stopped.

    Writes checkpoints, the best weights, curve.csv and TensorBoard's logs. Ctrl-C stops it well.

    \b
    Examples:
      pipeline train algebraic
      pipeline train volumetric --minutes 9 --device cuda
      pipeline train volumetric --recipe volumetric_compact --export weights/volumetric
      pipeline train algebraic --recipe mine.toml --out training/mine --fresh
      pipeline train augmenter --minutes 40 --export weights/augmenter
      pipeline train volumetric --dry-run
    """
    import torch

    from models.learned import torch_device
    from models.training.courses import COURSES
    from models.training.run import BEST
    from pipeline.files import reporting_disk_errors
    from pipeline.recipes import read_recipe

    chosen = read_recipe(method, recipe or method, steps)
    folder = out or Path("training") / Path(recipe or method).stem
    torch.set_num_threads(chosen.threads)
    where = torch.device(torch_device(device, "--device"))
    _tell_plan(chosen, where)
    if dry_run:
        return
    with reporting_disk_errors(folder):
        signalled = _run(chosen, folder, where, not resume, minutes)
        if export is not None:
            from models.training.model_card import export as export_weights

            weights, card = export_weights(folder / BEST, method, export, COURSES[method].card)
            console.print(f"  weights     {escape(str(weights))}", soft_wrap=True)
            console.print(f"  model card  {escape(str(card))}", soft_wrap=True)
    if signalled:
        raise typer.Exit(KILLED_BY + signalled)


def _run(recipe, folder: Path, device, fresh: bool, minutes: float | None) -> int | None:
    """Train, tell what came of it, and return the signal that stopped it."""
    from models.training.courses import COURSES
    from models.training.learning_curve import has_tensorboard
    from models.training.run import train
    from pipeline.train_watch import Stop, TrainingWatch

    if not has_tensorboard():
        console.print(
            "[yellow]note[/] there is no TensorBoard, so there will be curve.csv only: pip install "
            "tensorboard",
            soft_wrap=True,
        )
    with Stop(minutes) as stop, TrainingWatch(recipe.steps) as watch:
        record = train(recipe, folder, device, fresh, stop, watch, COURSES[recipe.method].lessons)
    why = record.ended(recipe)
    if why is None:
        why = (
            f"stopped at step {record.step:,} of {recipe.steps:,}. To go on, give the same command"
            + " without --fresh" * fresh
        )
    console.print(f"  {why}", highlight=False, soft_wrap=True)
    if record.best is not None:
        console.print(
            f"  best        {record.best.mean_mm:.2f} mm at step {record.best.step:,}",
            highlight=False,
        )
    console.print(f"  run         {escape(str(folder))}", soft_wrap=True)
    return stop.signal


def _tell_plan(recipe, device) -> None:
    """Print how large the network is, how long it is trained, and what a frame of it costs."""
    from models.training.run import kind_of
    from models.training.steps import start_training

    network = start_training(recipe, "cpu").network
    parameters = sum(each.numel() for each in network.parameters())
    frames = recipe.steps * recipe.windows * recipe.frames
    console.print(
        f"[bold]{recipe.method}[/] {parameters:,} parameters; {recipe.steps:,} steps of "
        f"{recipe.windows} windows of {recipe.frames} frames, {frames:,} in all; on {kind_of(device)}",
        highlight=False,
        soft_wrap=True,
    )
    if recipe.method != "augmenter":
        _tell_cost(recipe, network)


def _tell_cost(recipe, network) -> None:
    """Print what a network that triangulates must do for a frame, and how fast that can be."""
    from models.simulation.population import draw
    from models.training.cost import H200, cost_of
    from models.training.run import training_skeleton
    from models.training.steps import TRAINED_ON, random_numbers

    generator = random_numbers("cpu", TRAINED_ON, recipe.seed, 0)
    population = recipe.population.model_copy(update={"performances": 1})
    examples = draw(population, training_skeleton(), 1, 1, VIEWS_OF_PLAN, generator)
    cost = cost_of(network, examples, generator)
    limit = "arithmetic" if cost.is_bound_by_arithmetic(H200) else "memory"
    for line in (
        f"  a frame     {cost.flops / 1e9:.3g} GFLOP (matrix products and convolutions), "
        f"{cost.bytes / 1e6:.3g} MB (parameters once, results of those written and read once, 2 bytes "
        f"each), {VIEWS_OF_PLAN} views",
        f"  time floor  {cost.floor_s(H200) * 1e6:.3g} µs a frame by {limit} on one {H200.name} "
        f"({H200.flops_per_s / 1e12:g} TFLOP/s in bfloat16, {H200.bytes_per_s / 1e12:g} TB/s)",
    ):
        console.print(line, highlight=False, soft_wrap=True)
