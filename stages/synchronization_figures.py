"""Figures and rows of the synchronisation, for the report."""

import plotly.graph_objects as go
import xarray as xr

from stages.clocks import ERRORS

WORDS = {
    "given": "given by the session",
    "reference": "the session's clock",
    "estimated": "found from the movement",
    "unverified": "found from the movement; too short to verify",
    "own": "its own, not verified",
}


def clock_rows(keypoints: xr.Dataset) -> list[dict[str, str]]:
    """A row for each camera: its clock, its uncertainty and where it comes from."""
    rows = []
    for name in keypoints.camera.values:
        view = keypoints.sel(camera=name)
        known = str(view.clock_source.values) in ("estimated", "unverified")
        ppm = 1e6 * (float(view.clock_rate) - 1)
        rows.append(
            {
                "camera": str(name),
                "offset": f"{float(view.clock_offset):+.4f}",
                "uncertainty": f"{1000 * ERRORS * float(view.clock_uncertainty):.1f}"
                if known
                else "",
                "rate": f"{ppm:+.0f}" if ppm else "",
                "source": WORDS[str(view.clock_source.values)],
            }
        )
    return rows


def agreement_curves(evidence: xr.Dataset) -> go.Figure:
    """Agreement of each camera with the others over its clock's offset, and what was used."""
    figure = go.Figure()
    for camera in evidence.camera.values:
        view = evidence.sel(camera=camera)
        figure.add_scatter(x=view.offset, y=view.agreement, name=str(camera))
        figure.add_vline(x=float(view.clock_offset), line_width=1, line_dash="dot")
    return figure.update_layout(
        height=340, template="simple_white", margin_t=30,
        xaxis_title="seconds added to the camera's own clock",
        yaxis_title="agreement with the other cameras",
    )  # fmt: skip
