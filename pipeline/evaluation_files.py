"""Files of an evaluation: tables, a page of figures, and averages over trials."""

from pathlib import Path

import pandas as pd

from pipeline.files import replacing_folder, reporting_disk_errors
from stages.comparison import Comparison
from stages.comparison_figures import figures_of
from stages.comparison_tables import tables_of, write_tables
from stages.comparison_text import as_text
from stages.figures import render_page


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


def write(comparison: Comparison, folder: Path) -> None:
    """Write tables and page into a folder of their own."""
    tables = tables_of(comparison)
    figures = tables["summary"].astype(object).iloc[0]  # counts stay whole
    shown = tables | {"summary": figures.rename_axis("figure").reset_index(name="value")}
    html = render_page(
        "comparison.html.j2",
        comparison=comparison,
        figures=figures_of(comparison.angles) if comparison.angles else {},
        tables={name: as_text(table) for name, table in shown.items() if len(table)},
    )
    with reporting_disk_errors(folder), replacing_folder(folder) as temporary:
        write_tables(tables, temporary)
        (temporary / "comparison.html").write_text(html, encoding="utf-8")
