"""Skeleton fit: what was measured in a trial, and its session, to one fit of a model and its movement."""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from calibration import read_cameras
from models.augmenter import MARKERS
from models.fitting.evidence import ImageEvidence, PointEvidence, TrialEvidence
from models.fitting.motion import fit_motion
from models.fitting.subject import FittedSubject, fit_subject
from models.opensim_model import GenericModel, Motion, rotational_coordinates
from pipeline.files import load_dataset
from stages.frames import image_sizes
from stages.scaling import notices_about_scale
from stages.series import by_name
from stages.solved import Solved
from stages.trial import Progress, Trial
from stages.triangulate import Seen, swapped_in

PARAMETERS, DEVIATIONS = "fit_parameters.csv", "angles_sd.csv"
DETERMINED = 0.5
"""A parameter is determined by the data if they lessen the variance of what was known before so far."""
NOT_STATED = ("arm_", "elbow_", "pro_sup_", "wrist_")
"""Arms err by more than the fit knows of: a nearly straight one fits its points in more than one way."""
SHOWN = 4
"""Parameters of the model's size that a notice names."""
KINDS = {
    "scale": "scales",
    "offset": "places of points on the body",
    "constant error": "errors that stay",
}
READS = {
    "frames": "timeline.nc",
    "synchronize": "keypoints.nc",
    "triangulate": "points.nc",
    "augment": "markers.nc",
}
"""Files of a trial that the evidence is in, by stage."""


def evidence_files(trial: Trial) -> dict[str, object]:
    """What the evidence of a trial depends on."""
    files: dict[str, object] = {s: trial.folder(s) / name for s, name in READS.items()}
    return files | {"calibration": trial.calibration, "world_up": trial.world_up}


def read_evidence(trial: Trial, kinds: Collection[str]) -> TrialEvidence:
    """Gather what was measured in a trial: of the kinds `markers`, `keypoints` and `images`.

    Raises PipelineError for results or a calibration that cannot be read.
    """
    markers = load_dataset(trial.folder("augment") / READS["augment"])
    start = by_name(markers.position, "marker")
    points = load_dataset(trial.folder("triangulate") / READS["triangulate"])
    return TrialEvidence(
        trial.name,
        markers.time.values,
        start,
        _images(trial, points) if "images" in kinds else None,
        _keypoints(points) if "keypoints" in kinds else None,
        _markers(start) if "markers" in kinds else None,
        markers.attrs["augmenter"],
    )


def _images(trial: Trial, points: xr.Dataset) -> ImageEvidence:
    """2D keypoints without lens distortion, left and right as the triangulation put them right."""
    keypoints = load_dataset(trial.folder("synchronize") / READS["synchronize"])
    timeline = load_dataset(trial.folder("frames") / READS["frames"])
    cameras = [str(name) for name in keypoints.camera.values]
    names = [str(name) for name in keypoints.keypoint.values]
    calibrated, _ = read_cameras(trial.calibration, cameras, image_sizes(timeline), trial.world_up)
    seen = Seen.of(calibrated, keypoints).exchanged(swapped_in(points, cameras), names)
    return ImageEvidence(
        tuple(cameras), tuple(names), seen.image, seen.confidence, seen.camera_from_world
    )


def _keypoints(points: xr.Dataset) -> PointEvidence:
    return PointEvidence(
        tuple(str(name) for name in points.keypoint.values),
        points.position.transpose("time", "keypoint", "axis").values,
        points.standard_deviation.mean("axis").transpose("time", "keypoint").values,
    )


def _markers(start: dict[str, np.ndarray]) -> PointEvidence:
    position = np.stack([start[name] for name in MARKERS], axis=1)
    return PointEvidence(MARKERS, position, np.full(position.shape[:2], np.nan))


