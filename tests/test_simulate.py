"""The command `pipeline simulate`: its files, its errors, and the way back to the truth."""

import hashlib
import json
import re
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import opensim
import pytest
import yaml
from scipy.interpolate import CubicSpline
from scipy.optimize import least_squares
from typer.testing import CliRunner

from calibration import read_cameras
from models.augmenter import MARKERS
from models.opensim_model import (
    generic_model,
    load_model,
    rotational_coordinates,
    solve_inverse_kinematics,
)
from models.simulation.rendering import BACKGROUND, FLOOR
from models.simulation.rig import IMAGE_SIZE
from models.vocabulary import vocabulary
from pipeline import cli
from pipeline.config import configure
from pipeline.files import load_dataset
from pipeline.runner import run_trial
from pipeline.session import open_session
from pipeline.simulate import plan_from, simulate
from stages.export import read_trc
from stages.motion_files import in_file_units, read_mot
from stages.poses import frame_files
from stages.trial import no_progress

STILL = ("--motion", "static", "--no-static", "--rate", "10")
SHORT = ("--duration", "1", "--cameras", "2", "--model", "pose2sim")


def make(folder: Path, *options: str) -> Path:
    result = CliRunner().invoke(cli.app, ["simulate", str(folder), *SHORT, *options])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Three cameras of two rates, without errors."""
    folder = tmp_path_factory.mktemp("sessions") / "perfect"
    return make(folder, "--cameras", "3", "--rate", "60", "--rate", "59.94", "--noise", "0")


@pytest.fixture(scope="module")
def opencap(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sessions") / "opencap"
    options = ("--layout", "opencap", "--rate", "10", "--no-static", "--noise", "0")
    return make(folder, *options)


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def true_points(folder: Path, trial: str, what: str):
    """Time (s) and positions (time, 3) by name, m."""
    time_s, names, position = read_trc(folder / "truth" / trial / f"{what}.trc")
    return time_s, dict(zip(names, np.moveaxis(position, 1, 0), strict=True))


# What is written


def test_a_session_is_written_as_documented(session):
    assert {path.name for path in session.iterdir()} == {
        "calibration", "pose", "session.toml", "truth",
    }  # fmt: skip
    assert {path.name for path in (session / "pose").iterdir()} == {"squats1", "static1"}
    for trial in ("squats1", "static1"):
        assert {path.name for path in (session / "truth" / trial).iterdir()} == {
            "angles.mot", "cameras.toml", "joint_centers.trc", "keypoints.trc", "markers.trc",
            "model.osim", "simulation.json",
        }  # fmt: skip


def test_our_session_reads_it(session):
    squats, static = open_session(session).trials()
    assert (squats.name, static.name) == ("squats1", "static1")
    assert squats.scaling_trial.name == "static1"
    assert squats.rate_hz == {"cam1": 60.0, "cam2": 59.94, "cam3": 59.94}
    assert squats.keypoints == "halpe-26"
    about = json.loads((session / "truth" / "squats1" / "simulation.json").read_text())
    assert squats.subject.height_m == pytest.approx(about["person"]["height_m"], abs=6e-4)
    assert squats.subject.mass_kg == pytest.approx(about["person"]["mass_kg"], abs=0.06)
    assert list(frame_files(squats.poses["cam1"])) == list(range(61))
    assert list(frame_files(squats.poses["cam2"])) == list(range(60))


def test_keypoints_in_the_files_are_the_truths_projections(session):
    """By OpenCV, with the true camera, at each frame's time."""
    time_s, truth = true_points(session, "squats1", "keypoints")
    (camera, *_), _ = read_cameras(session / "truth/squats1/cameras.toml", ["cam1", "cam2", "cam3"])
    files = frame_files(open_session(session).select(trial="squats1")[0].poses["cam1"])
    names = vocabulary("halpe-26").keypoints
    for number in (0, 21, 60):  # at 60 Hz every third frame is at a sample of 100 Hz
        people = json.loads(files[number].read_text())["people"]
        found = np.array(people[0]["pose_keypoints_2d"]).reshape(-1, 3)
        at = np.array([truth[name][round(number / 60 * 100)] for name in names])
        pixels, _ = cv2.projectPoints(
            at, cv2.Rodrigues(camera.camera_from_world[:3, :3])[0], camera.camera_from_world[:3, 3],
            camera.intrinsics, camera.distortion,
        )  # fmt: skip
        assert np.abs(found[:, :2] - pixels[:, 0]).max() < 0.01
        assert (found[:, 2] == 1).all()
    assert time_s[-1] == pytest.approx(1.0)


