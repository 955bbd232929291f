"""Session folders of other programs: what is found in them, and that it is the same session."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from test_calibration import rig
from typer.testing import CliRunner

from calibration import read_cameras
from calibration.aniposelib_toml import write_toml
from calibration.camera import Y_UP_FROM
from calibration.opencap_pickle import board_up, write_opencap
from calibration.qualisys import write_qualisys
from pipeline import cli
from pipeline.config import configure
from pipeline.errors import PipelineError
from pipeline.files import load_dataset
from pipeline.inspect_session import inspect
from pipeline.runner import run_trial
from pipeline.session import open_session, with_cameras
from pipeline.simulate import plan_from, simulate
from pipeline.simulated_session import LAYOUTS, write_session
from stages.trial import no_progress

METADATA = {"mass_kg": 70.5, "height_m": 1.81, "checkerBoard": {"placement": "backWall"}}
CAMERAS = ("Cam0", "Cam1", "Cam2")
TOO_SHORT_TO_SYNCHRONISE = "synchronize.method=clocks"


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def named(world_up="-y", names=CAMERAS):
    return [replace(camera, name=name) for camera, name in zip(rig(world_up), names, strict=True)]


def write_metadata(folder: Path, **changes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sessionMetadata.yaml").write_text(yaml.safe_dump(METADATA | changes))


def film(visit: Path, trial: str, cameras=CAMERAS, suffix: str = "", media: str = "") -> None:
    for camera in cameras:
        touch(visit / camera / media / trial / f"{trial}{suffix}.avi")


@pytest.fixture
def lab(tmp_path):
    """A folder shaped as OpenCap's validation data; no video is ever opened by reading it."""
    folder = tmp_path / "subject2"
    write_metadata(folder)
    for visit, trials in (("Session0", ("static1", "squats1", "DJ3")), ("Session1", ("walking1",))):
        write_opencap(named(), folder / "VideoData" / visit)
        for trial in (*trials, "extrinsics"):
            film(folder / "VideoData" / visit, trial)
    return folder


def trials_of(folder: Path) -> dict:
    return {trial.name: trial for trial in open_session(folder).trials()}


# OpenCap's validation data


def test_trials_cameras_and_subject_of_the_validation_data_are_found(lab):
    session = open_session(lab)
    assert session.layout == "OpenCap's validation data"
    trials = trials_of(lab)
    assert list(trials) == ["DJ3", "squats1", "static1", "walking1"]  # extrinsics is no trial
    assert {name: trial.activity for name, trial in trials.items()} == {
        "DJ3": "DJ", "squats1": "squats", "static1": "static", "walking1": "walking",
    }  # fmt: skip
    for trial in trials.values():
        assert trial.cameras == list(CAMERAS)
        assert (trial.subject.height_m, trial.subject.mass_kg) == (1.81, 70.5)
        assert trial.world_up == "-y" and trial.results == lab / "results" / trial.name
    assert [each.name for each in session.select(activity="dj")] == ["DJ3"]


def test_the_walking_visit_has_its_own_calibration_and_the_first_visits_static_trial(lab):
    trials = trials_of(lab)
    assert trials["walking1"].scaling_trial.name == "static1"
    assert trials["static1"].scaling_trial is None
    for name, visit in (("walking1", "Session1"), ("squats1", "Session0")):
        assert {path.parts[-3] for path in trials[name].calibration.values()} == {visit}
        for other in trials[name].session_trials:  # cameras that have not moved in between
            assert {path.parts[-3] for path in other.calibration.values()} == {visit}
    assert {each.name for each in trials["squats1"].session_trials} >= {"static1"}
    film(lab / "VideoData" / "Session1", "static2")
    assert trials_of(lab)["walking1"].scaling_trial.name == "static2"
    assert trials_of(lab)["squats1"].scaling_trial.name == "static1"


def test_names_of_other_case_are_found(lab):
    (lab / "VideoData").rename(lab / "videodata")
    for visit in (lab / "videodata").iterdir():
        visit.rename(visit.with_name(visit.name.upper()))
        for camera in visit.with_name(visit.name.upper()).iterdir():
            camera.rename(camera.with_name(camera.name.lower()))
    (lab / "sessionMetadata.yaml").rename(lab / "sessionmetadata.YAML")
    assert trials_of(lab)["squats1"].cameras == ["cam0", "cam1", "cam2"]
    assert trials_of(lab)["squats1"].subject.height_m == 1.81


def test_synchronised_videos_are_preferred_if_every_camera_has_one(lab):
    visit = lab / "VideoData" / "Session0"
    film(visit, "squats1", suffix="_syncdWithMocap")
    film(visit, "DJ3", ("Cam1",), "_syncdWithMocap")
    session = open_session(lab)
    names = {t.name: [p.name for p in t.videos.values()] for t in session.trials()}
    assert names["squats1"] == ["squats1_syncdWithMocap.avi"] * 3
    assert names["DJ3"] == ["DJ3.avi"] * 3  # not one camera on another clock than the others
    assert any("squats1: the synchronised videos" in note for note in session.notes)
    for camera in ("Cam0", "Cam2"):
        shutil.rmtree(visit / camera / "DJ3")
        touch(visit / camera / "DJ3" / "DJ3_syncdWithMocap.avi")
    (visit / "Cam1" / "DJ3" / "DJ3_syncdWithMocap.avi").unlink()
    assert any("videos of Cam1 are not synchronised" in n for n in open_session(lab).notes)


