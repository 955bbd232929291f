"""Files are contracts: hashed, and never half-written."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
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


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise PipelineError(f"cannot read {path}: {error.strerror}") from error


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
            f"cannot read {path}: {error}. Run the stage that writes it again with --force."
        ) from error
