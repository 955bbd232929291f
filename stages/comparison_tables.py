"""Tables of a comparison, as CSV and as a workbook. The same numbers make the same bytes."""

import io
import re
import zipfile
from pathlib import Path

import pandas as pd

from pipeline.files import replacing
from stages.comparison import Comparison

WITH_UNIT = ("rmse", "mae", "bias", "max", "limit_low", "limit_high", "range_error")
"""Figures in the unit of their coordinate; the others have none."""
NO_TIME = (1980, 1, 1, 0, 0, 0)
"""Of files in a workbook: the earliest that a ZIP archive may say."""


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
    write_workbook(tables, folder / "comparison.xlsx")


def write_workbook(tables: dict[str, pd.DataFrame], path: Path) -> None:
    """Write tables as the sheets of an Excel file, without the time at which it was made."""
    made = io.BytesIO()
    with pd.ExcelWriter(made, engine="openpyxl") as book:
        for name, table in tables.items():
            table.to_excel(book, sheet_name=name, index=False, freeze_panes=(1, 1))
    with replacing(path) as temporary, zipfile.ZipFile(made) as source:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as target:
            for name in source.namelist():
                content = source.read(name)
                if name == "docProps/core.xml":
                    content = re.sub(rb"<dcterms:(created|modified).*?</dcterms:\1>", b"", content)
                entry = zipfile.ZipInfo(name, NO_TIME)
                target.writestr(entry, content, zipfile.ZIP_DEFLATED)
