"""Files of an evaluation: tables as CSV and workbook, and a page of figures."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.files import replacing_folder, reporting_disk_errors
from stages.comparison import Comparison
from stages.comparison_figures import figures_of
from stages.figures import render_page

WITH_UNIT = ("rmse", "mae", "bias", "max", "limit_low", "limit_high", "range_error")
"""Figures in the unit of their coordinate; the others have none."""


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
    means = {
        by: figures.groupby(trials[by]).mean().assign(trials=trials.groupby(by).size())
        for by in ("action", "subject")
    }
    means["all"] = means["action"].mean().to_frame("mean over actions").T
    means["all"]["trials"] = len(trials)
    table = pd.concat(means, names=["by", "name"]).reset_index()
    return table[["by", "name", "trials", *figures.columns]]


def tables_of(comparison: Comparison) -> dict[str, pd.DataFrame]:
    """Every table of a comparison, by name; the header of every column names its unit."""
    tables = {"summary": pd.DataFrame([summary_of(comparison)])}
    if angles := comparison.angles:
        for name, unit in (("angles", "deg"), ("translations", "mm")):
            rows = angles.table[angles.table.unit == unit].drop(columns="unit").reset_index()
            tables[name] = _named_with(rows, unit)
        if len(angles.repetitions):
            tables["repetitions"] = _named_with(angles.repetitions, "deg")
    for name, attribute in (("points", "table"), ("segments", "segments")):
        if comparison.points:
            parts = {kind: getattr(each, attribute) for kind, each in comparison.points.items()}
            tables[name] = pd.concat(parts, names=["kind"]).reset_index()
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
    figures = tables["summary"].astype(object).iloc[0]  # counts stay whole
    shown = tables | {"summary": figures.rename_axis("figure").reset_index(name="value")}
    html = render_page(
        "comparison.html.j2",
        comparison=comparison,
        figures=figures_of(comparison.angles) if comparison.angles else {},
        tables={name: table.map(_cell) for name, table in shown.items() if len(table)},
    )
    with reporting_disk_errors(folder), replacing_folder(folder) as temporary:
        write_tables(tables, temporary)
        (temporary / "comparison.html").write_text(html, encoding="utf-8")


def _cell(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else ""
    return rounded(value, 3) if isinstance(value, float | np.floating) else str(value)


def rounded(value: float, digits: int) -> str:
    """Text without a minus before zero, and empty for NaN."""
    return "" if np.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"
