"""What the terminal says of an evaluation."""

import pandas as pd
from rich.console import Group
from rich.table import Table

from pipeline.evaluation_files import rounded
from stages.compare import LOWER_LIMB, AngleComparison
from stages.comparison import Comparison
from stages.recordings import in_common, listed

FIGURES = {
    "rmse": ("RMSE", 1), "mae": ("MAE", 1), "bias": ("bias", 1), "max": ("max", 1),
    "correlation": ("r", 3), "range_error": ("ROM error", 1),
}  # fmt: skip
"""Headers and digits of a coordinate's figures."""
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
    known = angles.table.index
    first = [*in_common(LOWER_LIMB, known), *known[angles.table.world_frame]]
    ordered = angles.table.loc[list(dict.fromkeys([*first, *known]))].drop(angles.still)
    for name, row in ordered.iterrows():
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


def lines_of(comparison: Comparison) -> list[str]:
    """What is said of a comparison besides its table."""
    lines = [str(comparison.alignment)]
    if angles := comparison.angles:
        mean = angles.lower_limb
        lines.append(
            f"mean over {mean['count']:.0f} lower-limb rotations, {len(angles.result)} samples: RMSE "
            f"{mean.rmse:.1f}°, MAE {mean.mae:.1f}°, r {mean.correlation:.3f}, CMC {mean.multiple_correlation:.3f}"
        )
    for kind, points in comparison.points.items():
        of = points.overall
        seen = f", reprojection {of['reprojection_px']:.1f} px" if "reprojection_px" in of else ""
        lines += [
            f"{kind} ({len(points.table)}, {of['share_compared']:.0%} known): MPJPE {of['mpjpe_mm']:.1f} mm, PA-MPJPE "
            f"{of['pa_mpjpe_mm']:.1f} mm, PCK 50 mm {of['pck_50mm']:.0%}, 150 mm {of['pck_150mm']:.0%}",
            f"  segments {of['segment_length_error_mm']:.1f} mm (SD {of['segment_length_error_sd_mm']:.1f}), "
            f"jitter {of['jitter_m_s2']:.1f} m/s²{seen}",
        ]
    spaces = dict.fromkeys(f"space {each.space.description}" for each in comparison.points.values())
    return lines + list(spaces)
