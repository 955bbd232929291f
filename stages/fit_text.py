"""Fit text: how a report says which model was fitted, to what, and how sure the fit is."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from stages.skeleton_fit import DETERMINED, KINDS

SOLVERS = {
    "opensim": "OpenSim's own solver, sample after sample",
    "batched": "the batched solver, which minimises what OpenSim's does for all samples at once",
}
EVIDENCE = {
    "markers": "the augmented markers",
    "keypoints": "the triangulated keypoints",
    "images": "the 2D keypoints in every image",
}


def made_by(kinematics: Mapping[str, Any]) -> list[str]:
    """Sentences on how the model and its movement were found, from `kinematics.json`."""
    fit, scaling = kinematics["fit"], kinematics["scaling"]
    samples = f"{kinematics['samples_solved']} of {kinematics['samples']} samples"
    if fit["done"] != "classical":
        evidence = " and ".join(EVIDENCE[kind] for kind in fit["done"].split("+"))
        counts = ", ".join(f"{n} of {trial}" for trial, n in fit["samples"].items() if n)
        return [
            f"Fitted to {evidence}: the body's sizes, where points are on it, and poses, all at once, "
            f"in the samples that tell most: {counts}.",
            f"Movement: fitted to the same, and smooth, in {samples}.",
            *_error_sizes(fit),
            *(
                []
                if "markers" in fit["done"]
                else ["The augmented markers only gave the fit a start."]
            ),
        ]
    sentences = [
        f"Scaled by: {scaling.get('description', scaling['source'])}.",
        f"Inverse kinematics: {samples}, by {SOLVERS[kinematics['solver']]}.",
    ]
    if fit["why_not"]:
        sentences.append(f"A fit to {fit['asked']} was asked for, but not made: {fit['why_not']}")
    return sentences


def _error_sizes(fit: Mapping[str, Any]) -> list[str]:
    """How large errors were found to be, of what the fit was fitted to."""
    kinds = ["markers" if kind == "markers" else "keypoints" for kind in fit["done"].split("+")]
    return [
        f"Errors of the {what}, against what is usual: {fit['noise'][what]:.1f} times as large where they "
        f"change from sample to sample, {fit['bias'][what]:.1f} times where they stay."
        for what in kinds
    ]


def determined_text(kinematics: Mapping[str, Any]) -> str:
    """How much the data told of the body; empty if nothing was fitted."""
    parameters = kinematics["fit"].get("parameters", [])
    if not parameters:
        return ""
    known = sum(each["determined"] >= DETERMINED for each in parameters)
    return (
        f"The data determine {known} of {len(parameters)} parameters of the body and of its points: at "
        f"least {DETERMINED:.0%} of what was not known of them before. The others stay near what is usual "
        "of people."
    )


def parameter_rows(kinematics: Mapping[str, Any]) -> list[dict[str, str]]:
    """Parameters of the body's size one by one, and others by kind, as text."""
    table = pd.DataFrame(kinematics["fit"].get("parameters", []))
    if table.empty:
        return []
    rows = []
    for kind, part in table.groupby("kind", sort=False):
        if kind == "scale":
            rows += [
                _row(each.name.replace("_", " "), each.determined)
                for each in part.itertuples(index=False)
            ]
        else:
            rows.append(_row(f"{KINDS[kind]} ({len(part)}), mean", part.determined.mean()))
    return rows


def _row(name: str, determined: float) -> dict[str, str]:
    verdict = "ok" if determined >= DETERMINED else "warn"
    return {"name": name, "determined": f"{determined:.0%}", "verdict": verdict}


def uncertainty_of(kinematics: Mapping[str, Any], coordinates: Sequence[str]) -> pd.Series:
    """Standard deviation of each coordinate in one sample, in its unit; empty without a fit."""
    known = pd.Series(kinematics["fit"].get("uncertainty", {}), dtype=float)
    return known.reindex(coordinates).dropna()