def test_a_withheld_video_leaves_the_trial_to_the_other_cameras(lab):
    visit = lab / "VideoData" / "Session0"
    shutil.rmtree(visit / "Cam1" / "squats1")
    for camera in ("Cam0", "Cam2"):
        shutil.rmtree(visit / camera / "DJ3")
    trials = trials_of(lab)
    assert trials["squats1"].cameras == ["Cam0", "Cam2"] == list(trials["squats1"].calibration)
    assert trials["DJ3"].cameras == ["Cam1"]
    settings = configure("DJ", {})
    with pytest.raises(PipelineError, match="trial DJ3 has one camera"):
        list(run_trial(trials["DJ3"], lambda _: settings, lambda *_: no_progress, last="frames"))


def test_a_trial_that_cameras_spell_in_different_case_is_one(lab):
    camera = lab / "VideoData" / "Session0" / "Cam1"
    (camera / "squats1" / "squats1.avi").rename(camera / "squats1" / "Squats1.AVI")
    (camera / "squats1").rename(camera / "SQUATS1")
    trials = trials_of(lab)
    assert list(trials) == ["DJ3", "squats1", "static1", "walking1"]
    assert trials["squats1"].cameras == list(CAMERAS)
    assert trials["squats1"].videos["Cam1"].parts[-2:] == ("SQUATS1", "Squats1.AVI")


def test_videos_directly_in_a_cameras_folder_are_found(lab):
    visit = lab / "VideoData" / "Session0"
    for camera in ("Cam0", "Cam1"):
        shutil.rmtree(visit / camera / "squats1")
        touch(visit / camera / "squats1.avi")
        touch(visit / camera / "extrinsics.avi")
    touch(visit / "Cam2" / "DJ3_syncdWithMocap.avi")
    trials = trials_of(lab)
    assert list(trials) == ["DJ3", "squats1", "static1", "walking1"]
    assert [path.parent.name for path in trials["squats1"].videos.values()] == [
        "Cam0", "Cam1", "squats1",
    ]  # fmt: skip
    assert trials["DJ3"].videos["Cam2"].parent.name == "DJ3"  # as those of the other cameras


def test_of_several_videos_of_a_trial_and_camera_none_is_chosen_without_a_word(lab):
    folder = lab / "VideoData" / "Session0" / "Cam0" / "squats1"
    (folder / "squats1.avi").rename(folder / "first.avi")
    touch(folder / "second.avi")
    session = open_session(lab)
    assert session.select(trial="squats1")[0].cameras == ["Cam1", "Cam2"]
    assert any("Cam0 is left out of squats1: none of first.avi" in note for note in session.notes)
    touch(folder / "squats1.avi")
    touch(folder / "squats1.mov")
    with pytest.raises(PipelineError, match="Cam0 has several videos of trial squats1: .*avi and"):
        open_session(lab).trials()


def test_the_same_trial_name_in_two_visits_becomes_two_trials(lab):
    film(lab / "VideoData" / "Session1", "squats1")
    touch(lab / "MarkerData" / "Mocap" / "squats1.trc")
    session = open_session(lab)
    both = session.select(activity="squats")
    assert [trial.name for trial in both] == ["squats1_Session0", "squats1_Session1"]
    assert [trial.reference for trial in both] == [None, None]  # whose it is is not known
    assert any("squats1 were recorded in several visits" in note for note in session.notes)
    touch(lab / "MarkerData" / "Mocap" / "Session1" / "squats1.trc")
    found = [trial.reference for trial in open_session(lab).select(activity="squats")]
    assert found[0] is None and found[1].markers.parent.name == "Session1"


def test_motion_capture_of_a_trial_is_its_reference_unless_the_worlds_are_unknown(lab):
    markers = touch(lab / "MarkerData" / "Mocap" / "squats1.trc")
    angles = touch(lab / "OpenSimData" / "Mocap" / "IK" / "Squats1.mot")
    touch(lab / "OpenSimData" / "Mocap" / "Model" / "LaiUhlrich2022_scaled.osim")
    transform = lab / "mocapToVideoTransform.yaml"
    content = {
        "R_fromMocap_toVideo": np.eye(3).tolist(),
        "position_fromMocapOrigin_toVideoOrigin": [0.1, 0.2, 0.3],
    }
    transform.write_text(yaml.safe_dump(content))
    reference = trials_of(lab)["squats1"].reference
    assert (reference.markers, reference.angles, reference.space) == (markers, angles, transform)
    assert reference.model == "LaiUhlrich2022" and "motion capture" in reference.source
    assert trials_of(lab)["DJ3"].reference is None
    content["R_fromMocap_toVideo"][2] = [0.0, 0.0, 0.0]  # as some published ones are
    transform.write_text(yaml.safe_dump(content))
    session = open_session(lab)
    assert session.select(trial="squats1")[0].reference.space is None
    assert any("no rotation (determinant 0" in note for note in session.notes)


