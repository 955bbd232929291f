"""Report: curves, tables and quality figures of one trial, for reading and for other programs."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field

from calibration import read_cameras
from models.augmenter import VIDEO_KEYPOINTS
from models.choice import choice_of, summary
from pipeline.files import load_dataset
from stages import ORDER
from stages.comparison_report import Section, compared_section
from stages.cycles import Spans, heel_ahead_m, knee_bends, normalise_cycles, strides
from stages.figures import all_coordinates, knee_and_ankle, render_page, save_for_papers
from stages.fit_text import determined_text, made_by, parameter_rows, uncertainty_of
from stages.frames import image_sizes
from stages.motion_files import read_mot
from stages.overlay import write_overlays
from stages.quality import (
    fit_figures,
    image_figures,
    model_figures,
    overall,
    range_of_motion,
    unmade_fit,
)
from stages.series import by_name
from stages.skeleton_fit import DEVIATIONS
from stages.synchronization_figures import agreement_curves, clock_rows
from stages.trial import Progress, Trial

NEEDS = (
    "frames",
    "keypoints",
    "synchronize",
    "triangulate",
    "smooth",
    "augment",
    "export",
    "kinematics",
)

CITATIONS = (
    "OpenSim: Seth et al., PLoS Comput Biol 14(7), 2018",
    "OpenCap and its marker augmenter: Uhlrich et al., PLoS Comput Biol 19(10), 2023; Falisse et al., "
    "IEEE Trans Biomed Eng, 2025",
)
AUGMENTERS = {
    "published": "OpenCap's marker augmenter v0.3",
    "retrained": "this pipeline's retrained augmenter (simulated people only)",
}


class Settings(BaseModel):
    """Options of the report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repetitions: Literal["none", "knee bends", "strides"] = "none"
    """What a repetition is. Set per activity: squats, standing up and jumps bend the knees."""
    overlay: bool = True
    """Write a video per camera with keypoints and skeleton drawn on it."""
    overlay_height_px: int = Field(960, ge=120)
    """Overlay videos are scaled down to this height."""
    compare: bool = False
    """Compare with the trial's reference: motion capture, or a simulation's truth."""
    max_lag_s: float = Field(1.0, gt=0)
    """Largest lag to look for between result and reference. Periodic movements agree after every
    period: it must be less than half of one to tell them apart."""


def on_timeline(angles: pd.DataFrame, time_s: np.ndarray) -> pd.DataFrame:
    """Angles at every sample of the timeline; NaN where the model was not solved."""
    nearest = angles.reindex(time_s, method="nearest", tolerance=1e-4)
    nearest.index.name = "time_s"
    return nearest


def cycles_of(
    angles: pd.DataFrame, markers: dict[str, np.ndarray], kind: str
) -> tuple[dict[str, np.ndarray], dict[str, Spans]]:
    """Curves (repetition, 101) of each coordinate with a side, and the repetitions by side.

    Angles (degrees, indexed by seconds) and markers (m) are on the same samples, NaN where missing.
    """
    time_s = angles.index.values
    known = angles.notna().all(axis=1).values
    if kind == "knee bends":
        knees = angles[["knee_angle_r", "knee_angle_l"]].mean(axis=1).values
        repetitions = dict.fromkeys("rl", knee_bends(time_s, np.where(known, knees, np.nan)))
    elif kind == "strides":
        ahead = {side: np.where(known, heel_ahead_m(markers, side), np.nan) for side in "rl"}
        repetitions = {side: strides(time_s, ahead[side]) for side in "rl"}
    else:
        repetitions = {"r": [], "l": []}
    curves = {
        name: normalise_cycles(time_s[known], angles[name].values[known], repetitions[name[-1]])
        for name in angles
        if name.endswith(("_r", "_l")) and repetitions[name[-1]]
    }
    return curves, repetitions


def notices_of(trial: Trial) -> list[tuple[str, str]]:
    """Stage and text of every notice that the stages before this one gave."""
    found = []
    for stage in ORDER[:-1]:
        record = trial.folder(stage) / "stage.json"
        if record.exists():
            notices = json.loads(record.read_text(encoding="utf-8"))["notices"]
            found += [(stage, notice) for notice in notices]
    return found