def test_every_calibration_file_reads_back_to_the_same_projection(session):
    names = ["cam1", "cam2", "cam3"]
    points = np.random.default_rng(1).uniform([-1, 0, -1], [1, 2, 1], (50, 3))
    true, _ = read_cameras(session / "truth" / "squats1" / "cameras.toml", names)
    for file in ("Calib.toml", "Calib.qca.txt", "."):  # the folder itself holds OpenCap's pickles
        found, _ = read_cameras(session / "calibration" / file, names)
        for camera, expected in zip(found, true, strict=True):
            assert camera.image_size == expected.image_size == IMAGE_SIZE
            assert np.abs(camera.project(points) - expected.project(points)).max() < 1e-3
            assert camera.center[1] > 1.0  # Y up


def test_markers_in_the_truth_are_where_opensim_has_them(session):
    folder = session / "truth" / "squats1"
    model = opensim.Model(str(folder / "model.osim"))
    state = model.initSystem()
    angles = read_mot(folder / "angles.mot")
    turning = rotational_coordinates(model)
    sample = len(angles) - 1
    for name, value in angles.iloc[sample].items():
        value = np.radians(value) if name in turning else value
        model.getCoordinateSet().get(name).setValue(state, float(value), False)
    model.assemble(state)
    model.realizePosition(state)
    _, markers = true_points(session, "squats1", "markers")
    assert set(markers) == set(MARKERS)
    for name, course in markers.items():
        place = model.getMarkerSet().get(name).getLocationInGround(state).to_numpy()
        assert place == pytest.approx(course[sample], abs=1e-5), name


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_session(tmp_path):
    one, two, other = (
        hashes(make(tmp_path / name, *STILL, "--duration", "0.6", "--seed", seed, *options))
        for name, seed, *options in (("a", "3", "--render"), ("b", "3", "--render"), ("c", "4"))
    )
    assert one == two and "videos/static1/cam1.mp4" in one
    changed = [name for name in one if one[name] != other.get(name)]
    assert {"session.toml", "truth/static1/angles.mot", "calibration/Calib.toml"} <= set(changed)


def test_a_single_source_of_errors_leaves_the_rest_of_the_files_alone(session, tmp_path):
    options = ("--cameras", "3", "--rate", "60", "--rate", "59.94", "--noise", "0")
    wrong = hashes(make(tmp_path / "s", *options, "--error", "calibration=1"))
    changed = {name for name, value in hashes(session).items() if wrong[name] != value}
    assert "calibration/Calib.toml" in changed
    assert {name.partition("/")[0] for name in changed} == {"calibration", "truth"}
    assert {Path(n).name for n in changed if n.startswith("truth")} == {"simulation.json"}


