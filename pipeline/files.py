"""Files are contracts: hashed, and never half-written."""

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import xarray as xr

from pipeline.errors import PipelineError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there only if the block succeeds.

    The temporary name keeps the suffix, since many writers choose their format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `folder` only if the block succeeds."""
    temporary = folder.with_name(f".{folder.name}.new")
    old = folder.with_name(f".{folder.name}.old")
    if old.exists() and not folder.exists():  # killed between the two renamings
        old.rename(folder)
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if folder.exists():
            folder.rename(old)
        try:
            temporary.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def reporting_disk_errors(where: Path) -> Iterator[None]:
    """Turn what the operating system says of files below `where` into one message."""
    remedies = {
        errno.ENOSPC: "The disk is full: free some space",
        errno.EACCES: "Close programs that show files of this folder, and make sure that you may "
        "write there, or copy the session elsewhere",
        errno.EROFS: "The disk is read-only: copy the session elsewhere",
    }
    try:
        yield
    except OSError as error:
        remedy = remedies.get(error.errno, "Check the disk")
        raise PipelineError(
            f"{error.strerror or error} ({error.filename or where}). {remedy}, then run again: what "
            "was finished is kept."
        ) from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise PipelineError(f"cannot read {path}: {error.strerror}") from error


def sha256_of_input(path: Path) -> str:
    """Return the SHA-256 of a file that nobody changes unnoticed: read again only where size or time differ.

    Big videos and networks are not read again by every stage of a run.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise PipelineError(f"cannot read {path}: {error.strerror}") from error
    return _sha256_of_state(path, state.st_size, state.st_mtime_ns)


@cache
def _sha256_of_state(path: Path, size: int, changed: int) -> str:
    return sha256_of(path)


def save_dataset(dataset: xr.Dataset, path: Path) -> None:
    """Write a labelled dataset as NetCDF-4.

    Made in memory first: HDF5 may crash the whole program when a disk fills up under it.
    """
    content = dataset.to_netcdf(engine="h5netcdf")
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def load_dataset(path: Path) -> xr.Dataset:
    """Read a dataset written by `save_dataset` into memory.

    Raises PipelineError if the file is missing or is not such a dataset.
    """
    try:
        return xr.load_dataset(path, engine="h5netcdf")
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"cannot read {path}: {error}. Make it again: --from {path.parent.name.partition('_')[2]}"
        ) from error
