"""Evaluation: find what belongs together, compare it, and write tables and a page of figures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader
from jinja2.utils import markupsafe
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots
from rich.table import Table

from calibration.readers import read_file
from pipeline.errors import PipelineError
from pipeline.files import replacing_folder, reporting_disk_errors
from pipeline.session import activity_of
from stages.compare import (
    IDENTITY,
    AngleComparison,
    Comparison,
    Recording,
    Space,
    read_angles,
    read_points,
    read_space,
)

ANGLE_FILES = ("09_kinematics/angles.mot", "angles.mot")
POINT_FILES = {
    "markers": ("08_export/markers.trc", "markers.trc"),
    "keypoints": ("06_smooth/points.nc", "keypoints.trc"),
}
CAMERA_FILE = "cameras.toml"
"""Where a folder of results, or of truth, keeps what can be compared."""
WITH_UNIT = ("rmse", "mae", "bias", "max", "limit_low", "limit_high", "range_error")
"""Figures in the unit of their coordinate; the others have none."""
FIRST = ("knee_angle", "ankle_angle", "hip_flexion")
RESULT_COLOUR, REFERENCE_COLOUR = "#c1272d", "#222222"

Compare = Callable[[Recording, Recording], Comparison]


def parse_lag(text: str) -> float | None:
    """Return the lag in seconds, or None to find it."""
    try:
        seconds = None if text == "auto" else float(text)
    except ValueError:
        seconds = np.nan
    if seconds is not None and not np.isfinite(seconds):
        raise PipelineError(
            f"--lag {text}: expected auto, 0, or how many seconds the result is late"
        )
    return seconds


def parse_space(text: str) -> Space | None:
    """Return the transform between the worlds, or None to fit a rigid one."""
    if text in ("identity", "rigid"):
        return IDENTITY if text == "identity" else None
    if not Path(text).is_file():
        raise PipelineError(
            f"--space {text}: expected identity, rigid, or a file such as mocapToVideoTransform.yaml"
        )
    return read_space(Path(text))


def is_session(path: Path) -> bool:
    """Whether a folder is a session whose truth is known."""
    return (path / "truth").is_dir()


def read_recording(path: Path) -> Recording:
    """Read a .mot file, a .trc file, or what a folder of results or truth has of both.

    Raises PipelineError if there is nothing to compare.
    """
    suffix = path.suffix.lower()
    if path.is_file() and suffix == ".mot":
        return Recording(str(path), read_angles(path), {})
    if path.is_file() and suffix == ".trc":
        return Recording(str(path), None, {"points": read_points(path)})
    if not path.is_dir():
        what = "is no .mot file, .trc file or folder" if path.exists() else "does not exist"
        raise PipelineError(
            f"{path} {what}. Give a trial's results folder, a folder with {ANGLE_FILES[-1]} or "
            "markers.trc, or such a file."
        )
    angles = _first(path, ANGLE_FILES)
    points = {kind: _first(path, names) for kind, names in POINT_FILES.items()}
    points = {kind: read_points(file) for kind, file in points.items() if file}
    if not angles and not points:
        listed = ", ".join(
            [*ANGLE_FILES, *(name for names in POINT_FILES.values() for name in names)]
        )
        raise PipelineError(f"{path} has none of {listed}. Run the trial first, or give a file.")
    cameras = path / CAMERA_FILE
    known = tuple(each.in_y_up_world() for each in read_file(cameras)) if cameras.exists() else ()
    return Recording(str(path), read_angles(angles) if angles else None, points, known)


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def evaluate_pair(result: Path, reference: Path, out: Path | None, compare: Compare):
    """Compare two recordings and write the files; return the comparison and its folder."""
    folder = out or (result / "comparison" if result.is_dir() else Path("comparison"))
    check_out(folder)
    comparison = compare(read_recording(result), read_recording(reference))
    write(comparison, folder)
    return comparison, folder


def trials_with_truth(session: Path) -> dict[str, tuple[Path, Path]]:
    """Results and truth by trial. Raises PipelineError if no trial has both."""
    truths = sorted(path.name for path in (session / "truth").iterdir() if path.is_dir())
    pairs = {name: (session / "results" / name, session / "truth" / name) for name in truths}
    pairs = {name: pair for name, pair in pairs.items() if pair[0].is_dir()}
    if not pairs:
        raise PipelineError(
            f"no trial of {session} has results: its truth is of {', '.join(truths) or 'no trial'}. "
            f"Run them first: pipeline run {session}"
        )
    return pairs


def summary_of(comparison: Comparison) -> dict[str, float]:
    """The figures of a whole trial, each named with its unit."""
    alignment = comparison.alignment
    row = {"lag_ms": alignment.lag_s * 1000, "lag_correlation": alignment.correlation}
    if comparison.angles:
        unitless = ("correlation", "multiple_correlation", "count")
        for name, value in comparison.angles.lower_limb.items():
            row[f"lower_limb_{name}{'' if name in unitless else '_deg'}"] = value
    for kind, points in comparison.points.items():
        prefix = "" if kind == "points" else f"{kind}_"
        row |= {f"{prefix}{name}": value for name, value in points.overall.items()}
    return row


def averages(trials: pd.DataFrame) -> pd.DataFrame:
    """Means of trials by action and by subject, and over all: the mean of the actions' means.

    `trials` has columns `subject`, `trial`, `action` and figures. This is Human3.6M's protocol
    (Ionescu et al., IEEE TPAMI 36, 2014): every action counts the same, however often it was done.
    A figure that a trial lacks is left out of the mean.
    """
    figures = trials.drop(columns=["subject", "trial", "action"])
    parts = []
    for by in ("action", "subject"):
        groups = figures.groupby(trials[by])
        means = groups.mean()
        means.insert(0, "trials", groups.size())
        parts.append(means.rename_axis("name").reset_index().assign(by=by))
    overall = parts[0].drop(columns=["name", "by", "trials"]).mean().to_frame().T
    parts.append(overall.assign(by="all", name="mean over actions", trials=len(trials)))
    table = pd.concat(parts, ignore_index=True)
    return table[["by", "name", "trials", *figures.columns]]


def evaluate_sessions(
    sessions: list[Path], out: Path | None, compare: Compare, tell: Callable[[str, object], None]
) -> tuple[pd.DataFrame, list[str], Path]:
    """Compare every trial that has results and truth; one that fails does not stop the others.

    Each trial's files go beside its results, the averages to `out`. `tell(trial, outcome)` is given
    each comparison or PipelineError. Returns the averages, the names of
    trials that failed, and the averages' folder.
    """
    folder = out or (sessions[0] if len(sessions) == 1 else Path()) / "comparison"
    check_out(folder)
    rows, failed = [], []
    for session in sessions:
        subject = session.resolve().name
        for name, (result, truth) in trials_with_truth(session).items():
            try:
                comparison, _ = evaluate_pair(result, truth, None, compare)
            except PipelineError as error:
                tell(f"{subject}/{name}", error)
                failed.append(f"{subject}/{name}")
                continue
            tell(f"{subject}/{name}", comparison)
            rows.append({"subject": subject, "trial": name, "action": activity_of(name)})
            rows[-1] |= summary_of(comparison)
    if not rows:
        raise PipelineError("no trial could be compared; see the errors above")
    trials = pd.DataFrame(rows)
    means = averages(trials)
    with reporting_disk_errors(folder), replacing_folder(folder) as temporary:
        write_tables({"trials": trials, "averages": means}, temporary)
    return means, failed, folder


def check_out(folder: Path) -> None:
    """Raise PipelineError for a folder that holds anything but an earlier comparison."""
    if folder.exists() and not folder.is_dir():
        raise PipelineError(f"{folder} is a file; choose a folder with --out")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "comparison.xlsx").exists():
        raise PipelineError(
            f"{folder} holds other files and would be replaced. Choose another folder with --out."
        )


def tables_of(comparison: Comparison) -> dict[str, pd.DataFrame]:
    """Every table of a comparison, by name; the header of every column names its unit."""
    tables = {"summary": pd.DataFrame([summary_of(comparison)])}
    if angles := comparison.angles:
        for name, unit in (("angles", "deg"), ("translations", "mm")):
            rows = angles.table[angles.table.unit == unit].drop(columns="unit").reset_index()
            tables[name] = _named_with(rows, unit)
        tables["repetitions"] = _named_with(angles.repetitions, "deg")
    for name in ("table", "segments"):
        parts = [
            getattr(points, name).reset_index().assign(kind=kind)
            for kind, points in comparison.points.items()
        ]
        if parts:
            tables["points" if name == "table" else name] = pd.concat(parts, ignore_index=True)
    return tables


def _named_with(table: pd.DataFrame, unit: str) -> pd.DataFrame:
    return table.rename(columns={name: f"{name}_{unit}" for name in WITH_UNIT})


def write_tables(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """Write each table as CSV, and all as sheets of `comparison.xlsx`."""
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    with pd.ExcelWriter(folder / "comparison.xlsx", engine="openpyxl") as book:
        for name, table in tables.items():
            table.to_excel(book, sheet_name=name, index=False, freeze_panes=(1, 1))


def write(comparison: Comparison, folder: Path) -> None:
    """Write tables and page into a folder of their own."""
    tables = tables_of(comparison)
    environment = Environment(loader=PackageLoader("stages", "."), autoescape=True)
    figures = []
    if angles := comparison.angles:
        joints = [f"{joint}_{side}" for joint in FIRST for side in "rl"]
        first = [name for name in joints if name in angles.result]
        others = [name for name in angles.result if name not in first]
        agreeing = [name for name in first if not name.startswith("hip")]
        wanted = (
            ("Knee, ankle and hip", curves_figure, first),
            ("Other coordinates", menu_figure, others),
            ("Agreement of knee and ankle (Bland and Altman)", agreement_figure, agreeing),
        )
        figures = [
            (title, _embedded(draw(angles, names))) for title, draw, names in wanted if names
        ]
    html = environment.get_template("comparison.html.j2").render(
        plotly_js=markupsafe.Markup(get_plotlyjs()),
        comparison=comparison,
        figures=figures,
        tables={name: table.map(_cell) for name, table in tables.items() if len(table)},
    )
    with reporting_disk_errors(folder), replacing_folder(folder) as temporary:
        write_tables(tables, temporary)
        (temporary / "comparison.html").write_text(html, encoding="utf-8")


def _embedded(figure: go.Figure) -> markupsafe.Markup:
    return markupsafe.Markup(figure.to_html(full_html=False, include_plotlyjs=False))


def _cell(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else ""
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:.3f}"
    return str(value)


def curves_figure(angles: AngleComparison, names: list[str]) -> go.Figure:
    """Result and reference over time, a panel a coordinate, right and left side by side."""
    rows = (len(names) + 1) // 2
    figure = make_subplots(rows, 2, subplot_titles=names, shared_xaxes=True, vertical_spacing=0.08)
    for index, name in enumerate(names):
        place = {"row": index // 2 + 1, "col": index % 2 + 1}
        for trace in _pair_of_curves(angles, name):
            figure.add_trace(trace.update(showlegend=index == 0), **place)
        figure.update_yaxes(title_text="degrees", **place)
    figure.update_xaxes(title_text="time (s)", row=rows)
    return figure.update_layout(
        height=240 * rows + 80, template="simple_white", hovermode="x unified", margin_t=50
    )


def _pair_of_curves(angles: AngleComparison, name: str) -> list[go.Scatter]:
    sides = (
        (angles.reference, "reference", {"color": REFERENCE_COLOUR, "dash": "dash"}),
        (angles.result, "result", {"color": RESULT_COLOUR}),
    )
    return [
        go.Scatter(x=side.index, y=side[name], name=label, legendgroup=label, line=line)
        for side, label, line in sides
    ]


def menu_figure(angles: AngleComparison, names: list[str]) -> go.Figure:
    """Result and reference over time, one coordinate shown at a time by a menu."""
    figure, buttons = go.Figure(), []
    titles = [f"{name} ({angles.table.unit[name]})" for name in names]
    for position, (name, title) in enumerate(zip(names, titles, strict=True)):
        figure.add_traces([
            trace.update(visible=position == 0) for trace in _pair_of_curves(angles, name)
        ])  # fmt: skip
        shown = [each == position for each in range(len(names)) for _ in range(2)]
        arguments = [{"visible": shown}, {"yaxis.title.text": title}]
        buttons.append({"label": name, "method": "update", "args": arguments})
    return figure.update_layout(
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.18, "yanchor": "top"}],
        height=380, template="simple_white", xaxis_title="time (s)", yaxis_title=titles[0],
    )  # fmt: skip


def agreement_figure(angles: AngleComparison, names: list[str]) -> go.Figure:
    """Difference over mean of both, with bias and limits of agreement (Bland and Altman, 1986)."""
    rows = (len(names) + 1) // 2
    figure = make_subplots(rows, 2, subplot_titles=names, vertical_spacing=0.16)
    for index, name in enumerate(names):
        place = {"row": index // 2 + 1, "col": index % 2 + 1}
        result, reference = angles.result[name], angles.reference[name]
        figure.add_scatter(
            x=(result + reference) / 2, y=result - reference, mode="markers", showlegend=False,
            marker={"size": 3, "color": RESULT_COLOUR, "opacity": 0.5}, **place,
        )  # fmt: skip
        for figure_name, dash in (("bias", "solid"), ("limit_low", "dot"), ("limit_high", "dot")):
            height = angles.table.loc[name, figure_name]
            text = f"{figure_name.replace('_', ' ')} {height:.1f}°"
            figure.add_hline(y=height, line_dash=dash, line_width=1, annotation_text=text, **place)
        figure.update_xaxes(title_text="mean of result and reference (°)", **place)
        figure.update_yaxes(title_text="result - reference (°)", **place)
    return figure.update_layout(height=320 * rows, template="simple_white", margin_t=50)


def coordinates_table(angles: AngleComparison) -> Table:
    """The coordinates' figures for the terminal."""
    headers = "coordinate unit RMSE MAE bias max r CMC".split() + ["ROM error", "limits"]
    table = Table(*headers, box=None, caption="* depends on the world frame; in no average")
    table.columns[0].no_wrap = True
    for name, row in angles.table.iterrows():
        values = [_rounded(row[key], 1) for key in ("rmse", "mae", "bias", "max")]
        values += [_rounded(row[key], 3) for key in ("correlation", "multiple_correlation")]
        limits = f"{_rounded(row.limit_low, 1)} … {_rounded(row.limit_high, 1)}"
        label = f"{name} *" if row.world_frame else name
        unit = {"deg": "°", "mm": "mm"}[row.unit]
        table.add_row(label, unit, *values, _rounded(row.range_error, 1), limits)
    return table