@pytest.mark.parametrize("placement, axis", [("backWall", "y"), ("Perpendicular", "y"),
                                             ("ground", "z"), ("Lying", "z"), ("ground_jumps", "z")])  # fmt: skip
@pytest.mark.parametrize("sign", "+-")
def test_up_is_the_boards_vertical_axis_as_the_cameras_hold_it(lab, placement, axis, sign):
    write_metadata(lab, checkerBoard={"placement": placement})
    held = [replace(camera, world_up="-y") for camera in named(sign + axis)]  # pickles do not tell
    write_opencap(held, lab / "VideoData" / "Session0")
    trial = trials_of(lab)["squats1"]
    assert trial.world_up == sign + axis
    cameras, _ = read_cameras(trial.calibration, trial.cameras, world_up=trial.world_up)
    assert all(1 < camera.center[1] < 2.5 for camera in cameras)  # they stand above the floor


def test_a_damaged_pickle_does_not_change_which_way_is_up_for_the_other_cameras(lab):
    write_metadata(lab, checkerBoard={"placement": "ground"})
    held = [replace(camera, world_up="-y") for camera in named("-z")]
    write_opencap(held, lab / "VideoData" / "Session0")
    for content in (b"x", pickle.dumps({"intrinsicMat": np.eye(3)})):
        path = lab / "VideoData" / "Session0" / "Cam1" / "cameraIntrinsicsExtrinsics.pickle"
        path.write_bytes(content)
        assert trials_of(lab)["squats1"].world_up == "-z"


@pytest.mark.parametrize("up", Y_UP_FROM)
def test_up_of_a_board_anywhere_is_told_by_the_cameras(up):
    assert board_up(rig(up)) == up == board_up(rig(up), up[1])


def test_doubts_about_up_are_told_and_session_toml_decides(lab):
    write_metadata(lab, checkerBoard={"placement": "ceiling"})
    assert any(
        "placement is 'ceiling', which is not known: -y" in n for n in open_session(lab).notes
    )
    write_metadata(lab, checkerBoard={"placement": "ground"})
    assert any("in the cameras' images -y is" in note for note in open_session(lab).notes)
    (lab / "session.toml").write_text('world_up = "+x"')
    assert trials_of(lab)["squats1"].world_up == "+x"


def test_session_toml_and_pose_override_what_the_folder_says(lab):
    for camera in ("Cam0", "Cam2"):
        touch(lab / "pose" / "squats1" / f"{camera}_json" / "000000.json")
    touch(lab / "pose" / "jumps1" / "Cam0_json" / "000000.json")
    (lab / "session.toml").write_text(
        '[subject]\nheight_m = 1.9\n[trials.squats1]\ncameras = ["Cam0", "Cam2"]\nactivity = "lunges"'
    )
    session = open_session(lab)
    squats = session.select(activity="lunges")[0]
    assert (squats.subject.height_m, squats.subject.mass_kg) == (1.9, 70.5)
    assert list(squats.poses) == list(squats.videos) == ["Cam0", "Cam2"]
    assert session.select(trial="DJ3")[0].poses == {}
    assert any("pose/jumps1 is of no trial" in note for note in session.notes)


@pytest.mark.parametrize(
    "text, note",
    [("height_m: 181", "height_m: input should be less than 2.6"), ("{", "cannot be read"),
     ("- 1", "holds no table"), (None, "there is no sessionMetadata.yaml")],
)  # fmt: skip
def test_metadata_that_say_nothing_sensible_are_left_out_with_a_note(lab, text, note):
    path = lab / "sessionMetadata.yaml"
    path.unlink() if text is None else path.write_text(text)
    session = open_session(lab)
    assert session.trials()[0].subject.height_m is None
    assert any(note in each for each in session.notes)


def test_a_missing_or_damaged_pickle_breaks_only_the_trials_that_need_it(lab):
    (lab / "VideoData" / "Session1" / "Cam0" / "cameraIntrinsicsExtrinsics.pickle").write_bytes(
        b"x"
    )
    for camera in CAMERAS:
        (lab / "VideoData" / "Session0" / camera / "cameraIntrinsicsExtrinsics.pickle").unlink()
    trials = trials_of(lab)
    with pytest.raises(PipelineError, match="Cam0.*was refused"):
        read_cameras(trials["walking1"].calibration, CAMERAS)
    with pytest.raises(PipelineError, match="no camera of this trial has a calibration file"):
        read_cameras(trials["squats1"].calibration, CAMERAS)
    for camera in CAMERAS:
        (lab / "VideoData" / "Session1" / camera / "cameraIntrinsicsExtrinsics.pickle").unlink()
    with pytest.raises(PipelineError, match="has a cameraIntrinsicsExtrinsics.pickle"):
        open_session(lab).trials()
    write_toml(named("+z"), lab / "Calib.toml")
    (lab / "session.toml").write_text('calibration = "Calib.toml"')
    assert trials_of(lab)["squats1"].calibration == lab / "Calib.toml"
    assert trials_of(lab)["squats1"].world_up is None