def test_cameras_that_start_apart_see_the_truth_at_the_clocks_it_tells(tmp_path):
    """Projected by OpenCV; offset and rate are fitted to all frames."""
    apart = ("--start-spread", "1", "--drift", "500", "--duration", "11")
    folder = make(tmp_path / "s", *apart, "--rate", "10", "--noise", "0", "--no-static")
    told_s = json.loads((folder / "truth/squats1/simulation.json").read_text())["clock_offsets_s"]
    assert told_s["cam1"] == 0  # the session's clock, on which results are compared
    time_s, truth = true_points(folder, "squats1", "keypoints")
    body = CubicSpline(time_s, np.stack([truth[n] for n in vocabulary("halpe-26").keypoints], 1))
    rates = []
    for camera in read_cameras(folder / "truth/squats1/cameras.toml", list(told_s))[0]:
        files = frame_files(open_session(folder).trials()[0].poses[camera.name])
        seen = np.array(
            [json.loads(f.read_text())["people"][0]["pose_keypoints_2d"] for f in files.values()]
        ).reshape(len(files), -1, 3)[..., :2]
        own_s = np.array(list(files)) / 10

        def misses_px(clock, camera=camera, own_s=own_s, seen=seen):
            turn, shift = camera.camera_from_world[:3, :3], camera.camera_from_world[:3, 3]
            points = body(clock[0] + clock[1] * own_s).reshape(-1, 3)
            lens = (camera.intrinsics, camera.distortion)
            pixels, _ = cv2.projectPoints(points, cv2.Rodrigues(turn)[0], shift, *lens)
            return pixels.ravel() - seen.ravel()

        fit = least_squares(misses_px, [told_s[camera.name], 1.0], x_scale=[0.01, 1e-4])
        assert np.abs(fit.fun).max() < 0.1
        assert fit.x[0] == pytest.approx(told_s[camera.name], abs=1e-4)
        rates.append(fit.x[1] - 1)
    assert 0.01 < abs(told_s["cam1"] - told_s["cam2"]) <= 1
    assert 1e-5 < max(np.abs(rates)) <= 501e-6 and abs(rates[0] - rates[1]) > 1e-5


def test_the_opencap_layout_has_opencaps_paths(opencap):
    about = yaml.safe_load((opencap / "sessionMetadata.yaml").read_text())
    assert 1.5 < about["height_m"] < 1.9 and about["sex"] in "fm" and about["mass_kg"] > 40
    assert about["checkerBoard"]["placement"] == "backWall"
    wanted = {
        "mocapToVideoTransform.yaml", "MarkerData/Mocap/squats1.trc", "OpenSimData/Mocap/IK/squats1.mot",
        "OpenSimData/Mocap/Model/pose2sim_scaled.osim",
        *(f"VideoData/Session0/Cam{i}/cameraIntrinsicsExtrinsics.pickle" for i in (0, 1)),
        *(f"VideoData/Session0/Cam{i}/squats1/squats1.avi" for i in (0, 1)),
        *(f"pose/squats1/Cam{i}_json/Cam{i}_000010.json" for i in (0, 1)),
    }  # fmt: skip
    assert wanted <= set(hashes(opencap))
    # Motion capture is in mm, at 100 Hz, whatever the videos are.
    lines = (opencap / "MarkerData" / "Mocap" / "squats1.trc").read_text().splitlines()
    header = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=True))
    assert (float(header["DataRate"]), header["Units"]) == (100, "mm")


def test_opencaps_names_of_movements_and_visits(tmp_path):
    motions = [f"--motion={each}" for each in ("sit-to-stand", "gait", "dropjump")]
    options = ("--layout", "opencap", "--rate", "5", "--duration", "0.6", *motions)
    folder = make(tmp_path / "s", *options)
    videos = {"/".join(path.parts[-4:-1]) for path in folder.rglob("*.avi")}
    assert videos == {
        f"Session{visit}/Cam{camera}/{trial}"
        for visit, trial in ((0, "static1"), (0, "STS1"), (0, "DJ1"), (1, "walking1"))
        for camera in (0, 1)
    }
    assert len(list((folder / "VideoData").rglob("*.pickle"))) == 4
    assert {path.stem for path in (folder / "MarkerData" / "Mocap").iterdir()} == {
        "static1", "STS1", "DJ1", "walking1",
    }  # fmt: skip
    walking = open_session(folder).select(activity="walking")[0]
    assert walking.scaling_trial.name == "static1" and walking.cameras == ["Cam0", "Cam1"]
    for name in ("STS", "DJ", "walking"):
        ours = {"STS": "sit-to-stand", "DJ": "dropjump", "walking": "gait"}[name]
        assert configure(name, {}) == configure(ours, {})


