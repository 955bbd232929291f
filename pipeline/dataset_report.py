"""What a batch leaves: the dataset's table, and a page with mean curves and links to every report."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from filelock import FileLock
from jaxtyping import Float
from plotly.subplots import make_subplots

from pipeline.batch import JobResult
from pipeline.batch_plan import Plan
from pipeline.dataset_table import JOINTS, Repeated, write_table
from pipeline.errors import PipelineError
from pipeline.files import replacing_folder, reporting_disk_errors
from stages import ORDER
from stages.figures import SIDES, add_band, render_page

TABLE = "trials.parquet"
SHOWN = (
    "reprojection_error_at_the_person_median_mm",
    "inverse_kinematics_marker_error_rms_mean_mm",
    *(f"{joint}_{side}_range_deg" for joint in JOINTS for side, *_ in SIDES),
    "reference_lower_limb_rmse_deg",
)
"""Columns of the table that the page has too, where there are any."""

SubjectMeans = Float[np.ndarray, "subject 101"]


def table_of(plan: Plan, results: Sequence[JobResult]) -> pd.DataFrame:
    """A row per trial that was asked for, and per session that cannot be read."""
    rows = [
        {"session": each.session, "trial": each.trial, "status": "failed", "reason": each.reason}
        for each in plan.unreadable
    ]
    rows += [_row(result) for result in results if result.job.stages == ORDER]
    first = ["session", "trial", "activity", "status", "reason", "verdict", "notices"]
    table = pd.DataFrame(rows, columns=list(dict.fromkeys(first + [n for r in rows for n in r])))
    return table.sort_values(["session", "trial"], ignore_index=True)


def _row(result: JobResult) -> dict[str, str | float]:
    trial, failure = result.job.trial, result.failure
    row: dict[str, str | float] = {
        "session": result.job.session,
        "trial": trial.name,
        "activity": trial.activity,
        "status": failure.status if failure else "done",
        "reason": f"{failure.stage}: {failure.message}" if failure else "",
    }
    return row | (result.summary.row if result.summary else {})


def means_over_repetitions(
    trials: Sequence[tuple[str, Mapping[str, Repeated]]],
) -> dict[str, SubjectMeans]:
    """Each subject's mean curve over all repetitions in all of its trials, by coordinate.

    `trials` are the subject and the curves of each; a subject without repetitions is left out.
    """
    found: dict[str, dict[str, list[Repeated]]] = defaultdict(lambda: defaultdict(list))
    for subject, curves in trials:
        for name, curve in curves.items():
            found[name][subject].append(curve)
    return {
        name: np.array([
            np.average([each.mean for each in curves], axis=0, weights=[c.count for c in curves])
            for curves in subjects.values()
        ])
        for name, subjects in found.items()
    }  # fmt: skip


def draw_means(means: Mapping[str, SubjectMeans]) -> go.Figure:
    """Mean ± SD over subjects of the hip, knee and ankle (degrees), over a repetition."""
    figure = make_subplots(1, len(JOINTS), subplot_titles=list(JOINTS.values()))
    for column, joint in enumerate(JOINTS, start=1):
        for side, _, colour in SIDES:
            if f"{joint}_{side}" in means:
                add_band(figure, means[f"{joint}_{side}"], colour, row=1, column=column)
    figure.update_xaxes(title_text="% of the repetition")
    figure.update_yaxes(title_text="degrees", col=1)
    return figure.update_layout(height=360, template="simple_white", margin_t=40)


def means_by_activity(results: Sequence[JobResult]) -> dict[str, dict[str, SubjectMeans]]:
    """Subjects' mean curves by activity and coordinate; trials of verdict `bad` are left out."""
    trials = defaultdict(list)
    for result in results:
        summary = result.summary
        if summary and summary.curves and summary.row["verdict"] != "bad":
            activity = result.job.trial.activity
            trials[activity].append((result.job.session, summary.curves))
    return {activity: means_over_repetitions(trials[activity]) for activity in sorted(trials)}


def _page(plan: Plan, results: Sequence[JobResult], table: pd.DataFrame, out: Path) -> str:
    links = {}
    for result in results:
        if result.summary:
            report = result.job.trial.folder("report") / "report.html"
            relative = Path(os.path.relpath(report, out)).as_posix()
            links[result.job.session, result.job.trial.name] = quote(relative)
    activities = [
        (activity, draw_means(means), {label: len(means.get(f"knee_angle_{side}", ())) for side, label, _ in SIDES})
        for activity, means in means_by_activity(results).items()
    ]  # fmt: skip
    return render_page(
        "dataset.html.j2",
        dataset=plan.dataset.resolve().name,
        table=table.fillna({"activity": "", "verdict": ""}),
        shown=[name for name in SHOWN if name in table],
        links=links,
        activities=activities,
        left_out=int((table.verdict == "bad").sum()),
    )


def check_out(folder: Path) -> None:
    """Raise PipelineError for a folder that holds anything but an earlier batch's results."""
    if folder.exists() and not folder.is_dir():
        raise PipelineError(f"{folder} is a file; choose a folder with --out")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / TABLE).exists():
        raise PipelineError(
            f"{folder} holds other files and would be replaced. Choose another folder with --out."
        )


def write_dataset(plan: Plan, results: Sequence[JobResult], out: Path) -> pd.DataFrame:
    """Write table, page, and what is to be reported of our own mistakes; return the table."""
    table = table_of(plan, results)
    page = _page(plan, results, table, out)
    with reporting_disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(out.with_name(f".{out.name}.lock")), replacing_folder(out) as folder:
            write_table(table, folder)
            (folder / "dataset.html").write_text(page, encoding="utf-8")
            for unit in (unit for result in results for unit in result.units if unit.traceback):
                log = folder / "internal_errors" / f"{unit.trial}/{unit.stage}.log"
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_text(unit.traceback, encoding="utf-8")
    return table