# OpenCap's download


def test_a_download_has_opencaps_results_as_reference_and_its_neutral_trial_scales(tmp_path):
    write_metadata(tmp_path)
    write_opencap(named(), tmp_path / "Videos")
    touch(tmp_path / "Videos" / "mappingCamDevice.pickle")
    for trial in ("neutral", "STS1", "calibration"):
        film(tmp_path / "Videos", trial, media="InputMedia")
    film(tmp_path / "Videos", "STS1", media="InputMedia", suffix="_sync")
    film(tmp_path / "Videos", "STS1", media="OutputMedia_HRNet")
    for camera in CAMERAS:  # the app may name a video by its number
        touch(tmp_path / "Videos" / camera / "InputMedia" / "jump" / "4e55cd.mov")
    angles = touch(tmp_path / "OpenSimData" / "Kinematics" / "STS1.mot")
    markers = touch(tmp_path / "MarkerData" / "STS1.trc")
    session, trials = open_session(tmp_path), trials_of(tmp_path)
    assert session.layout == "OpenCap download"
    assert list(trials) == ["STS1", "jump", "neutral"]
    assert {path.name for path in trials["STS1"].videos.values()} == {"STS1_sync.avi"}
    assert trials["STS1"].scaling_trial.name == "neutral"
    assert trials["STS1"].reference.source == "OpenCap's results"
    assert (trials["STS1"].reference.angles, trials["STS1"].reference.markers) == (angles, markers)


# Pose2Sim


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    (folder / "calibration").mkdir(parents=True)
    write_toml(rig("+z"), folder / "calibration" / "Calib_board.toml")
    (folder / "Config.toml").write_text(
        "[project]\nparticipant_height = 1.72\nparticipant_mass = 64.0\nframe_rate = 50\n"
        "[pose]\npose_model = 'Body_with_feet'\n"
    )
    for trial in ("static", "walk1"):
        for camera in ("cam1", "cam2"):
            touch(folder / trial / "videos" / f"{camera}.mp4")
    (folder / "walk1" / "Config.toml").write_text(
        "[project]\nparticipant_mass = 66\nparticipant_height = 'auto'\n[pose]\npose_model = 'BODY_25'\n"
    )
    return folder


def keypoints(folder: Path, cameras=("cam1", "cam2"), frames: int = 3) -> None:
    for camera in cameras:
        for number in range(frames):
            touch(folder / f"{camera}_json" / f"{camera}_{number:06d}.json")


def test_a_trials_config_wins_over_its_projects(project):
    keypoints(project / "walk1" / "pose")
    keypoints(project / "static" / "pose")
    trials = trials_of(project)
    static, walk = trials["static"], trials["walk1"]
    assert (static.subject.height_m, static.subject.mass_kg) == (1.72, 64)
    assert (walk.subject.height_m, walk.subject.mass_kg) == (None, 66)
    assert (static.keypoints, walk.keypoints) == ("halpe-26", "body-25")
    assert walk.scaling_trial.name == "static" and walk.activity == "walk"
    assert list(walk.videos) == list(walk.poses) == ["cam1", "cam2"]
    assert walk.calibration == project / "calibration" / "Calib_board.toml"


def test_a_lone_trial_finds_its_projects_config_and_calibration(project):
    (trial,) = open_session(project / "static").trials()
    assert trial.name == "static" and trial.subject.height_m == 1.72
    assert trial.calibration.name == "Calib_board.toml"
    assert trial.results == project / "static" / "results" / "static"


def test_a_project_may_be_one_trial(tmp_path):
    folder = tmp_path / "Demo_SinglePerson"
    for camera in ("cam1", "cam2"):
        touch(folder / "videos" / f"{camera}.mp4")
    touch(folder / "Config.toml")
    (folder / "calibration").mkdir()
    with pytest.raises(PipelineError, match="no calibration file in"):
        open_session(folder).trials()
    write_qualisys(rig("+z"), folder / "calibration" / "Calib.qca.txt")
    (trial,) = open_session(folder).trials()
    assert trial.name == "Demo_SinglePerson" and trial.cameras == ["cam1", "cam2"]
    assert trial.calibration.name == "Calib.qca.txt"


