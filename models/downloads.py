"""Getting a file from an https address, and out of a zip archive: whole, or not at all."""

import errno
import subprocess
import sys
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pipeline.errors import PipelineError

TIMEOUT_S = 60
CHUNK_BYTES = 1 << 20
LIMIT_BYTES = 2 << 30
"""No model file is larger, and a disk should not fill up with what claims to be one."""


def download(address: str, target: Path) -> None:
    """Write what is at an https address to a new file.

    Raises PipelineError for any other kind of address, before or after redirection, and OSError if
    it cannot be had, is cut short or is too large. Nothing is left of the file then.
    """
    if not address.startswith("https://"):
        raise PipelineError(f"{address} is not an https address")
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
            if not answer.url.startswith("https://"):
                raise PipelineError(f"{address} leads to {answer.url}, which is no https address")
            announced = answer.headers.get("Content-Length")
            size = _copy(answer, target)
    except HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    if announced is not None and size != int(announced):
        target.unlink()
        raise OSError(f"cut short: {size} of {announced} bytes")


def download_wheel(requirement: str, pip_options: Sequence[str], folder: Path) -> Path:
    """Have pip fetch a package's wheel into an empty folder; return it. Raises OSError if it fails."""
    command = [
        sys.executable, "-m", "pip", "download", requirement, "--no-deps",
        "--only-binary=:all:", "--disable-pip-version-check", f"--dest={folder}", *pip_options,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL
    )
    found = list(folder.glob("*.whl"))
    if done.returncode or not found:
        lines = [
            line for line in done.stderr.splitlines() if "ERROR" in line or "No module" in line
        ]
        raise OSError(lines[-1].strip() if lines else f"pip ended with code {done.returncode}")
    return found[0]


DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What reading a broken archive raises."""


def take_member(archive: Path, name: str, target: Path) -> None:
    """Write one file of a zip archive to a new file, whichever folder it is in there.

    `name` is its path inside the archive, or the last part of that. The archive's own paths are
    never written to. Raises PipelineError if the archive is damaged, or has no such file or several.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            files = [each for each in opened.infolist() if not each.is_dir()]
            fitting = [each for each in files if each.filename == name] or [
                each for each in files if PurePosixPath(each.filename).name == name
            ]
            if len(fitting) != 1:
                raise PipelineError(f"{archive} has {len(fitting) or 'no'} files '{name}'")
            with opened.open(fitting[0]) as member:
                _copy(member, target)
    except (*DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise PipelineError(f"{archive} is damaged, or not a zip archive: {error}") from error


def _copy(stream: BinaryIO, target: Path) -> int:
    """Copy a stream into a new file; return its size. Raises OSError past the limit."""
    size = 0
    try:
        with open(target, "wb") as file:
            while chunk := stream.read(CHUNK_BYTES):
                size += len(chunk)
                if size > LIMIT_BYTES:
                    raise OSError(f"larger than {LIMIT_BYTES >> 30} GB")
                file.write(chunk)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return size