def _settings_of(trial: Trial) -> str:
    records = {
        stage: json.loads((trial.folder(stage) / "stage.json").read_text(encoding="utf-8"))
        for stage in ORDER[:-1]
        if (trial.folder(stage) / "stage.json").exists()
    }
    return json.dumps({stage: record["settings"] for stage, record in records.items()}, indent=2)


def _markers_text(markers: xr.Dataset) -> str:
    by_kind = {
        kind: [str(name) for name in markers.marker.values[markers.kind.values == kind]]
        for kind in ("derived", "estimated")
    }
    text = f"43 anatomical markers by {AUGMENTERS[markers.augmenter]} from 20 video keypoints"
    if by_kind["derived"]:
        text += f"; {', '.join(by_kind['derived'])} are middles of measured points"
    if by_kind["estimated"]:
        text += f"; {', '.join(by_kind['estimated'])} are estimated, not measured"
    return text + "."


def _models_text(keypoints: xr.Dataset) -> str:
    """Which detector and pose model found the keypoints; empty if the session brought them."""
    attributes = keypoints.attrs
    return summary(choice_of(attributes)) if "pose_model" in attributes else ""


def _person_text(synchronized: xr.Dataset) -> str:
    """Who was followed, if several people were in view."""
    person, people = (synchronized.attrs[name] for name in ("person", "people"))
    return f", person {person} of {people}" if people > 1 else ""


def _repetitions_text(repetitions: dict[str, Spans], kind: str) -> str:
    if kind == "none":
        return (
            "No repetitions: this activity has none that the pipeline knows. If it has, say so in "
            'session.toml: [settings.report] repetitions = "knee bends" or "strides".'
        )
    counts = {side: len(found) for side, found in repetitions.items()}
    return f"Repetitions ({kind}): {counts['r']} right, {counts['l']} left, those without gaps."


def write_tables(
    angles: pd.DataFrame, rom: pd.DataFrame, units: dict[str, str], figures: list, out: Path
) -> None:
    """Write `angles.csv`, `range_of_motion.csv` and `quality.csv`; every header names its unit."""
    named = angles.rename(columns={name: f"{name}_{units[name]}" for name in angles})
    named.to_csv(out / "angles.csv", float_format="%.5f", lineterminator="\n")
    rom.assign(unit=rom.index.map(units)).to_csv(
        out / "range_of_motion.csv", float_format="%.3f", lineterminator="\n"
    )
    pd.DataFrame([asdict(figure) for figure in figures]).to_csv(
        out / "quality.csv", index=False, lineterminator="\n"
    )


def _rom_rows(rom: pd.DataFrame, units: dict[str, str]) -> list[dict[str, str]]:
    """Rows of the table, as text; coordinates that never move are left out."""
    rows = []
    for name, row in rom[rom["range"] > 0].iterrows():
        digits = {"m": 3, "deg": 1}[units[name]]
        text = {key: "" if pd.isna(value) else f"{value:.{digits}f}" for key, value in row.items()}
        spread = f" ± {text['range_sd']}" if text["range_sd"] else ""
        rows.append(
            {
                "coordinate": name,
                "unit": {"m": "m", "deg": "°"}[units[name]],
                "minimum": text["minimum"],
                "maximum": text["maximum"],
                "range": text["range"],
                "uncertainty": text.get("uncertainty", ""),
                "repetitions": "" if pd.isna(row.repetitions) else f"{row.repetitions:.0f}",
                "per_repetition": text["range_mean"] + spread,
            }
        )
    return rows


def inputs(trial: Trial, settings: Settings) -> dict[str, object]:
    """Return what the result depends on besides other stages."""
    notices = [notice for _, notice in notices_of(trial)]
    return {
        "videos": trial.videos,
        "calibration": trial.calibration,
        "world_up": trial.world_up,
        "notices": notices,
    } | ({"reference": _reference_of(trial)} if settings.compare else {})


def _reference_of(trial: Trial) -> dict[str, object]:
    return vars(trial.reference) if trial.reference else {}


def _compared(trial: Trial, settings: Settings, out: Path) -> Section:
    kind = "knee bends" if settings.repetitions == "none" else settings.repetitions
    return compared_section(trial, kind, settings.max_lag_s, out)