def test_synchronised_keypoints_are_preferred_and_timed_by_the_stated_rate(project):
    keypoints(project / "walk1" / "pose")
    keypoints(project / "walk1" / "pose-sync", frames=5)
    session = open_session(project)
    (walk,) = session.select(trial="walk1")
    assert {path.parent.name for path in walk.poses.values()} == {"pose-sync"}
    assert walk.videos == {} and walk.rate_hz == {"cam1": 50.0, "cam2": 50.0}
    assert any("walk1: the synchronised keypoints" in note for note in session.notes)


def test_files_that_no_camera_is_named_after_are_taken_in_order_and_the_user_is_told(project):
    for place in ("videos", "pose"):
        for index in (9, 10, 11):
            if place == "pose":
                keypoints(project / "walk1" / place, (f"GX{index}",))
            else:
                touch(project / "walk1" / place / f"GX{index}.mp4")
    for camera in ("cam1", "cam2"):
        (project / "walk1" / "videos" / f"{camera}.mp4").unlink()
    session = open_session(project)
    (walk,) = session.select(trial="walk1")
    assert {name: path.stem for name, path in walk.videos.items()} == {
        "cam1": "GX9", "cam2": "GX10", "cam3": "GX11",
    }  # fmt: skip
    assert walk.poses["cam3"].name == "GX11_json"
    assert any("GX9 is cam1, GX10 is cam2, GX11 is cam3" in note for note in session.notes)
    (project / "walk1" / "videos" / "GX11.mp4").unlink()  # two videos of three cameras: no guess
    shutil.rmtree(project / "walk1" / "pose")
    assert trials_of(project)["walk1"].cameras == ["GX10", "GX9"]


def test_what_config_asks_for_and_is_not_done_is_told(project):
    (project / "walk1" / "Config.toml").write_text(
        "[project]\nframe_range = [10, 300]\nmulti_person = true\nparticipant_mass = 70.0\n"
    )
    (project / "Config.toml").write_text("[project]\nexclude_from_batch = ['static']\n")
    session = open_session(project)
    assert [trial.name for trial in session.trials()] == ["walk1"]
    told = " ".join(session.notes)
    for what in ("static is left out", "frame_range", "only the largest person", "default"):
        assert what in told
    (project / "Config.toml").write_text("[project\n")
    with pytest.raises(PipelineError, match="cannot read .*Config.toml"):
        open_session(project).trials()


def test_participants_are_not_scaled_by_the_static_trial_of_another(project):
    for participant, height in (("P01", 1.6), ("P02", 1.9), ("P03", 1.75)):
        for trial in ("static1", "squats1")[participant == "P03" :]:
            for camera in ("cam1", "cam2"):
                touch(project / participant / trial / "videos" / f"{camera}.mp4")
        (project / participant / "Config.toml").write_text(
            f"[project]\nparticipant_height = {height}\n"
        )
    for trial in ("static", "walk1"):
        shutil.rmtree(project / trial)
    trials = trials_of(project)
    scaled_by = {
        name: each.scaling_trial.name for name, each in trials.items() if each.scaling_trial
    }
    assert scaled_by == {"P01_squats1": "P01_static1", "P02_squats1": "P02_static1"}
    others = {name: [other.name for other in each.session_trials] for name, each in trials.items()}
    assert others["P01_squats1"] == ["P01_static1"] and others["P03_squats1"] == []
    assert {each.activity for each in trials.values()} == {"squats", "static"}
    found = inspect(project)
    assert {row.height_m for row in found.trials} == {1.6, 1.9, 1.75}
    assert any("scales the model of P03_squats1:" in doubt for doubt in found.doubts)
    told = CliRunner().invoke(cli.app, ["inspect", str(project)]).output
    assert "height 1.6-1.9 m" in told


@pytest.mark.parametrize(
    "text, message",
    [
        ("project = 5", "project is no table: 5"),
        ("calibration = 'x'", "calibration is no table"),
        ("[calibration]\nconvert = 'x'", "calibration.convert is no table"),
        ("pose = []", "pose is no table"),
        ("[project]\nexclude_from_batch = 'walk10'", "exclude_from_batch is no list of names"),
    ],
)
def test_values_of_another_kind_in_config_are_named(project, text, message):
    (project / "Config.toml").write_text(text)
    with pytest.raises(PipelineError, match=f"Config.toml: .*{message}"):
        open_session(project).trials()


def test_a_link_to_a_trial_has_the_links_name(project, tmp_path):
    elsewhere = (project / "walk1").rename(tmp_path / "recording-0815")
    (project / "walk1").symlink_to(elsewhere)
    assert list(trials_of(project)) == ["static", "walk1"]


def test_several_calibrations_of_a_project_are_not_chosen_from(project):
    write_toml(rig("+z"), project / "calibration" / "Calib_scene.toml")
    with pytest.raises(
        PipelineError, match="2 calibration files.*Calib_board.toml, Calib_scene.toml"
    ):
        open_session(project).trials()
    (project / "session.toml").write_text('calibration = "calibration/Calib_scene.toml"')
    assert trials_of(project)["walk1"].calibration.name == "Calib_scene.toml"


# One camera set of several


