"""`pipeline batch`: run every trial of every session below a folder."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipeline.cli_models import Quality, with_quality
from pipeline.errors import PipelineError
from pipeline.terminal import console, errors

MAX_LISTED = 50
"""Failures that are printed; the table has all."""


def batch(
    dataset: Annotated[Path, typer.Argument(help="A folder with sessions, at any depth to 4.")],
    activity: Annotated[
        str | None, typer.Option(help="Run the trials of this activity, such as squats.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes on this computer. [as many as cores]")
    ] = None,
    gpu_workers: Annotated[
        int, typer.Option(min=0, help="Further ones, on which alone networks run.")
    ] = 0,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="tcp://HOST:PORT", help="Use the workers of this Dask scheduler."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would run.")] = False,
    quality: Quality = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Change a setting, for all trials."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the table and the page. [DATASET/batch]")
    ] = None,
) -> None:
    """Run all trials of all sessions below a folder, several at a time.

    A trial that fails does not stop the others.

    After Ctrl-C or a crash, run it again: finished stages are kept.

    DATASET/batch/ gets a table of all trials, and dataset.html. Exit code 1: some failed.

    \b
    Examples:
      pipeline batch sessions --dry-run
      pipeline batch sessions --activity squats --workers 4
      pipeline batch /data/LabValidation --scheduler tcp://node1:8786 --out results
    """
    from pipeline.batch_plan import make_plan
    from pipeline.dataset_report import check_out

    if scheduler and (workers or gpu_workers):
        raise PipelineError("--workers and --gpu-workers are for this computer, not --scheduler")
    folder = out or dataset / "batch"
    check_out(folder)
    plan = make_plan(dataset, activity, with_quality(overrides, quality))
    if dry_run:
        _print_plan(plan)
        return
    _run(plan, scheduler, workers, gpu_workers, folder)


def _run(plan, scheduler: str | None, workers: int | None, gpu_workers: int, out: Path):
    from pipeline.batch import run_jobs
    from pipeline.batch_watch import BatchWatch
    from pipeline.cluster import connected, declared_resources, default_workers, notices_about
    from pipeline.dataset_report import write_dataset

    with connected(scheduler, workers or default_workers(), gpu_workers) as client:
        for notice in notices_about(declared_resources(client)):
            console.print(f"[yellow]note[/] {notice}", soft_wrap=True)
        with BatchWatch(client, plan.jobs) as watch:
            results = run_jobs(client, plan.jobs, watch)
    table = write_dataset(plan, results, out)
    counts = Counter(unit.status for result in results for unit in result.units)
    stages = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    console.print(f"  stages  {stages}", highlight=False)
    console.print(f"  table   {escape(str(out / 'trials.xlsx'))}", soft_wrap=True)
    console.print(f"  page    {escape(str(out / 'dataset.html'))}", soft_wrap=True)
    failed = table[table.status != "done"]
    for row in failed[:MAX_LISTED].itertuples():
        name = f"{row.session}/{row.trial}" if row.trial else row.session
        errors.print(f"[red]{row.status}[/] {escape(f'{name}: {row.reason}')}", soft_wrap=True)
    if len(failed):
        raise PipelineError(
            f"{len(failed)} of {len(table)} trials have no results; {out / 'trials.csv'} says why."
        )


def _print_plan(plan) -> None:
    from pipeline.batch_plan import stages_to_run

    table = Table("trial", "activity", "stages to run", box=None)
    units = 0
    for job in plan.jobs:
        try:
            stages = stages_to_run(job)
        except PipelineError as error:
            table.add_row(escape(job.name), job.trial.activity, f"[red]{escape(str(error))}[/]")
            continue
        units += len(stages)
        table.add_row(escape(job.name), job.trial.activity, ", ".join(stages) or "up to date")
    for each in plan.unreadable:
        name = "/".join(filter(None, (each.session, each.trial)))
        table.add_row(escape(name), "", f"[red]{escape(each.reason)}[/]")
    console.print(table)
    total = sum(len(job.stages) for job in plan.jobs)
    sessions = {each.session for each in (*plan.jobs, *plan.unreadable)}
    console.print(
        f"{len(sessions)} sessions, {len(plan.jobs)} trials: {units} of {total} stages to run"
        + (f"; {len(plan.unreadable)} cannot be read" if plan.unreadable else "")
    )