def test_a_motion_added_does_not_change_the_others():
    values = {"cameras": 2, "model": "pose2sim", "duration_s": 0.6, "rates_hz": (10.0,)}
    alone = simulate(plan_from(values | {"motion": "squats"}, 1, []))
    more = simulate(plan_from(values | {"motion": ("squats", "gait", "squats")}, 1, []))
    assert [trial.name for trial in more.trials] == ["static1", "squats1", "gait1", "squats2"]
    for one, same in zip(alone.trials, more.trials[:2], strict=True):
        assert one.scene.angles.equals(same.scene.angles)
        for camera, view in one.views.items():
            assert np.array_equal(view.position, same.views[camera].position, equal_nan=True)
    squats, again = (more.trials[index].scene.angles for index in (1, 3))
    assert not np.allclose(squats.iloc[:50], again.iloc[:50])


def test_opencaps_mocap_markers_and_angles_map_back_to_the_cameras_world(opencap):
    """p_video = R (p_mocap - position), as the transform's names say."""
    table = yaml.safe_load((opencap / "mocapToVideoTransform.yaml").read_text())
    turn = np.array(table["R_fromMocap_toVideo"])
    origin = np.array(table["position_fromMocapOrigin_toVideoOrigin"])
    assert np.linalg.norm(origin) > 0.1  # else nothing would be tested
    _, names, mocap = read_trc(opencap / "MarkerData" / "Mocap" / "squats1.trc")
    _, truth = true_points(opencap, "squats1", "markers")
    assert (mocap - origin) @ turn.T == pytest.approx(
        np.stack([truth[n] for n in names], 1), abs=1e-5
    )
    angles, true = (
        read_mot(path)
        for path in (
            opencap / "OpenSimData/Mocap/IK/squats1.mot",
            opencap / "truth/squats1/angles.mot",
        )
    )
    pelvis = ["pelvis_tx", "pelvis_ty", "pelvis_tz"]
    assert (angles[pelvis] - origin).to_numpy() == pytest.approx(true[pelvis].to_numpy(), abs=1e-6)
    assert angles.drop(columns=pelvis).equals(true.drop(columns=pelvis))
    cameras, _ = read_cameras(opencap / "VideoData" / "Session0", ["Cam0", "Cam1"])
    expected, _ = read_cameras(opencap / "truth" / "squats1" / "cameras.toml", ["Cam0", "Cam1"])
    for camera, other in zip(cameras, expected, strict=True):
        assert camera.center == pytest.approx(other.center, abs=1e-6)


def test_an_osim_by_its_path_is_written_inside_the_session_only(tmp_path):
    """A model's path in a file's name once led out of the folder."""
    generic = generic_model("pose2sim")
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.osim").write_bytes((generic.folder / generic.model).read_bytes())
    options = ("--layout", "opencap", "--no-resize", "--model", str(own / "mine.osim"))
    make(tmp_path / "s", *STILL, *options, "--markers", str(generic.folder / generic.markers))
    assert [path.name for path in own.iterdir()] == ["mine.osim"]
    assert (tmp_path / "s" / "OpenSimData" / "Mocap" / "Model" / "mine_scaled.osim").is_file()


# Videos