def gathered(trial: Trial, others: Sequence[Trial], kinds: Collection[str]) -> list[TrialEvidence]:
    """Evidence of a trial and others of the same person, by name: the same whichever of them asks.

    Cameras that stood elsewhere in another trial have other names there.
    """
    found = []
    for each in sorted((trial, *others), key=lambda each: each.name):
        evidence = read_evidence(each, kinds)
        if evidence.images and each.calibration != trial.calibration:
            cameras = tuple(f"{name} of {each.name}" for name in evidence.images.cameras)
            evidence = replace(evidence, images=replace(evidence.images, cameras=cameras))
        found.append(evidence)
    return found


def fit_skeleton(
    name: str,
    evidence: Sequence[TrialEvidence],
    generic: GenericModel,
    height_m: float | None,
    mass_kg: float,
    progress: Progress,
) -> Solved:
    """Fit a model to a person by all evidence, and its coordinates to that of the named trial.

    Raises PipelineError, saying why, where no fit can be made of this model and evidence, or where the
    one that was found is no person's.
    """
    subject = fit_subject(generic, evidence, height_m, mass_kg, progress)
    notices = notices_about_scale(subject.factors)
    (own,) = (each for each in evidence if each.name == name)
    found = fit_motion(subject, own, progress)
    notices += notices_about_parameters(subject.parameters)
    stated = found.deviation.dropna(axis="columns")
    stated = stated[[name for name in stated if not name.startswith(NOT_STATED)]]
    uncertainty = np.sqrt((stated**2).mean())
    notices += notices_about_uncertainty(uncertainty)
    scaling = {
        "source": "joint fit",
        "factors": {body: factor.tolist() for body, factor in subject.factors.items()},
        "markers_moved_m": subject.moved_m,
    }
    rotational = rotational_coordinates(subject.model)
    return Solved(
        subject.model,
        Motion(found.angles, found.error_m.filter(sorted(own.points))),
        scaling,
        notices,
        description(subject, uncertainty, rotational),
        subject.parameters,
        stated,
    )


def description(
    subject: FittedSubject, uncertainty: pd.Series, rotational: Collection[str]
) -> dict[str, object]:
    """What there is to say of a fit, for people: angles in degrees, lengths in metres."""
    parameters = subject.parameters.rename_axis("name").reset_index()
    degrees = [name in rotational for name in uncertainty.index]
    return {
        "samples": {name: int(count) for name, count in subject.samples.items()},
        "noise": dict(subject.noise),
        "bias": dict(subject.bias),
        "parameters": json.loads(parameters.to_json(orient="records", double_precision=6)),
        "uncertainty": uncertainty.where(~np.array(degrees), np.degrees(uncertainty)).to_dict(),
    }


def notices_about_parameters(parameters: pd.DataFrame) -> list[str]:
    """Which parameters of a fit the data tell little of."""
    weak = parameters[parameters.determined < DETERMINED]
    if weak.empty:
        return []
    parts = []
    for kind, what in KINDS.items():
        names = weak.index[weak.kind == kind]
        listed = f" ({'; '.join(names[:SHOWN])}{'; …' if len(names) > SHOWN else ''})"
        if len(names):
            parts.append(f"{len(names)} {what}{listed if kind == 'scale' else ''}")
    return [
        f"the data do not determine {len(weak)} of {len(parameters)} parameters of the fit, which stay "
        f"near what is usual of people: {', '.join(parts)}. {PARAMETERS} lists all."
    ]


def notices_about_uncertainty(uncertainty: pd.Series) -> list[str]:
    """How sure the fit says that it is of knees and ankles. `uncertainty` is in rad, by coordinate."""
    parts = []
    for joint, what in (("knee_angle", "knee flexion"), ("ankle_angle", "ankle flexion")):
        sides = [
            f"{np.degrees(uncertainty[f'{joint}_{side}']):.1f}° {label}"
            for side, label in (("r", "right"), ("l", "left"))
            if f"{joint}_{side}" in uncertainty
        ]
        if sides:
            parts.append(f"{what} {' and '.join(sides)}")
    if not parts:
        return []
    return [
        f"standard deviation of angles: {', '.join(parts)}. That is the fit's own estimate, "
        "from the errors of what it was fitted to and what it does not know of the "
        "body; it holds as far as the body moves as the model does."
    ]