def _agreement_of(trial: Trial):
    """The curves that led to the cameras' clocks; None if nothing was searched."""
    path = trial.folder("synchronize") / "evidence.nc"
    return agreement_curves(load_dataset(path)) if path.exists() else None


def run(trial: Trial, settings: Settings, out: Path, progress: Progress) -> list[str]:
    """Write one trial's report; return its verdict, and what to know of a comparison."""
    timeline = load_dataset(trial.folder("frames") / "timeline.nc")
    synchronized = load_dataset(trial.folder("synchronize") / "keypoints.nc")
    markers = load_dataset(trial.folder("augment") / "markers.nc")
    points = load_dataset(trial.folder("triangulate") / "points.nc")
    smoothed = load_dataset(trial.folder("smooth") / "points.nc")
    folder = trial.folder("kinematics")
    kinematics = json.loads((folder / "kinematics.json").read_text(encoding="utf-8"))
    angles = on_timeline(read_mot(folder / "angles.mot"), markers.time.values)
    stated = folder / DEVIATIONS
    deviation = None
    if stated.exists():
        deviation = on_timeline(pd.read_csv(stated, index_col="time"), markers.time.values)
    units = kinematics["units"]
    places = by_name(markers.position, "marker")
    curves, repetitions = cycles_of(angles, places, settings.repetitions)
    used = [name for name in VIDEO_KEYPOINTS if name in points.keypoint.values]
    figures = image_figures(points, smoothed, used)
    figures += model_figures(pd.read_csv(folder / "marker_errors.csv"), angles)
    uncertainty = uncertainty_of(kinematics, list(angles))
    figures += fit_figures(uncertainty)
    figures += unmade_fit(kinematics["fit"]["asked"], kinematics["fit"]["done"])
    rom = range_of_motion(angles, curves)
    if len(uncertainty):
        rom["uncertainty"] = uncertainty
    write_tables(angles, rom, units, figures, out)
    save_for_papers(angles, curves, out / "knee_ankle.png", out / "knee_ankle.pdf")
    cameras, _ = read_cameras(
        trial.calibration, trial.cameras, image_sizes(timeline), trial.world_up
    )
    overlays = []
    if settings.overlay and trial.videos:
        overlays = write_overlays(trial, cameras, settings.overlay_height_px, out, progress)
    verdict, verdict_text = overall(figures)
    comparison = _compared(trial, settings, out) if settings.compare else Section("", [])
    time_s = markers.time.values
    content = {
        "trial": trial.name + _person_text(synchronized), "activity": trial.activity, "cameras": trial.cameras,
        "duration_s": time_s[-1] - time_s[0], "rate_hz": timeline.attrs["rate_hz"],
        "height_m": markers.attrs["height_m"], "height_source": markers.attrs["height_source"],
        "mass_kg": markers.attrs["mass_kg"], "mass_source": markers.attrs["mass_source"],
        "verdict": verdict, "verdict_text": verdict_text, "figures": figures,
        "clocks": clock_rows(synchronized), "agreement": _agreement_of(trial),
        "notices": notices_of(trial), "rom": _rom_rows(rom, units), "kinematics": kinematics,
        "made_by": made_by(kinematics), "determined": determined_text(kinematics),
        "parameters": parameter_rows(kinematics), "uncertain": bool(len(uncertainty)),
        "constant": list(rom.index[rom["range"] == 0]),
        "knee_ankle": knee_and_ankle(angles, curves, deviation), "banded": deviation is not None,
        "every_coordinate": all_coordinates(angles, units),
        "repetitions_text": _repetitions_text(repetitions, settings.repetitions),
        "markers_text": _markers_text(markers),
        "models": _models_text(load_dataset(trial.folder("keypoints") / "keypoints.nc")),
        "citation": markers.attrs["citation"], "overlays": overlays, "has_videos": bool(trial.videos),
        "citations": [markers.attrs["citation"], *CITATIONS], "settings": _settings_of(trial),
        "comparison": comparison.html,
    }  # fmt: skip
    html = render_page("report.html.j2", **content)
    (out / "report.html").write_text(html, encoding="utf-8")
    return [verdict_text, *comparison.notices]
