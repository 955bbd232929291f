"""Export: markers as TRC and C3D, for OpenSim, Mokka and everything else."""

from collections.abc import Sequence
from pathlib import Path

import ezc3d
import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict

from pipeline.errors import PipelineError
from pipeline.files import load_dataset, replacing
from stages.trial import Progress, Trial

NEEDS = ("augment",)

Positions = Float[np.ndarray, "time marker 3"]


class Settings(BaseModel):
    """Options of the export: none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def rate_of(time_s: Float[np.ndarray, "time"]) -> float:
    """Samples per second. Raises PipelineError if they are not evenly spaced."""
    intervals = np.diff(time_s)
    if len(intervals) < 1 or not np.allclose(intervals, intervals.mean(), atol=1e-5):
        raise PipelineError("marker files need at least two samples at equal intervals of time")
    return float(1 / intervals.mean())


def write_trc(path: Path, time_s: np.ndarray, names: Sequence[str], position: Positions) -> None:
    """Write markers (m) as a TRC file in millimetres; a missing marker is an empty field.

    The layout is the one that Motion Analysis defined and OpenSim reads: two header lines of
    parameters, marker names, axis names, an empty line, frames numbered from 1. Every value ends
    with a tab, else OpenSim misses an empty last one.
    """
    rate, count = rate_of(time_s), len(names)
    header = [
        f"PathFileType\t4\t(X/Y/Z)\t{path.name}",
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\t"
        "OrigDataRate\tOrigDataStartFrame\tOrigNumFrames",
        f"{rate:g}\t{rate:g}\t{len(time_s)}\t{count}\tmm\t{rate:g}\t1\t{len(time_s)}",
        "Frame#\tTime\t" + "\t\t\t".join(names) + "\t\t",
        "\t\t" + "\t".join(f"{axis}{i}" for i in range(1, count + 1) for axis in "XYZ"),
        "",
    ]
    rows = (
        f"{frame}\t{time:.9f}\t" + "".join("\t" if np.isnan(v) else f"{v:.6f}\t" for v in values)
        for frame, (time, values) in enumerate(
            zip(time_s, position.reshape(len(time_s), -1) * 1000, strict=True), start=1
        )
    )
    with replacing(path) as temporary:
        temporary.write_text("\n".join([*header, *rows]) + "\n", encoding="utf-8")


def read_trc(path: Path) -> tuple[np.ndarray, list[str], Positions]:
    """Read a TRC file of any program: time (s), marker names, positions (m, NaN where missing).

    Raises PipelineError if it is none, or its unit is neither mm nor m.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        values = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=False))
        scale = {"mm": 1e-3, "m": 1.0}[values["Units"].strip().lower()]
        names = [name.strip() for name in lines[3].split("\t")[2:] if name.strip()]
        rows = [line.split("\t") for line in lines[5:] if line.strip()]
        width = 2 + 3 * len(names)
        table = np.array([(row + [""] * width)[:width] for row in rows], str).reshape(-1, width)
        numbers = np.where(np.char.strip(table) == "", "nan", table).astype(float)
        promised = int(values.get("NumFrames", 0))
    except (OSError, UnicodeDecodeError, IndexError, KeyError, ValueError) as error:
        raise PipelineError(f"{path} is not a TRC file of markers in mm or m: {error!r}") from error
    if len(rows) < promised - 1:  # some programs promise one too many
        raise PipelineError(
            f"{path} is cut short: {len(rows)} of {promised} frames. Export it again."
        )
    return numbers[:, 1], names, numbers[:, 2:].reshape(len(rows), -1, 3) * scale


def write_c3d(path: Path, time_s: np.ndarray, names: Sequence[str], position: Positions) -> None:
    """Write markers (m) as C3D in millimetres, Y up; a missing marker has residual -1."""
    file = ezc3d.c3d()
    file["parameters"]["POINT"]["RATE"]["value"] = [rate_of(time_s)]
    file["parameters"]["POINT"]["LABELS"]["value"] = list(names)
    file["parameters"]["POINT"]["UNITS"]["value"] = ["mm"]
    file.add_parameter("POINT", "X_SCREEN", "+X")
    file.add_parameter("POINT", "Y_SCREEN", "+Y")
    values = position.transpose(2, 1, 0) * 1000  # (axis, marker, time)
    missing = np.isnan(values).any(0)
    file["data"]["points"] = np.concatenate(
        [np.where(missing, np.nan, values), np.ones((1, *missing.shape))]
    )
    file["data"]["meta_points"]["residuals"] = np.where(missing, -1.0, 0.0)[None]
    with replacing(path) as temporary:
        file.write(str(temporary))


def inputs(trial: Trial, settings: Settings) -> dict[str, object]:
    """Return what the result depends on besides other stages: nothing."""
    return {}


def run(trial: Trial, settings: Settings, out: Path, progress: Progress) -> list[str]:
    """Write one trial's markers as `markers.trc` and `markers.c3d`."""
    markers = load_dataset(trial.folder("augment") / "markers.nc")
    names = [str(name) for name in markers.marker.values]
    position = markers.position.transpose("time", "marker", "axis").values
    write_trc(out / "markers.trc", markers.time.values, names, position)
    write_c3d(out / "markers.c3d", markers.time.values, names, position)
    return []
