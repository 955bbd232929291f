"""What the terminal says of an evaluation."""

from pathlib import Path

import pandas as pd
from rich.console import Group
from rich.table import Table

from stages.compare import AngleComparison
from stages.comparison_text import FIGURES, moving_coordinates, rounded
from stages.recordings import listed

MORE_FIGURES = {
    "multiple_correlation": ("CMC", 3), "limit_low": ("from", 1), "limit_high": ("to", 1),
}  # fmt: skip
WIDE = 110
"""Columns of a terminal that has room for `MORE_FIGURES`."""
AVERAGES = {
    "lower_limb_rmse_deg": ("RMSE\n°", 1),
    "lower_limb_mae_deg": ("MAE\n°", 1),
    "lower_limb_correlation": ("r", 3),
    "markers_mpjpe_mm": ("markers\nMPJPE mm", 1),
    "keypoints_mpjpe_mm": ("keypoints\nMPJPE mm", 1),
}


def coordinates_table(angles: AngleComparison, width: int) -> Group:
    """Figures of the coordinates that move: the legs', the pelvis's, then the others in their order."""
    figures = FIGURES | (MORE_FIGURES if width >= WIDE else {})
    table = Table(box=None, padding=(0, 1))
    table.add_column("coordinate", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for header, _ in figures.values():
        table.add_column(header, justify="right", no_wrap=True)
    for name, row in moving_coordinates(angles).iterrows():
        values = [rounded(row[key], digits) for key, (_, digits) in figures.items()]
        label = f"{name} *" if row.world_frame else name
        table.add_row(label, {"deg": "°", "mm": "mm"}[row.unit], *values)
    notes = ["* depends on the world frame; in no average"]
    if width >= WIDE:
        notes.append("from, to: 95 % limits of agreement")
    if angles.still:
        notes.append(f"held still on both sides, left out: {listed(angles.still)}")
    return Group(table, *(f" {note}" for note in notes))


def averages_table(means: pd.DataFrame) -> Table:
    """The main averages; figures that no trial has are left out."""
    shown = {key: header for key, header in AVERAGES.items() if key in means}
    table = Table("by", "name", box=None, padding=(0, 1))
    table.columns[1].no_wrap = True
    for header in ("trials", *(header for header, _ in shown.values())):
        table.add_column(header, justify="right")
    for _, row in means.iterrows():
        values = [rounded(row[key], digits) for key, (_, digits) in shown.items()]
        table.add_row(row.by, row["name"], str(row.trials), *values)
    return table


def line_of(folder: Path, source: str) -> str:
    """What a report's comparison in `folder` found, in one line; `source` is what it compares with."""
    summary = pd.read_csv(folder / "summary.csv").iloc[0]
    parts = []
    if pd.notna(summary.get("lower_limb_mae_deg")):
        rmse = pd.read_csv(folder / "angles.csv", index_col="coordinate").rmse_deg
        for joint in ("knee", "ankle"):
            sides = rmse.reindex([f"{joint}_angle_r", f"{joint}_angle_l"]).dropna()
            parts += [f"{joint} RMSE {sides.mean():.1f}°"] if len(sides) else []
        parts.append(f"lower limb MAE {summary.lower_limb_mae_deg:.1f}°")
    if "markers_mpjpe_mm" in summary:
        parts.append(f"markers {summary.markers_mpjpe_mm:.0f} mm")
    return f"{', '.join(parts)} against {source}, lag {summary.lag_ms:+.0f} ms"
