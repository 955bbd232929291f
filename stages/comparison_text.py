"""A comparison in words and rounded figures, for the terminal and for pages."""

import numpy as np
import pandas as pd

from stages.compare import LOWER_LIMB, AngleComparison
from stages.comparison import Comparison
from stages.recordings import in_common

FIGURES = {
    "rmse": ("RMSE", 1), "mae": ("MAE", 1), "bias": ("bias", 1), "max": ("max", 1),
    "correlation": ("r", 3), "range_error": ("ROM error", 1),
}  # fmt: skip
"""Headers and digits of a coordinate's figures."""


def moving_coordinates(angles: AngleComparison) -> pd.DataFrame:
    """Figures of the coordinates that move: the legs', the pelvis's, then the others in their order."""
    known = angles.table.index
    first = [*in_common(LOWER_LIMB, known), *known[angles.table.world_frame]]
    return angles.table.loc[list(dict.fromkeys([*first, *known]))].drop(angles.still)


def lines_of(comparison: Comparison) -> list[str]:
    """What is said of a comparison besides its table."""
    lines = [str(comparison.alignment)]
    if (angles := comparison.angles) and angles.lower_limb["count"]:
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


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """A table for reading: three digits, and nothing where nothing is known."""
    return table.map(_cell)


def _cell(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else ""
    return rounded(value, 3) if isinstance(value, float | np.floating) else str(value)


def rounded(value: float, digits: int) -> str:
    """Text without a minus before zero, and empty for NaN."""
    return "" if np.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"
