"""The table of a dataset: a row per trial, of what its report says."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from pipeline.files import load_dataset
from pipeline.runner import read_record
from stages import ORDER
from stages.motion_files import read_mot
from stages.quality import Figure, overall
from stages.report import cycles_of, notices_of, on_timeline
from stages.series import by_name
from stages.trial import Trial

JOINTS = {
    "hip_flexion": "Hip flexion", "knee_angle": "Knee flexion", "ankle_angle": "Ankle dorsiflexion",
}  # fmt: skip
"""Coordinates of the model, without side, that a dataset is summarised by."""
UNITS_IN_NAMES = {"%": "percent", "°": "deg"}


@dataclass(frozen=True)
class Repeated:
    """The mean curve of a trial's repetitions."""

    mean: Float[np.ndarray, "101"]
    count: int


@dataclass(frozen=True)
class Summary:
    """What the table and the page of a dataset say of a finished trial."""

    row: dict[str, str | float]
    curves: dict[str, Repeated]
    """By coordinate, degrees; none where no repetition was found."""


def summarise(trial: Trial) -> Summary:
    """Read the results of a trial whose stages have all run."""
    report = trial.folder("report")
    quality = pd.read_csv(report / "quality.csv")
    quality = quality.fillna(dict.fromkeys(("unit", "guidance", "verdict"), ""))
    figures = [Figure(**record) for record in quality.to_dict("records")]
    row: dict[str, str | float] = {"verdict": overall(figures)[0]}
    row["notices"] = " | ".join(f"{stage}: {notice}" for stage, notice in notices_of(trial))
    row |= {column_of(figure): figure.value for figure in figures}
    row |= _range_columns(pd.read_csv(report / "range_of_motion.csv", index_col="coordinate"))
    comparison = report / "comparison" / "summary.csv"
    if comparison.exists():
        (errors,) = pd.read_csv(comparison).to_dict("records")
        row |= {f"reference_{name}": value for name, value in errors.items()}
    seconds = {stage: read_record(trial.folder(stage))["seconds"] for stage in ORDER}
    return Summary(row | {f"{stage}_s": taken for stage, taken in seconds.items()}, _curves(trial))


def column_of(figure: Figure) -> str:
    """A quality figure's name and unit as the name of a column."""
    unit = "" if figure.unit.startswith("of ") else UNITS_IN_NAMES.get(figure.unit, figure.unit)
    text = f"{figure.name} {unit}".replace(" -", " minus ").replace("°", "")
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _range_columns(ranges: pd.DataFrame) -> dict[str, float]:
    columns = {
        "range": "range_deg",
        "repetitions": "repetitions",
        "range_mean": "range_per_repetition_deg",
    }
    return {
        f"{joint}_{side}_{name}": float(ranges.at[f"{joint}_{side}", column])
        for joint in JOINTS
        for side in "rl"
        for column, name in columns.items()
    }


def _curves(trial: Trial) -> dict[str, Repeated]:
    markers = load_dataset(trial.folder("augment") / "markers.nc")
    angles = on_timeline(read_mot(trial.folder("kinematics") / "angles.mot"), markers.time.values)
    kind = read_record(trial.folder("report"))["settings"]["repetitions"]
    curves, _ = cycles_of(angles, by_name(markers.position, "marker"), kind)
    return {
        name: Repeated(each.mean(0), len(each))
        for name, each in curves.items()
        if name[:-2] in JOINTS and len(each)
    }


def write_table(table: pd.DataFrame, folder: Path) -> None:
    """Write `trials.parquet`, `trials.csv` and `trials.xlsx`."""
    table.to_parquet(folder / "trials.parquet", index=False)
    table.to_csv(folder / "trials.csv", index=False, float_format="%.6g", lineterminator="\n")
    with pd.ExcelWriter(folder / "trials.xlsx", engine="openpyxl") as book:
        table.to_excel(book, sheet_name="trials", index=False, freeze_panes=(1, 3))
