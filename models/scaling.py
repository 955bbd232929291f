"""Scaling: fit a generic OpenSim model to a person, its segments first and then its markers."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float

from models.augmenter import MARKERS
from models.opensim_model import (
    GenericModel,
    body_poses,
    marker_names,
    opensim,
    solve_inverse_kinematics,
    telling_opensim_errors,
)
from pipeline.errors import PipelineError


def scale_segments(
    generic: GenericModel,
    trc: Path,
    window_s: tuple[float, float],
    mass_kg: float,
    scratch: Path,
) -> tuple[Any, dict[str, Float[np.ndarray, "3"]]]:
    """Scale a generic model by distances between markers; return it, and its scale factors.

    The first step of OpenSim's ScaleTool, with the distances of the model's setup, means over a
    stretch of time. It is called alone, since the tool as a whole looks for all files beside its
    setup.

    Raises PipelineError if the markers in `trc` are not those that the setup measures between.
    """
    package, folder = opensim(), generic.folder
    _check_measured_markers(folder / generic.scaling_setup, trc)
    with telling_opensim_errors("scaling the model"):
        tool = package.ScaleTool(str(folder / generic.scaling_setup))
        tool.setSubjectMass(mass_kg)
        maker = tool.getGenericModelMaker()
        maker.setModelFileName(str(folder / generic.model))
        maker.setMarkerSetFileName(str(folder / generic.markers))
        model = maker.processModel("")
        model.initSystem()
        window = package.ArrayDouble()
        for edge in window_s:
            window.append(edge)
        factors = scratch / "scale_factors.xml"
        scaler = tool.getModelScaler()
        scaler.setMarkerFileName(str(trc))
        scaler.setTimeRange(window)
        scaler.setOutputModelFileName("")
        scaler.setOutputScaleFileName(str(factors))
        if not scaler.processModel(model, "", mass_kg):
            raise PipelineError(f"OpenSim could not scale {generic.model} to the markers in {trc}")
        model.setName(f"{generic.name}_scaled")
    return model, _read_scale_factors(factors)


def _check_measured_markers(scaling_setup: Path, trc: Path) -> None:
    """OpenSim passes over a distance whose markers are missing, and leaves the segment unscaled."""
    present = set(opensim().TimeSeriesTableVec3(str(trc)).getColumnLabels())
    pairs = (
        pair.findtext("markers") for pair in ElementTree.parse(scaling_setup).iter("MarkerPair")
    )
    if missing := sorted({name for pair in pairs for name in pair.split()} - present):
        raise PipelineError(
            f"{scaling_setup.name} scales segments by the markers {', '.join(missing)}, which "
            f"{trc.name} does not have."
        )


def _read_scale_factors(path: Path) -> dict[str, Float[np.ndarray, "3"]]:
    scales = ElementTree.parse(path).iter("Scale")
    factors = {s.findtext("segment"): np.array(s.findtext("scales").split(), float) for s in scales}
    path.unlink()
    return factors


def place_markers(
    model, ik_setup: Path, markers: dict[str, Float[np.ndarray, "time 3"]]
) -> dict[str, float]:
    """Move a scaled model's markers to where the person has them; return how far each went, m.

    The model takes the poses that fit its markers where they usually are, and each marker goes to
    the median, over these poses, of where it is measured on its body.

    OpenSim's MarkerPlacer, the second step of its ScaleTool, does so for one mean pose, which it
    first pulls to straight knees and hips: as much as the person then bends, every later angle is
    off. Here legs are not pulled, so that nobody need stand straight; the lumbar spine is, where the
    setup asks for it, since upright people have it nearly so. The markers of an augmenter need this the
    more: they are centimetres from where a generic model has them, on every person alike.
    """
    time_s = np.arange(len(markers[MARKERS[0]]), dtype=float)  # each pose stands for itself
    motion = solve_inverse_kinematics(
        model, ik_setup, time_s, markers, lambda *_: None, pulled=True
    )
    solved = np.isin(time_s, motion.angles.index)
    poses = body_poses(model, motion.angles)
    distance_m = {}
    placed = set(marker_names(model))
    for name in (each for each in MARKERS if each in placed):
        marker = model.updMarkerSet().get(name)
        body = poses.names.index(marker.getParentFrame().findBaseFrame().getName())
        away = markers[name][solved] - poses.position[:, body]
        on_body = np.einsum("tji,tj->ti", poses.rotation[:, body], away)
        place = np.nanmedian(on_body, axis=0)
        distance_m[name] = float(np.linalg.norm(place - marker.get_location().to_numpy()))
        marker.set_location(opensim().Vec3(*map(float, place)))
    model.initSystem()
    return distance_m