def _rounded(value: float, digits: int) -> str:
    """Text without a minus before zero, and empty for NaN."""
    return "" if np.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"


def averages_table(means: pd.DataFrame) -> Table:
    """The main averages for the terminal; figures that no trial has are left out."""
    wanted = {
        "lower_limb_rmse_deg": "RMSE (°)",
        "lower_limb_mae_deg": "MAE (°)",
        "lower_limb_correlation": "r",
        "markers_mpjpe_mm": "markers MPJPE (mm)",
        "keypoints_mpjpe_mm": "keypoints MPJPE (mm)",
    }
    shown = {key: header for key, header in wanted.items() if key in means}
    table = Table("by", "name", "trials", *shown.values(), box=None)
    for _, row in means.iterrows():
        values = [f"{row[key]:.3f}" if "corr" in key else f"{row[key]:.1f}" for key in shown]
        table.add_row(row.by, row["name"], str(row.trials), *values)
    return table


def lines_of(comparison: Comparison) -> list[str]:
    """What the terminal says of a comparison besides its table."""
    alignment = comparison.alignment
    known = not np.isnan(alignment.correlation)
    rests = f", correlation {alignment.correlation:.3f}" if known else ""
    lines = [f"lag {alignment.lag_s * 1000:+.1f} ms ({alignment.description}{rests})"]
    if angles := comparison.angles:
        mean = angles.lower_limb
        lines.append(
            f"mean over {mean['count']:.0f} lower-limb rotations: RMSE {mean.rmse:.1f}°, MAE "
            f"{mean.mae:.1f}°, r {mean.correlation:.3f}, CMC {mean.multiple_correlation:.3f}"
        )
    for kind, points in comparison.points.items():
        of = points.overall
        seen = f", reprojection {of['reprojection_px']:.1f} px" if "reprojection_px" in of else ""
        lines.append(
            f"{kind} ({len(points.table)}): MPJPE {of['mpjpe_mm']:.1f} mm, PA-MPJPE "
            f"{of['pa_mpjpe_mm']:.1f} mm, PCK 50 mm {of['pck_50mm']:.0%}, 150 mm "
            f"{of['pck_150mm']:.0%}, segments {of['segment_length_error_mm']:.1f} mm (SD "
            f"{of['segment_length_sd_mm']:.1f}), jitter {of['jitter_m_s2']:.1f} m/s²{seen}; space "
            f"{points.space.description}"
        )
    return lines
