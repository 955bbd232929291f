"""Figures of joint angles: interactive for the report, static for papers."""

from collections.abc import Mapping
from itertools import count
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from jinja2 import Environment, PackageLoader
from jinja2.utils import markupsafe
from matplotlib.figure import Figure
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from stages.series import stretches

RIGHT, LEFT = "#c1272d", "#0072b2"
SIDES = (("r", "right", RIGHT), ("l", "left", LEFT))
JOINTS = (("knee_angle", "Knee flexion"), ("ankle_angle", "Ankle dorsiflexion"))
PERCENT = np.linspace(0, 100, 101)

matplotlib.rcParams["pdf.fonttype"] = 42  # text stays text in a journal's PDF


def knee_and_ankle(
    angles: pd.DataFrame,
    cycles: Mapping[str, np.ndarray],
    deviation: pd.DataFrame | None = None,
) -> go.Figure:
    """Knee and ankle over time, and per repetition where there are any (degrees).

    With standard deviations of the same samples, a band of one around the curves over time.
    """
    columns = 2 if any(len(curves) for curves in cycles.values()) else 1
    titles = [
        t
        for _, j in JOINTS
        for t in (f"{j} over time", f"{j}, mean ± SD over repetitions")[:columns]
    ]
    figure = make_subplots(
        2, columns, subplot_titles=titles, horizontal_spacing=0.08, vertical_spacing=0.14
    )
    for row, (joint, _) in enumerate(JOINTS, start=1):
        for side, label, colour in SIDES:
            name = f"{joint}_{side}"
            if deviation is not None and name in deviation:
                for part in stretches(deviation[name].notna().to_numpy()):
                    own, spread = angles[name].iloc[part], deviation[name].iloc[part]
                    add_spread(figure, own.index, own, spread, colour, row, column=1)
            figure.add_scatter(
                x=angles.index, y=angles[name], name=label, legendgroup=side, showlegend=row == 1,
                line_color=colour, row=row, col=1, hovertemplate="%{y:.1f}° at %{x:.2f} s",
            )  # fmt: skip
            if columns == 2 and len(cycles.get(name, ())):
                add_band(figure, cycles[name], colour, row, column=2)
        figure.update_yaxes(title_text="degrees", row=row, col=1)
    figure.update_xaxes(title_text="time (s)", row=2, col=1)
    if columns == 2:
        figure.update_xaxes(title_text="% of the repetition", row=2, col=2)
    return figure.update_layout(
        height=640, template="simple_white", hovermode="x unified", margin_t=50
    )


def add_band(
    figure: go.Figure, curves: Float[np.ndarray, "curve 101"], colour: str, row: int, column: int
) -> None:
    """Draw the mean of curves over 0 to 100 % of a repetition, and a band of one SD around it."""
    mean, spread = curves.mean(0), curves.std(0, ddof=1) if len(curves) > 1 else np.zeros(101)
    add_spread(figure, PERCENT, mean, spread, colour, row, column)
    figure.add_scatter(x=PERCENT, y=mean, line_color=colour, showlegend=False, row=row, col=column)


def add_spread(figure: go.Figure, x, mean, spread, colour: str, row: int, column: int) -> None:
    """Draw a band of one standard deviation around a curve (each of as many values)."""
    x, mean, spread = (np.asarray(values, float) for values in (x, mean, spread))
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    figure.add_scatter(
        x=np.r_[x, x[::-1]], y=np.r_[mean + spread, (mean - spread)[::-1]], fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.15)", line_width=0, hoverinfo="skip", showlegend=False,
        row=row, col=column,
    )  # fmt: skip


def all_coordinates(angles: pd.DataFrame, units: Mapping[str, str]) -> go.Figure:
    """Every coordinate over time, one shown at a time by a menu."""
    curves = {
        name: [go.Scatter(x=angles.index, y=angles[name], name=name, line_color="#444")]
        for name in angles
    }
    return with_menu(curves, units).update_layout(showlegend=False)


def with_menu(curves: Mapping[str, list[go.Scatter]], units: Mapping[str, str]) -> go.Figure:
    """Curves over time by coordinate, those of one shown at a time by a menu."""
    figure, buttons = go.Figure(), []
    owners = np.repeat(list(curves), [len(traces) for traces in curves.values()])
    titles = {name: f"{name} ({units[name]})" for name in curves}
    first = next(iter(curves))
    for name, traces in curves.items():
        figure.add_traces([trace.update(visible=name == first) for trace in traces])
        arguments = [{"visible": (owners == name).tolist()}, {"yaxis.title.text": titles[name]}]
        buttons.append({"label": name, "method": "update", "args": arguments})
    return figure.update_layout(
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.18, "yanchor": "top"}],
        height=380, template="simple_white", xaxis_title="time (s)", yaxis_title=titles[first],
    )  # fmt: skip


def save_for_papers(
    angles: pd.DataFrame, cycles: Mapping[str, np.ndarray], png: Path, pdf: Path
) -> None:
    """Write the knee and ankle figure as PNG (300 dpi) and PDF, two columns wide."""
    columns = 2 if any(len(curves) for curves in cycles.values()) else 1
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False, sharex="col")
    for row, (joint, title) in enumerate(JOINTS):
        for side, label, colour in SIDES:
            name = f"{joint}_{side}"
            axes[row, 0].plot(angles.index, angles[name], color=colour, label=label, linewidth=1.2)
            if columns == 2 and len(curves := cycles.get(name, ())):
                mean = curves.mean(0)
                spread = curves.std(0, ddof=1) if len(curves) > 1 else 0 * mean
                axes[row, 1].plot(PERCENT, mean, color=colour, linewidth=1.2)
                axes[row, 1].fill_between(
                    PERCENT, mean - spread, mean + spread, color=colour, alpha=0.15
                )
        axes[row, 0].set_ylabel(f"{title} (°)")
        for axis in axes[row]:
            axis.axhline(0, color="0.8", linewidth=0.6, zorder=0)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False, ncols=2)
    axes[1, 0].set_xlabel("time (s)")
    if columns == 2:
        axes[1, 1].set_xlabel("% of the repetition (mean ± SD)")
    figure.savefig(png, dpi=300)
    figure.savefig(pdf, metadata={"CreationDate": None})  # the same curves make the same bytes


def render_page(template: str, **content: object) -> str:
    """Render a page of `stages/` that opens offline; its template embeds figures by `| embedded`."""
    environment = Environment(loader=PackageLoader("stages", "."), autoescape=True)
    numbers, page = count(1), template.partition(".")[0]
    environment.filters["embedded"] = lambda figure: markupsafe.Markup(
        figure.to_html(False, include_plotlyjs=False, div_id=f"{page}-{next(numbers)}")
    )
    plotly_js = markupsafe.Markup(get_plotlyjs())
    return environment.get_template(template).render(plotly_js=plotly_js, **content)
