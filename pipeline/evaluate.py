"""Evaluation: find what belongs together, compare it, and average over trials."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config import activity_defaults
from pipeline.errors import PipelineError
from pipeline.evaluation_files import averages, write
from pipeline.files import replacing_folder, reporting_disk_errors
from pipeline.session import activity_of, is_static
from stages.compare import Repetitions
from stages.comparison import Comparison
from stages.comparison_tables import summary_of, write_tables
from stages.recordings import IDENTITY, Space, read_recording, read_space


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


def evaluate_pair(
    result: Path, reference: Path, out: Path | None, compare: Callable[..., Comparison]
):
    """Compare two recordings and write the files; return the comparison and its folder."""
    folder = out or (result / "comparison" if result.is_dir() else Path("comparison"))
    check_out(folder)
    sides = read_recording(result), read_recording(reference)
    comparison = compare(*sides, repetitions=repetitions_in(result))
    write(comparison, folder)
    return comparison, folder


def repetitions_in(result: Path) -> Repetitions:
    """What a repetition is: what the activity of a session's trial says, else a knee bend."""
    folder = result.resolve()
    in_session = folder.is_dir() and folder.parent.name == "results"
    settings = activity_defaults(activity_of(folder.name)) if in_session else {}
    return settings.get("report", {}).get("repetitions", "knee bends")


def trials_with_truth(session: Path) -> dict[str, tuple[Path, Path]]:
    """Folders of results and truth by trial; those of results may lack."""
    truths = sorted(path.name for path in (session / "truth").iterdir() if path.is_dir())
    return {name: (session / "results" / name, session / "truth" / name) for name in truths}


def evaluate_sessions(
    sessions: list[Path],
    out: Path | None,
    compare: Callable[..., Comparison],
    tell: Callable[[str, object], None],
) -> tuple[pd.DataFrame, list[str], Path]:
    """Compare every trial that has results and truth; one that fails does not stop the others.

    Each trial's files go beside its results, the averages to `out`. `tell(trial, outcome)` is given
    each comparison or PipelineError. Returns the averages, the names of trials that failed, and the
    averages' folder.
    """
    folder = out or (sessions[0] if len(sessions) == 1 else Path()) / "comparison"
    check_out(folder)
    subjects = {session.resolve().name: session for session in sessions}
    if len(subjects) < len(sessions):
        raise PipelineError(
            "two of the sessions have the same name. Name each subject's differently."
        )
    rows, failed = [], []
    for subject, session in subjects.items():
        for name, (result, truth) in trials_with_truth(session).items():
            if not result.is_dir():
                reason = f"not compared, since it has no results. To run it: pipeline run {session}"
                tell(f"{subject}/{name}", PipelineError(reason))
                continue
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
        raise PipelineError(
            "no trial could be compared; see the errors above. Sessions are run by: pipeline run SESSION"
        )
    trials = pd.DataFrame(rows)
    scaling = trials["trial"].map(is_static)
    means = averages(trials if scaling.all() else trials[~scaling])
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
