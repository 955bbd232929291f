"""From the keypoints of a real squat, whose joint angles are known, back to its joint angles."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, on_opencaps_model

from models.assets import asset_folder
from models.augmenter import MARKERS, VIDEO_KEYPOINTS, load_augmenter
from models.fitting.evidence import ImageEvidence, TrialEvidence
from models.fitting.motion import fit_motion
from models.fitting.subject import fit_subject
from models.opensim_model import (
    GenericModel,
    generic_model,
    rotational_coordinates,
    solve_inverse_kinematics,
)
from models.scaling import place_markers, scale_segments
from models.simulation.rig import looking_at
from pipeline.errors import PipelineError
from stages.augment import ASSET, augment
from stages.export import write_trc
from stages.motion_files import in_file_units, read_mot
from stages.scaling import choose_scaling_window, upright_samples
from stages.trial import no_progress

HEIGHT_M, MASS_KG = 1.72, 70.0
LEGS = [f"{joint}_{side}" for joint in ("knee_angle", "ankle_angle") for side in "rl"]
TIME = np.arange(60, 360) / 60  # 5 s of the recording: three squats


@dataclass(frozen=True)
class SharedModel(GenericModel):
    """OpenCap's model, from the files beside the repository."""

    @property
    def folder(self):
        return SHARED / "opencap"


def lai_uhlrich() -> GenericModel:
    known = generic_model("lai-uhlrich-2022")
    return SharedModel(**{name: getattr(known, name) for name in known.__dataclass_fields__})


@pytest.fixture(scope="module")
def truth(shared):
    """The squat's true angles, degrees and metres, at 60 Hz."""
    recorded = read_mot(shared / "opencap" / "squats1_videoAndMocap.mot")
    at = {name: np.interp(TIME, recorded.index.values, recorded[name]) for name in recorded}
    return pd.DataFrame(at, index=pd.Index(TIME, name="time"))


@pytest.fixture(scope="module")
def keypoints(shared, truth):
    """The 20 video keypoints by OpenSim's forward kinematics, where OpenCap places them."""
    marker_set = "LaiUhlrich2022_markers_openpose.xml"
    _, _, position = on_opencaps_model(shared, marker_set, truth, VIDEO_KEYPOINTS)
    return dict(zip(VIDEO_KEYPOINTS, np.moveaxis(position, 1, 0), strict=True))


@pytest.fixture(scope="module")
def markers(keypoints):
    folder = asset_folder(ASSET)
    networks = (load_augmenter(folder / "lower"), load_augmenter(folder / "upper"))
    return augment(keypoints, TIME, networks, HEIGHT_M, MASS_KG)


def angles_from(generic, keypoints, markers, window_s, samples, folder):
    everything = keypoints | dict(zip(MARKERS, np.moveaxis(markers, 1, 0), strict=True))
    write_trc(folder / "m.trc", TIME, list(everything), np.stack(list(everything.values()), 1))
    model, _ = scale_segments(generic, folder / "m.trc", window_s, MASS_KG, folder)
    setup = generic.folder / generic.ik_setup
    place_markers(model, setup, {name: values[samples] for name, values in everything.items()})
    motion = solve_inverse_kinematics(model, setup, TIME, everything, no_progress)
    return in_file_units(motion.angles, rotational_coordinates(model))


def rmse_deg(angles, truth, names):
    return np.sqrt(((angles[names].to_numpy() - truth[names].to_numpy()) ** 2).mean(0))


@pytest.mark.slow
@pytest.mark.parametrize(
    "generic", [lai_uhlrich, lambda: generic_model("pose2sim")], ids=["lai", "pose2sim"]
)
def test_knee_and_ankle_of_a_real_squat_come_back(generic, keypoints, markers, truth, tmp_path):
    """The field's open tools are at 2.5 to 4.5° here, from the same perfect keypoints."""
    window = choose_scaling_window(keypoints, markers, TIME, 0.5)
    span = (window.start_s, window.end_s)
    everything = keypoints | dict(zip(MARKERS, np.moveaxis(markers, 1, 0), strict=True))
    upright = upright_samples(everything)
    angles = angles_from(generic(), keypoints, markers, span, upright, tmp_path)
    assert rmse_deg(angles, truth, LEGS).max() < 4
    assert angles.knee_angle_r.corr(truth.knee_angle_r) > 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    "generic", [lai_uhlrich, lambda: generic_model("pose2sim")], ids=["lai", "pose2sim"]
)
def test_one_fit_to_two_images_brings_them_back_better(generic, keypoints, truth):
    """Also to a model with another pelvis and spine than the one that moved."""
    positions = np.stack(list(keypoints.values()), axis=1)
    middle = np.nanmean(keypoints["midHip"], axis=0)
    places = middle + [[2.8, 0.4, 2.8], [2.8, 0.4, -2.8]]
    extrinsics = np.stack([looking_at(place, middle) for place in places])
    there = (
        positions @ extrinsics[:, None, :, :3].swapaxes(-1, -2) + extrinsics[:, None, None, :, 3]
    )
    image = there[..., :2] / there[..., 2:]
    seen = ImageEvidence(
        ("one", "other"), tuple(keypoints), image, np.ones(image.shape[:3]), extrinsics
    )
    trial = TrialEvidence("squats1", TIME, keypoints, seen)
    subject = fit_subject(generic(), [trial], None, MASS_KG, no_progress)
    motion = fit_motion(subject, trial, no_progress)
    angles = in_file_units(motion.angles, rotational_coordinates(subject.model))
    knees, ankles = LEGS[:2], LEGS[2:]
    assert rmse_deg(angles, truth, knees).max() < 1.5
    assert rmse_deg(angles, truth, ankles).max() < 2.5
    assert angles.knee_angle_r.corr(truth.knee_angle_r) > 0.999


@pytest.mark.slow
def test_markers_placed_in_mid_squat_do_not_take_the_bend_for_straight(
    keypoints, markers, truth, tmp_path
):
    """OpenSim's MarkerPlacer, with OpenCap's setup, shifts every knee angle by over 10° here."""
    deepest = truth.knee_angle_r.idxmax()
    bent = np.flatnonzero(np.abs(TIME - deepest) <= 0.1)
    span = (TIME[bent[0]], TIME[bent[-1]])
    angles = angles_from(lai_uhlrich(), keypoints, markers, span, bent, tmp_path)
    knees = [name for name in LEGS if name.startswith("knee")]
    assert rmse_deg(angles, truth, knees).max() < 6


def test_a_distance_whose_markers_are_missing_is_refused(markers, tmp_path):
    """OpenSim would say nothing, and leave the trunk and the arms unscaled."""
    write_trc(tmp_path / "m.trc", TIME, list(MARKERS), markers)
    with pytest.raises(PipelineError, match="LElbow, LShoulder, RElbow, RShoulder"):
        scale_segments(generic_model("pose2sim"), tmp_path / "m.trc", (2.0, 2.5), MASS_KG, tmp_path)