def test_a_subset_of_cameras_has_results_of_its_own(lab):
    trial = trials_of(lab)["squats1"]
    two = with_cameras(trial, ["Cam2", "Cam0"])
    assert two.cameras == ["Cam0", "Cam2"] == list(two.calibration) == two.scaling_trial.cameras
    assert two.results == lab / "results" / "squats1_Cam0-Cam2"
    assert two.scaling_trial.results == lab / "results" / "static1_Cam0-Cam2"
    assert {each.results.name for each in two.session_trials} >= {"static1_Cam0-Cam2"}
    assert all(each.cameras == two.cameras for each in two.session_trials)
    assert with_cameras(trial, CAMERAS).results == trial.results
    with pytest.raises(PipelineError, match="no camera Cam9. Its cameras: Cam0, Cam1, Cam2"):
        with_cameras(trial, ["Cam0", "Cam9"])
    with pytest.raises(PipelineError, match="depth needs two cameras"):
        with_cameras(trial, ["Cam0"])


# The same session in every layout


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One short simulated session, with videos, in each layout."""
    plan = plan_from(
        {"duration_s": 1.2, "cameras": 3, "model": "pose2sim", "rates_hz": (20.0,), "seed": 4},
        0.5,
        [],
    )
    simulation = simulate(plan)
    folder = tmp_path_factory.mktemp("layouts")
    for layout in LAYOUTS:
        write_session(simulation, folder / layout, layout, True, no_progress)
    return folder


@pytest.mark.slow
def test_every_layout_is_recognised_and_has_the_same_session(written):
    names = {layout: open_session(written / layout).layout for layout in LAYOUTS}
    assert len(set(names.values())) == len(LAYOUTS)
    sessions = {
        layout: open_session(written / layout).select(activity="squats") for layout in LAYOUTS
    }
    ours = sessions["pipeline"][0]
    own, _ = read_cameras(ours.calibration, ours.cameras, world_up=ours.world_up)
    for (trial,) in sessions.values():
        assert trial.subject == ours.subject and trial.scaling_trial is not None
        cameras, _ = read_cameras(trial.calibration, trial.cameras, world_up=trial.world_up)
        for camera, same in zip(cameras, own, strict=True):
            assert camera.image_size == same.image_size
            for part in ("intrinsics", "distortion", "camera_from_world"):
                assert np.array_equal(getattr(camera, part), getattr(same, part)), part


@pytest.mark.slow
def test_every_layout_is_inspected_as_runnable(written):
    for layout in LAYOUTS:
        result = CliRunner().invoke(cli.app, ["inspect", str(written / layout), "--json"])
        assert result.exit_code == 0, result.output
        found = json.loads(result.output)
        assert {trial["name"] for trial in found["trials"]} >= {"squats1"}
        (calibration,) = found["calibrations"]
        assert len(calibration["cameras"]) == 3 and not calibration["doubts"]
        for trial in found["trials"]:
            assert not trial["problem"] and trial["brings"] == "videos and keypoints"
            filmed = {"squats1": 25}.get(trial["name"], 30)  # of 1.2 s, and 1.5 s standing
            assert [row["frames"] for row in trial["recordings"]] == pytest.approx(
                [filmed] * 3, abs=1
            )
            assert [row["rate_hz"] for row in trial["recordings"]] == [20.0] * 3


@pytest.mark.slow
def test_the_same_session_in_every_layout_gives_the_same_angles(written):
    angles = {}
    for layout in LAYOUTS:
        (trial,) = open_session(written / layout).select(activity="squats")

        def settings(each):
            return configure(
                each.activity, {}, ["kinematics.model=pose2sim", TOO_SHORT_TO_SYNCHRONISE]
            )

        list(run_trial(trial, settings, lambda *_: no_progress, last="kinematics"))
        path = trial.folder("kinematics") / "angles.mot"
        angles[layout] = pd.read_csv(path, sep="\t", skiprows=_header_lines(path))
    ours = angles["pipeline"]
    assert len(ours) > 15 and ours.knee_angle_r.std() > 0.5
    for layout, table in angles.items():
        assert list(table) == list(ours)
        assert np.abs(table.to_numpy() - ours.to_numpy()).max() < 1e-6, layout


@pytest.mark.slow
def test_run_with_some_cameras_uses_them_alone(written):
    folder = written / "pipeline"
    options = ("--activity", "squats", "--cameras", "cam3,cam1", "--to", "triangulate",
               "--set", TOO_SHORT_TO_SYNCHRONISE)  # fmt: skip
    result = CliRunner().invoke(cli.app, ["run", str(folder), *options])
    assert result.exit_code == 0, result.output
    points = load_dataset(folder / "results" / "squats1_cam1-cam3" / "05_triangulate" / "points.nc")
    assert list(points.camera.values) == ["cam1", "cam3"]
    wrong = CliRunner().invoke(cli.app, ["run", str(folder), "--cameras", "cam1,left"])
    assert wrong.exit_code == 1 and "no camera left" in str(wrong.exception)


def _header_lines(path: Path) -> int:
    return path.read_text().splitlines().index("endheader") + 1


def test_a_static_trial_that_lacks_a_camera_scales_with_the_others(lab):
    shutil.rmtree(lab / "VideoData" / "Session0" / "Cam0" / "static1")
    squats = trials_of(lab)["squats1"]
    assert with_cameras(squats, CAMERAS).scaling_trial.cameras == ["Cam1", "Cam2"]
    with pytest.raises(PipelineError, match="trial static1: depth needs two cameras"):
        with_cameras(squats, ("Cam0", "Cam1"))


@pytest.mark.parametrize("cameras", ["", " , ", "Cam0,"])
def test_an_empty_list_of_cameras_is_not_all_of_them(lab, cameras):
    told = CliRunner().invoke(cli.app, ["run", str(lab), "--cameras", cameras])
    assert told.exit_code == 1 and "needs two cameras at least" in str(told.exception)


# Inspect


def test_inspect_tells_what_is_missing_and_how_to_mend_it(lab):
    found = inspect(lab)
    assert not found.runnable and "no trial can be run" in found.problem  # the videos are empty
    assert all("no video" in trial.problem for trial in found.trials)
    assert {Path(each.where).name for each in found.calibrations} == {"Session0", "Session1"}
    assert [row.name for row in found.calibrations[0].cameras] == list(CAMERAS)
    assert [pair.angle_deg for pair in found.calibrations[0].pairs] == pytest.approx(
        [57.3, 114.6, 57.3], abs=3
    )
    (lab / "sessionMetadata.yaml").unlink()
    told = " ".join(inspect(lab).doubts)
    assert "height is missing" in told and "mass is missing" in told
    result = CliRunner().invoke(cli.app, ["inspect", str(lab)])
    assert result.exit_code == 1 and "cannot run" in result.output


def test_inspect_lists_the_trials_even_without_any_calibration(tmp_path):
    keypoints(tmp_path / "pose" / "squats1", frames=60)
    (tmp_path / "session.toml").write_text("[trials.squats1]\nrate_hz = 30.0\n")
    found = inspect(tmp_path)
    (row,) = found.trials
    assert row.cameras == ["cam1", "cam2"] and row.recordings[0].duration_s == 2
    assert not found.runnable and "no calibration file in" in row.problem
    told = CliRunner().invoke(cli.app, ["inspect", str(tmp_path)])
    assert told.exit_code == 1 and "squats1: no calibration file in" in told.output
    with pytest.raises(PipelineError, match="no calibration file in"):
        open_session(tmp_path).trials()


def test_inspect_names_keypoints_that_are_not_known(tmp_path):
    keypoints(tmp_path / "pose" / "squats1")
    (tmp_path / "calibration").mkdir()
    write_toml(rig("+z"), tmp_path / "calibration" / "Calib.toml")
    (tmp_path / "session.toml").write_text(
        "keypoints = 'body25'\n[trials.squats1]\nrate_hz = 30.0\n"
    )
    (row,) = inspect(tmp_path).trials
    assert "no keypoint vocabulary 'body25'" in row.problem


def test_a_trial_that_cannot_be_run_does_not_keep_the_others_from_it(tmp_path):
    (tmp_path / "calibration").mkdir()
    write_toml(rig("+z"), tmp_path / "calibration" / "Calib.toml")
    keypoints(tmp_path / "pose" / "squats1", ("cam1", "cam2"), frames=60)
    keypoints(tmp_path / "pose" / "squats2", ("cam1",))
    keypoints(tmp_path / "pose" / "squats3")
    keypoints(tmp_path / "pose" / "squats4", ("cam1", "left"))
    (tmp_path / "session.toml").write_text(
        "[trials.squats1]\nrate_hz = { cam1 = 30.0, cam2 = 60.0 }\n"
        "[trials.squats2]\nrate_hz = 30.0\n[trials.squats4]\nrate_hz = 30.0\n"
    )
    found = inspect(tmp_path)
    one, alone, untimed, uncalibrated = found.trials
    assert found.runnable and not one.problem and one.brings == "keypoints"
    assert [(row.frames, row.duration_s) for row in one.recordings] == [(60, 2.0), (60, 1.0)]
    assert "frame rates differ: 30 to 60 Hz" in one.doubts and "cam3" in one.doubts[0]
    assert "only one camera (cam1)" in alone.problem
    assert "no rate of camera cam1" in untimed.problem
    assert "no camera left" in uncalibrated.problem
    result = CliRunner().invoke(cli.app, ["inspect", str(tmp_path)])
    assert result.exit_code == 0 and result.output.count("cannot run") == 3


def test_inspect_of_a_folder_that_is_no_session_says_what_was_expected(tmp_path):
    result = CliRunner().invoke(cli.app, ["inspect", str(tmp_path)])
    assert result.exit_code == 1
    for layout in ("videos/TRIAL/CAMERA.mp4", "VideoData/Session0", "InputMedia", "Config.toml"):
        assert layout in result.output


# Init


@pytest.fixture
def loose(tmp_path):
    folder = tmp_path / "anna"
    for name in ("squats1_cam1.mp4", "cam2_squats1.MOV", "cam3/squats1.mp4", "static1/cam1.mp4"):
        touch(folder / name).write_text(name)
    write_toml(rig("+z"), folder / "Calib.toml")
    return folder


def init(folder: Path, *options: str, told: str = ""):
    return CliRunner().invoke(cli.app, ["init", str(folder), *options], input=told)


def test_init_links_loose_videos_to_their_places_and_keeps_the_originals(loose):
    result = init(loose, "--height", "1.7", "--yes")
    assert result.exit_code == 0, result.output
    trials = trials_of(loose)
    assert {name: trial.cameras for name, trial in trials.items()} == {
        "squats1": ["cam1", "cam2", "cam3"], "static1": ["cam1"],
    }  # fmt: skip
    assert trials["squats1"].videos["cam2"].read_text() == "cam2_squats1.MOV"
    assert (loose / "cam2_squats1.MOV").exists() and (loose / "cam3" / "squats1.mp4").exists()
    assert trials["squats1"].subject.height_m == 1.7 and trials["squats1"].subject.mass_kg is None
    assert trials["squats1"].calibration == loose / "Calib.toml"


def test_init_takes_names_of_other_case_as_one_trial(loose):
    (loose / "cam2_squats1.MOV").rename(loose / "cam2_Squats1.MOV")
    assert init(loose, "--yes").exit_code == 0
    squats, static = trials_of(loose).values()
    assert squats.cameras == ["cam1", "cam2", "cam3"] and static.cameras == ["cam1"]


def test_init_copies_no_file_that_is_no_calibration(lab, tmp_path):
    for name in ("notes.txt", "other.toml"):
        (tmp_path / name).write_text("[a]")
        told = init(lab, "--yes", "--calibration", str(tmp_path / name))
        assert told.exit_code == 1 and name in str(told.exception)
    assert not (lab / "calibration").exists() and not (lab / "session.toml").exists()


def test_init_asks_and_does_nothing_if_told_so(loose):
    before = sorted(loose.rglob("*"))
    assert init(loose, told="n\n").exit_code == 1
    assert sorted(loose.rglob("*")) == before
    assert init(loose, told="y\n1,7\n\n").exit_code == 0
    assert trials_of(loose)["squats1"].subject.height_m == 1.7


def test_init_replaces_a_session_toml_only_when_told_so(loose):
    (loose / "session.toml").write_text("world_up = '-z'")
    refused = init(loose, "--yes")
    assert refused.exit_code == 1 and "there already" in str(refused.exception)
    assert init(loose, told="n\n").exit_code == 1
    assert (loose / "session.toml").read_text() == "world_up = '-z'"
    assert init(loose, told="y\ny\n\n60\n").exit_code == 0
    assert "mass_kg = 60" in (loose / "session.toml").read_text()


@pytest.mark.parametrize(
    "names, options, message",
    [
        (("holiday.mp4",), (), "cannot tell trial and camera of holiday.mp4"),
        (
            ("squats1_cam1.mp4", "cam1/squats1.mp4"),
            (),
            "would both be camera cam1 of trial squats1",
        ),
        ((), (), "there are no videos"),
        (("a_cam1.mp4",), ("--height", "170"), "height_m: input should be less than 2.6"),
        (("a_cam1.mp4",), ("--calibration", "nowhere.toml"), "no calibration at nowhere.toml"),
    ],
)
def test_init_says_what_it_cannot_do_and_leaves_the_folder_alone(tmp_path, names, options, message):
    for name in names:
        touch(tmp_path / "s" / name)
    (tmp_path / "s").mkdir(exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    result = init(tmp_path / "s", "--yes", *options)
    assert result.exit_code == 1 and message in str(result.exception)
    assert sorted(tmp_path.rglob("*")) == before


def test_init_never_replaces_another_video(loose):
    touch(loose / "videos" / "squats1" / "cam1.mp4").write_text("another")
    result = init(loose, "--yes")
    assert result.exit_code == 1 and "is another file" in str(result.exception)
    assert (loose / "videos" / "squats1" / "cam1.mp4").read_text() == "another"


def test_init_does_not_ask_for_what_the_project_says(project):
    assert init(project, told="").exit_code == 0  # nothing to read an answer from
    assert trials_of(project)["static"].subject.height_m == 1.72
    assert not (project / "videos").exists()


def test_init_of_another_programs_session_adds_only_what_it_lacks(lab):
    (lab / "sessionMetadata.yaml").unlink()
    assert init(lab, told="1.66\n58\n").exit_code == 0
    subject = trials_of(lab)["squats1"].subject
    assert (subject.height_m, subject.mass_kg) == (1.66, 58)
    assert not (lab / "videos").exists()
