"""Motion files of OpenSim (.mot), and the units that they have."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.errors import PipelineError
from pipeline.files import replacing


def in_file_units(angles: pd.DataFrame, rotational: set[str]) -> pd.DataFrame:
    """Radians to degrees; translations stay metres."""
    return angles * [180 / np.pi if name in rotational else 1.0 for name in angles]


def in_model_units(angles: pd.DataFrame, rotational: set[str]) -> pd.DataFrame:
    """Degrees to radians; translations stay metres."""
    return angles * [np.pi / 180 if name in rotational else 1.0 for name in angles]


def write_mot(path: Path, angles: pd.DataFrame) -> None:
    """Write coordinates (degrees and metres, indexed by seconds) as an OpenSim motion file."""
    rows, columns = angles.shape
    header = (
        f"Coordinates\nversion=1\nnRows={rows}\nnColumns={columns + 1}\ninDegrees=yes\nendheader\n"
    )
    table = angles.to_csv(sep="\t", index_label="time", float_format="%.8f", lineterminator="\n")
    with replacing(path) as temporary:
        temporary.write_text(header + table, encoding="utf-8", newline="\n")


def read_mot(path: Path) -> pd.DataFrame:
    """Read an OpenSim motion file: columns by name, indexed by seconds, in the file's units.

    Raises PipelineError if it is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        start = [line.strip().lower() for line in lines].index("endheader") + 1
        rows = [line.split() for line in lines[start:] if line.strip()]
        table = pd.DataFrame(np.array(rows[1:], dtype=float), columns=rows[0])
        promised = re.search(r"^nRows=(\d+)$", "\n".join(lines[:start]), re.MULTILINE)
        table = table.set_index("time")
    except (OSError, UnicodeDecodeError, IndexError, ValueError, KeyError) as error:
        raise PipelineError(
            f"{path} is not an OpenSim motion file, or damaged: expected a header that ends with "
            f"endheader, a row of names with time, and rows of as many numbers ({error})"
        ) from error
    if promised and len(table) < int(promised[1]):
        raise PipelineError(
            f"{path} is cut short: {len(table)} of {promised[1]} rows. Export it again."
        )
    return table
