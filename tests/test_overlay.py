"""What is drawn over videos: keypoints, the smoothed skeleton, and the fitted model."""

import av
import numpy as np
import opensim
import pandas as pd
import pytest

from models.opensim_model import generic_model
from stages.frames import read_frames
from stages.model_lines import model_lines
from stages.motion_files import write_mot
from stages.overlay import MODEL, SKELETON, Drawing, Lines, bone_indices, write_overlay

TIME_S = np.array([0.0, 0.04, 0.08, 0.12])
KNEE_DEG = np.array([0.0, 40.0, 80.0])


@pytest.fixture(scope="module")
def kinematics(tmp_path_factory):
    """A model with muscles and patellae whose right knee bends, but for the third sample, which lacks."""
    folder = tmp_path_factory.mktemp("kinematics")
    generic = generic_model("pose2sim-muscles")
    model = opensim.Model(str(generic.folder / generic.model))
    model.initSystem()
    model.printToXML(str(folder / "scaled_model.osim"))
    names = [model.getCoordinateSet().get(i).getName() for i in range(model.getNumCoordinates())]
    angles = pd.DataFrame(0.0, pd.Index(TIME_S[[0, 1, 3]], name="time"), names)
    angles["knee_angle_r"], angles["pelvis_ty"] = KNEE_DEG, 0.95
    write_mot(folder / "angles.mot", angles)
    return folder


def test_the_models_lines_go_where_opensim_has_its_joints(kinematics):
    points, joined = model_lines(kinematics, TIME_S)
    model = opensim.Model(str(kinematics / "scaled_model.osim"))
    state = model.initSystem()
    for coordinate in model.getCoordinateSet():
        coordinate.setValue(state, 0.0, False)
    model.getCoordinateSet().get("pelvis_ty").setValue(state, 0.95, False)
    for time, knee in zip(TIME_S[[0, 1, 3]], KNEE_DEG, strict=True):
        model.getCoordinateSet().get("knee_angle_r").setValue(state, np.radians(knee), False)
        model.assemble(state)
        for body in ("femur_r", "tibia_r", "talus_r", "toes_r", "humerus_l"):
            expected = model.getBodySet().get(body).getPositionInGround(state).to_numpy()
            found = points.sel(time=time, keypoint=body).values
            np.testing.assert_allclose(found, expected, atol=2e-3)
    assert np.isnan(points.sel(time=TIME_S[2])).all()
    assert {("pelvis", "femur_r"), ("femur_r", "tibia_r"), ("calcn_l", "toes_l")} <= set(joined)
    assert all("ground" not in pair and "patella_r" not in pair for pair in joined)
    assert {name for pair in joined for name in pair} <= set(points.keypoint.values.tolist())


def test_lines_are_drawn_in_their_colours_where_they_are_known(tmp_path):
    video = tmp_path / "black.mp4"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.zeros((240, 320, 3), np.uint8), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    pairs = bone_indices([("hip", "knee")], ["knee", "foot", "hip"])
    across = np.array([[40.0, 60.0], [0.0, 0.0], [280.0, 60.0]])
    below = np.stack([across + [0, 100], across + [0, 100], np.full((3, 2), np.nan)])
    figures = [Lines(np.stack([across] * 3), pairs, SKELETON), Lines(below, pairs, MODEL)]
    drawing = Drawing(np.full((3, 1, 2), np.nan), np.zeros((3, 1)), figures)
    write_overlay(video, drawing, tmp_path / "overlay.mp4", 25, 240)
    frames = [image.astype(int) for _, _, image in read_frames(tmp_path / "overlay.mp4")]
    assert len(frames) == 3
    for index, image in enumerate(frames):
        assert np.abs(image[60, 150] - SKELETON).max() < 90
        drawn = np.abs(image[160, 150] - MODEL).max() < 90
        assert drawn == (index < 2)
        assert image[110, 150].max() < 40