def frames_of(path: Path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoded = [(float(f.time), f.to_ndarray(format="bgr24")) for f in container.decode(stream)]
        return float(stream.average_rate), [t for t, _ in decoded], [image for _, image in decoded]


def test_videos_have_every_frame_and_the_body_where_keypoints_project(opencap):
    time_s, truth = true_points(opencap, "squats1", "keypoints")
    cameras, _ = read_cameras(opencap / "truth" / "squats1" / "cameras.toml", ["Cam0", "Cam1"])
    for camera in cameras:
        path = opencap / "VideoData" / "Session0" / camera.name / "squats1" / "squats1.avi"
        rate, times, images = frames_of(path)
        assert rate == pytest.approx(10) and times == pytest.approx(np.arange(len(times)) / 10)
        assert len(images) == 11 and images[0].shape == (1080, 1920, 3)
        for index in (0, 5, 10):
            for name, blue_is_more in (("RKnee", False), ("LKnee", True)):
                x, y = camera.project(truth[name][round(times[index] * 100)]).round().astype(int)
                blue, _, red = images[index][y, x].astype(int)
                assert (blue > red + 30) if blue_is_more else (red > blue + 30)
            # Nobody is at the image's upper corner, nor on the floor two metres behind the person.
            corner = images[index][5, 5].astype(int)
            assert min(np.abs(corner - colour).max() for colour in (BACKGROUND, FLOOR)) < 12


def test_a_lost_frame_is_a_gap_in_the_videos_timestamps(tmp_path):
    folder = make(
        tmp_path / "s", *STILL, "--render", "--noise", "0", "--error", "dropped_frames=40"
    )
    trial = open_session(folder).trials()[0]
    _, times, _ = frames_of(trial.videos["cam1"])
    assert len(times) < 11 and times[-1] == pytest.approx(1.0, abs=0.01)
    assert np.allclose(np.array(times) * 10, np.round(np.array(times) * 10), atol=0.01)
    # With a video, keypoints are counted as its frames are.
    assert list(frame_files(trial.poses["cam1"])) == list(range(len(times)))


# Errors


@pytest.mark.parametrize(
    "options, message",
    [
        (["--cameras", "1"], "cameras: input should be greater than or equal to 2, got 1"),
        (["--cameras", "9"], "cameras: input should be less than or equal to 8, got 9"),
        (["--noise", "-1"], "errors.calibration: input should be greater than or equal to 0"),
        (["--noise", "inf"], "errors.calibration: input should be a finite number"),
        (["--error", "hiccups=1"], "errors.hiccups is unknown.*swaps"),
        (["--error", "swaps=-1"], "errors.swaps: input should be greater"),
        (["--error", "swaps"], "errors.swaps: input should be a valid number"),
        (["--rate", "0"], "rates_hz.0: input should be greater than or equal to"),
        (["--duration", "0"], "duration_s: input should be greater than 0.5"),
        (["--seed", "-1"], "seed: input should be greater"),
        (["--motion", "cartwheel"], "no movement or motion file 'cartwheel'.*squats, gait"),
        (["--model", "homunculus"], "no OpenSim model 'homunculus'. There are: best"),
        (["--model", "absent.osim"], "there is no file absent.osim"),
        (["--keypoints", "body-26"], "no keypoint vocabulary 'body-26'.*halpe-26"),
        (["--markers", "mine.xml"], "--markers is for an .osim file"),
        (["--start-spread", "-1"], "start_spread_s: input should be greater than or equal to 0"),
        (
            ["--start-spread", "2", "--duration", "5"],
            "lasts 5.0 s: too short for cameras that start and stop 2 s apart. They need .* s",
        ),
        (
            ["--layout", "pose2sim", "--rate", "60", "--rate", "50"],
            "one frame rate for all cameras",
        ),
    ],
)
def test_what_cannot_be_simulated_is_said_in_one_line(tmp_path, monkeypatch, capsys, options, message):  # fmt: skip
    told = failure(monkeypatch, capsys, tmp_path / "s", *options)
    assert len(told.strip().splitlines()) == 1
    assert re.search(message, told)
    assert list(tmp_path.iterdir()) == []


def failure(monkeypatch, capsys, folder, *options) -> str:
    """What the command line tells on stderr; its exit code must be 1."""
    monkeypatch.setattr(sys, "argv", ["pipeline", "simulate", str(folder), *options])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    return capsys.readouterr().err


def test_a_folder_that_is_not_empty_is_left_as_it_is(tmp_path, monkeypatch, capsys):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.txt").write_text("years of work")
    told = failure(monkeypatch, capsys, tmp_path / "s", *SHORT, *STILL)
    assert "is not empty. Choose another folder" in told.replace("\n", " ")
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["thesis.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("lacking", ["markers", "bodies"])
def test_a_model_without_markers_or_bodies_is_refused(tmp_path, monkeypatch, capsys, lacking):
    generic = generic_model("pose2sim")
    model = load_model(generic.folder / generic.model)
    if lacking == "markers":
        model.updMarkerSet().clearAndDestroy()
    else:
        model = opensim.Model()
        for name in MARKERS:
            model.addMarker(opensim.Marker(name, model.getGround(), opensim.Vec3(0)))
    model.finalizeConnections()
    path = tmp_path / "mine.osim"
    model.printToXML(str(path))
    told = failure(monkeypatch, capsys, tmp_path / "s", "--model", str(path))
    assert f"the model lacks the {lacking}" in told and len(told.strip().splitlines()) == 1
    assert not (tmp_path / "s").exists()


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.simulated_session.write_qualisys", full)
    told = failure(monkeypatch, capsys, tmp_path / "s", *SHORT, *STILL)
    assert "The disk is full" in told and list(tmp_path.iterdir()) == []


# The plan


def test_noise_scales_all_sources_and_error_sets_one():
    plan = plan_from({}, 0.5, ["swaps=2", " blur = 0"])
    sizes = dict(plan.errors)
    assert (sizes.pop("swaps"), sizes.pop("blur")) == (2.0, 0.0)
    assert set(sizes.values()) == {0.5}


def test_a_camera_added_does_not_change_the_person_or_the_motion():
    one, two = (
        simulate(plan_from({"cameras": count, "motion": "static", "model": "pose2sim"}, 1, []))
        for count in (2, 4)
    )
    assert one.person == two.person
    assert one.trials[0].scene.angles.equals(two.trials[0].scene.angles)
    for camera, same in zip(one.cameras, two.cameras[:2], strict=True):
        assert np.array_equal(camera.distortion, same.distortion)


# End to end


@pytest.fixture(scope="module")
def squats(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sessions") / "squats"
    options = ("--cameras", "4", "--duration", "3", "--noise", "0", "--rate", "50", "--no-static")
    return make(folder, *options)


@pytest.mark.slow
def test_points_of_perfect_keypoints_are_within_a_millimetre_of_the_truth(squats):
    (trial,) = open_session(squats).trials()
    settings = configure(trial.activity, {})
    list(run_trial(trial, lambda _: settings, lambda *_: no_progress, last="triangulate"))
    points = load_dataset(trial.folder("triangulate") / "points.nc")
    time_s, truth = true_points(squats, "squats1", "keypoints")
    at = np.searchsorted(time_s, points.time.values - 1e-6)
    assert time_s[at] == pytest.approx(points.time.values, abs=1e-6)
    assert len(at) == 151
    for name in points.keypoint.values:
        apart = np.linalg.norm(
            points.position.sel(keypoint=name).values - truth[str(name)][at], axis=-1
        )
        assert apart.max() < 0.001, name


@pytest.mark.slow
def test_inverse_kinematics_of_true_markers_on_the_true_model_gives_the_true_angles(squats, tmp_path):  # fmt: skip
    folder, generic = squats / "truth" / "squats1", generic_model("pose2sim")
    model = load_model(folder / "model.osim")
    time_s, markers = true_points(squats, "squats1", "markers")
    # Pose2Sim's setup also draws the lumbar flexion to 0, which would cost 2° at pelvis and hips.
    setup = generic.folder / generic.ik_setup
    some = slice(None, None, 5)
    motion = solve_inverse_kinematics(
        model, setup, time_s[some], {name: markers[name][some] for name in markers}, no_progress
    )
    angles = in_file_units(motion.angles, rotational_coordinates(model))
    truth = read_mot(folder / "angles.mot").iloc[some]
    assert truth.knee_angle_r.max() > 60
    for name in ("hip_flexion", "knee_angle", "ankle_angle"):
        for side in "rl":
            error = angles[f"{name}_{side}"].to_numpy() - truth[f"{name}_{side}"].to_numpy()
            assert np.sqrt((error**2).mean()) < 0.3, name
