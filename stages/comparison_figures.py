"""Figures of two recordings' joint angles: over time, and how far they agree."""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from stages.compare import AngleComparison
from stages.figures import with_menu
from stages.recordings import in_common

AGREEING = [f"{joint}_{side}" for joint in ("knee_angle", "ankle_angle") for side in "rl"]
FIRST = [*AGREEING, "hip_flexion_r", "hip_flexion_l"]
RESULT_COLOUR, REFERENCE_COLOUR = "#c1272d", "#222222"


def figures_of(angles: AngleComparison) -> dict[str, go.Figure]:
    """Figures by title, of the coordinates that there are."""
    first = in_common(FIRST, angles.result)
    agreeing = in_common(AGREEING, first)
    others = [name for name in angles.result if name not in {*first, *angles.still}]
    wanted = (
        ("Knee, ankle and hip", curves_figure, first),
        ("Other coordinates", menu_figure, others),
        ("Agreement of knee and ankle (Bland and Altman)", agreement_figure, agreeing),
    )
    return {title: draw(angles, names) for title, draw, names in wanted if names}


def _panels(names: Sequence[str], height_px: int):
    """A figure with a panel a coordinate, two in a row, and each one's place in it."""
    rows = (len(names) + 1) // 2
    gap = 80 / (height_px * rows)  # room for the axis' title, and for the next panel's
    figure = make_subplots(rows, 2, subplot_titles=names, vertical_spacing=gap)
    height, margin = height_px * rows + 120, {"t": 60, "b": 60}
    figure.update_layout(height=height, template="simple_white", margin=margin)
    return figure, {name: {"row": i // 2 + 1, "col": i % 2 + 1} for i, name in enumerate(names)}


def curves_figure(angles: AngleComparison, names: Sequence[str]) -> go.Figure:
    """Result and reference over time, a panel a coordinate, right and left side by side."""
    figure, places = _panels(names, 240)
    for name, place in places.items():
        for trace in _curves(angles, name):
            figure.add_trace(trace.update(showlegend=name == names[0]), **place)
    figure.update_xaxes(title_text="time (s)", title_standoff=5, matches="x")
    figure.update_yaxes(title_text="degrees")
    return figure.update_layout(hovermode="x unified")


def menu_figure(angles: AngleComparison, names: Sequence[str]) -> go.Figure:
    """Result and reference over time, one coordinate shown at a time by a menu."""
    return with_menu({name: _curves(angles, name) for name in names}, angles.table.unit)


def _curves(angles: AngleComparison, name: str) -> list[go.Scatter]:
    sides = (
        (angles.reference, "reference", {"color": REFERENCE_COLOUR, "dash": "dash"}),
        (angles.result, "result", {"color": RESULT_COLOUR}),
    )
    return [
        go.Scatter(x=side.index, y=side[name], name=label, legendgroup=label, line=line)
        for side, label, line in sides
    ]


def agreement_figure(angles: AngleComparison, names: Sequence[str]) -> go.Figure:
    """Difference over mean of both, with bias and limits of agreement (Bland and Altman, 1986)."""
    figure, places = _panels(names, 320)
    for name, place in places.items():
        result, reference = angles.result[name], angles.reference[name]
        figure.add_scatter(
            x=(result + reference) / 2, y=result - reference, mode="markers", showlegend=False,
            marker={"size": 3, "color": RESULT_COLOUR, "opacity": 0.5}, **place,
        )  # fmt: skip
        for key, dash in (("bias", "solid"), ("limit_low", "dot"), ("limit_high", "dot")):
            height = angles.table.loc[name, key]
            text = f"{key.replace('_', ' ')} {height:.1f}°"
            figure.add_hline(
                height, line_dash=dash, line_width=1, annotation_text=text,
                annotation_bgcolor="rgba(255,255,255,0.8)", **place,
            )  # fmt: skip
    figure.update_xaxes(title_text="mean of result and reference (°)", title_standoff=5)
    return figure.update_yaxes(title_text="result − reference (°)")
