"""Where an augmenter puts its markers, against a person who was not learned from."""

import numpy as np
import opensim
import pytest
from opensim import Vec3

from models.augmenter import MARKERS, VIDEO_KEYPOINTS
from models.fitting.augmented_markers import augmented_markers
from models.opensim_model import add_markers, generic_model, load_model, marker_positions
from models.simulation.detector import Errors
from models.simulation.subject import scaled_to
from pipeline.errors import PipelineError
from pipeline.simulate import Plan, simulate
from stages.augment import Settings, augment, load_networks

MODEL = "pose2sim"
PLAN = Plan(
    motion="sit-to-stand",
    model=MODEL,
    cameras=2,
    seed=42,
    errors=Errors().scaled(0.0),
    static=False,
)


def marked_model(network: str) -> opensim.Model:
    """The unscaled model, its markers moved to where an augmenter usually puts them."""
    generic = generic_model(MODEL)
    model = load_model(generic.folder / generic.model)
    add_markers(model, generic.folder / generic.markers)
    for name, usual in augmented_markers(network).items():
        marker = model.updMarkerSet().get(name)
        assert marker.getParentFrame().findBaseFrame().getName() == usual.body
        marker.set_location(Vec3(*map(float, usual.place_m)))
    model.initSystem()
    return model


@pytest.fixture(scope="module")
def somebody():
    simulation = simulate(PLAN)
    return simulation.person, simulation.trials[0].scene


@pytest.mark.parametrize("network", ["published", "retrained"])
def test_every_marker_has_a_place_and_spreads(network):
    known = augmented_markers(network)
    assert set(known) == set(MARKERS)
    for usual in known.values():
        assert usual.place_m.shape == (3,) and np.isfinite(usual.place_m).all()
        assert 0 < usual.person_spread_m < 0.03 and 0 < usual.moving_m < 0.03


def test_an_unknown_augmenter_is_named():
    with pytest.raises(PipelineError, match="published"):
        augmented_markers("another")


@pytest.mark.parametrize("network", ["published", "retrained"])
def test_places_predict_the_markers_of_a_person_not_learned_from(somebody, network):
    person, scene = somebody
    keypoints = {name: scene.keypoints[name] for name in VIDEO_KEYPOINTS}
    networks = load_networks(Settings(network=network))
    made = augment(keypoints, scene.time_s, networks, person.height_m, person.mass_kg)[::20]
    _, model = scaled_to(marked_model(network), person)
    placed = marker_positions(model, scene.angles[::20], MARKERS)
    generic = np.stack([scene.markers[name] for name in MARKERS], axis=1)[::20]
    off, off_generic = (np.linalg.norm(made - each, axis=-1) for each in (placed, generic))
    pelvis = [MARKERS.index(f"{side}.{spine}_study") for side in "rL" for spine in ("ASIS", "PSIS")]
    if network == "published":
        assert off.mean() < 0.6 * off_generic.mean()
        assert off[:, pelvis].mean() < 0.6 * off_generic[:, pelvis].mean()
    else:
        assert off.mean() < off_generic.mean() + 0.001 and off.mean() < 0.006
