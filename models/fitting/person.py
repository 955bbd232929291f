"""Person: an OpenSim model with keypoints on its bodies, and the parameters by which people differ."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from models.augmenter import MARKERS
from models.fitting.augmented_markers import augmented_markers
from models.fitting.floor import SOLES
from models.fitting.poses import Proportions
from models.fitting.priors import priors
from models.fitting.trunk import AXES as TRUNK
from models.opensim_model import (
    GenericModel,
    add_markers,
    body_poses,
    check_markers,
    load_model,
    opensim,
    scaled_copy,
    telling_opensim_errors,
)
from models.simulation.crowd import UPRIGHT, upright
from models.simulation.landmarks import SOLE_HEIGHT_M, body_scales, placements
from models.simulation.subject import GROUPS, group_and_side
from models.skeleton import Skeleton

TOP, BOTTOM = "Head", ("RHeel", "LHeel", "RBigToe", "LBigToe")
"""Keypoints between which a model that stands upright is as tall as the person."""
UNSEEN = (*SOLES, *TRUNK)
"""Points that are on the model for what is assumed of it, and nobody measures."""
PAIRED = tuple(name for name in GROUPS if name not in ("pelvis", "trunk"))
AXES = ("depth", "height", "breadth")
"""Along x, y and z of a body that stands upright."""


def model_with_keypoints(
    generic: GenericModel, names: Collection[str], augmenter: str = "published"
) -> Any:
    """Load a generic model with an augmenter's markers, keypoints and soles where they usually are.

    Keypoints that have no place on a body are left out. Raises PipelineError if the model lacks bodies
    that keypoints are placed on, or markers.
    """
    model = load_model(generic.folder / generic.model)
    add_markers(model, generic.folder / generic.markers)
    check_markers(model, MARKERS)
    bodies = [body.getName() for body in model.getBodyList()]
    placed, wanted = placements(bodies), {TOP, *BOTTOM, *names}
    sizes = body_scales(body_poses(model, pd.DataFrame(dict.fromkeys(UPRIGHT, [0.0]))))
    places = {name: place for name, place in placed.items() if name in wanted}
    level = np.array([1.0, 0.0, 1.0])
    places |= {name: (body, placed[above][1] * level) for name, (body, above) in SOLES.items()}
    for name, (body, location) in places.items():
        _add_marker(model, name, body, location * sizes[body])
    for name, (body, location) in TRUNK.items():
        _add_marker(model, name, body, np.array(location))
    for name, marker in augmented_markers(augmenter).items():
        if marker.body in bodies:
            _add_marker(model, name, marker.body, marker.place_m)
    model.finalizeConnections()
    model.initSystem()
    return model


def _add_marker(model, name: str, body: str, location_m: Float[np.ndarray, "3"]) -> None:
    """Add a marker, in the place of one of the same name if there is one."""
    package, markers = opensim(), model.updMarkerSet()
    if (taken := markers.getIndex(name)) >= 0:
        markers.remove(taken)
    marker = package.Marker()
    marker.setName(name)
    marker.setParentFrameName(f"/bodyset/{body}")
    marker.set_location(package.Vec3(*map(float, location_m)))
    markers.cloneAndAppend(marker)


def proportions(bodies: Sequence[str], size_spread: float) -> Proportions:
    """Size, lengths of both sides, right against left, and breadth and depth against length."""
    table, axis_of = priors()["proportions"], priors()["length_axis"]
    where = [group_and_side(body) for body in bodies]
    found: dict[str, tuple[float, np.ndarray]] = {"size": (size_spread, np.ones((len(bodies), 3)))}
    for group in GROUPS:
        member = np.array([each == group for each, _ in where], float)
        right = np.array([side == "r" for _, side in where])
        found[f"{group}, length"] = table["segment"], np.outer(member, np.ones(3))
        if group in PAIRED:
            half = member * np.where(right, 0.5, -0.5)
            found[f"{group}, right against left"] = table["sides"], np.outer(half, np.ones(3))
        for axis in range(3):
            if axis != axis_of[group]:
                shape = np.outer(member, np.eye(3)[axis])
                found[f"{group}, {AXES[axis]}"] = table["shape"], shape
    spread = torch.tensor([each for each, _ in found.values()], dtype=torch.float64)
    shapes = torch.from_numpy(np.stack([each for _, each in found.values()]))
    return Proportions(tuple(found), spread, spread[:, None, None] * shapes)


def heights_m(
    skeleton: Skeleton, scale: Float[Tensor, "*batch body 3"]
) -> Float[Tensor, "*batch sole"]:
    """How high the top of the head of a model that stands upright is above each of its soles.

    The largest is the person's height. It is linear in the scale factors but for the thickness of soles.
    """
    height = skeleton.marker_positions(upright(skeleton), scale)[..., 1]
    top, *soles = (height[..., skeleton.markers.index(name)] for name in (TOP, *BOTTOM))
    return torch.stack([top - sole for sole in soles], -1) + SOLE_HEIGHT_M


def scaled_model(
    model,
    scale: Mapping[str, Float[np.ndarray, "3"]],
    offsets_m: Mapping[str, Float[np.ndarray, "3"]],
    mass_kg: float,
) -> Any:
    """Return a copy of a model, scaled by body, whose markers have then been moved on their bodies.

    Without points that nobody measures.
    """
    with telling_opensim_errors("scaling the model"):
        copy = scaled_copy(model, scale, mass_kg)
        for marker_name, offset in offsets_m.items():
            marker = copy.updMarkerSet().get(marker_name)
            place = marker.get_location().to_numpy() + offset
            marker.set_location(opensim().Vec3(*map(float, place)))
        for unseen in UNSEEN:
            copy.updMarkerSet().remove(copy.getMarkerSet().getIndex(unseen))
        copy.initSystem()
    copy.setName(f"{model.getName()}_scaled")
    return copy
