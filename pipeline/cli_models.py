"""`pipeline models`: what there is to find keypoints with, and the files that a run needs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from models.assets import (
    DIGITS,
    Asset,
    cached_bytes,
    is_present,
    list_assets,
    published_digits,
    verify,
)
from models.assets import fetch as fetch_asset
from models.assets import import_from as import_asset
from models.zoo import QUALITIES, Model, list_models, model, pair
from pipeline.errors import PipelineError
from pipeline.terminal import console

models = typer.Typer(help="List, fetch, verify and import the model files.", no_args_is_help=True)

Quality = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(QUALITIES),
        help="Models for 2D keypoints; the best that are fetched if not given.",
    ),
]
"""Of the commands that run trials: short for --set detect.quality=…"""

NOTE = (
    "AP (average precision, %) and ms (a person, ONNX Runtime, Core i7-11700) as published; AP does "
    "not compare between COCO, Body8 and WholeBody. Fetch NAME for backend rtm, NAME-mm for mm. First "
    "seen, 8 digits: of the file's hash no more is published, so it is checked against the first copy. "
    "Licences are of code and weights; pictures that models were trained on have terms of their own."
)


def with_quality(overrides: list[str] | None, quality: str | None) -> list[str]:
    """Overrides of settings, with that of a quality if there is one."""
    return [*(overrides or []), *([f"detect.quality={quality}"] if quality else [])]


@models.command("list")
def list_files() -> None:
    """List the models, how good and how fast they are, and all other files that a run needs."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("name", "finds", "backend", "MB", "licence", "AP, on", "ms", "cached"):
        table.add_column(column, no_wrap=column != "cached")
    for each in list_models():
        table.add_row(*_row_of_model(each))
    console.print(table)
    console.print(NOTE, style="dim")
    for quality in QUALITIES:
        names = pair(quality)
        console.print(f"--quality {quality}: {' and '.join(names.values())}", highlight=False)
    _list_other_files()


def _row_of_model(each: Model) -> tuple[str, ...]:
    names = {backend: each.asset_of(backend) for backend in each.backends}
    assets = {asset.name: asset for asset in list_assets()}
    cached = [_cached(backend, name) for backend, name in names.items() if is_present(name)]
    accuracy, speed = each.accuracy_ap, each.speed_ms
    return (
        each.name,
        each.finds,
        ", ".join(names),
        _size_of_model(each, [assets[name] for name in names.values()]),
        each.licence,
        f"{accuracy.value} {accuracy.of}" if accuracy else "",
        f"{speed.value:.0f}" if speed else "",
        "[green]" + ", ".join(cached) + "[/]" if cached else "no",
    )


def _cached(backend: str, name: str) -> str:
    """A backend whose file is cached, and how well the file is known to be the right one."""
    digits = published_digits(name)
    if digits == DIGITS:
        return backend
    return f"{backend} ({digits} digits)" if digits else f"{backend} (first seen)"


def _size_of_model(each: Model, assets: list[Asset]) -> str:
    """In MB: of the cached file, or as registered, or as its parameters make it."""
    for asset in assets:
        if is_present(asset.name):
            return f"{cached_bytes(asset.name) / 1e6:.1f}"
    known = [asset.size_bytes for asset in assets if asset.size_bytes]
    if known:
        return f"{known[0] / 1e6:.1f}"
    return f"~{4 * each.parameters_m:.0f}" if each.parameters_m else "?"


def _list_other_files() -> None:
    in_zoo = {each.asset for each in list_models()}
    table = Table("file", "cached", "MB", "licence", "what", box=None)
    for asset in list_assets():
        if not asset.model and asset.name not in in_zoo:
            cached = "[green]yes[/]" if is_present(asset.name) else "no"
            size = f"{asset.size_bytes / 1e6:.1f}"
            table.add_row(asset.name, cached, size, asset.licence, asset.description)
    console.print(table)


@models.command()
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names; all that the demo needs if none.")
    ] = None,
    quality: Quality = None,
    backend: Annotated[
        str, typer.Option(metavar="rtm|mm", help="Of --quality: for which backend.")
    ] = "rtm",
) -> None:
    """Fetch model files into the cache, and check them.

    \b
    Examples:
      pipeline models fetch
      pipeline models fetch --quality balanced
      pipeline models fetch rtmdet-m rtmw-l-384
    """
    wanted = list(names or [])
    if quality:
        wanted += [_asset_for(name, backend) for name in pair(quality).values()]
    for name in wanted or [asset.name for asset in list_assets() if not asset.optional]:
        console.print(f"{name}: {fetch_asset(name)}", soft_wrap=True)


def _asset_for(name: str, backend: str) -> str:
    found = model(name)
    if backend not in found.backends:
        raise PipelineError(f"{name} runs by backend {', '.join(found.backends)}, not by {backend}")
    return found.asset_of(backend)


@models.command("verify")
def verify_files() -> None:
    """Hash every cached model file again, and compare with the registry, or with its first copy."""
    for asset in list_assets():
        if is_present(asset.name):
            verify(asset.name)
            whole = published_digits(asset.name) == DIGITS
            against = "" if whole else " (against its first copy)"
            console.print(f"{asset.name}: [green]ok[/]{against}")


@models.command("import")
def import_files(
    name: Annotated[str, typer.Argument(help="Name in the list of models.")],
    path: Annotated[
        Path, typer.Argument(help="A file, a folder, an archive or a wheel that holds the files.")
    ],
) -> None:
    """Take model files from this computer, for machines without internet.

    \b
    Examples:
      pipeline models import blazepose-full mediapipe-0.10.21-….whl
      pipeline models import rtmdet-m rtmdet_m_8xb32-100e_coco-obj365-person-235e8209.zip
    """
    console.print(f"{name}: {import_asset(name, path)}", soft_wrap=True)
