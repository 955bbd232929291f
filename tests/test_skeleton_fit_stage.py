"""The joint fit as a user meets it: its evidence, its settings, its files, and what it does with bad input."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import opensim
import pandas as pd
import pytest
from scipy.interpolate import CubicSpline

from models.augmenter import MARKERS
from models.opensim_model import GenericModel, generic_model, marker_names
from pipeline.batch_plan import make_plan
from pipeline.config import configure
from pipeline.files import load_dataset, save_dataset
from pipeline.runner import is_up_to_date, other_trials, read_record, run_trial
from pipeline.session import open_session
from pipeline.simulate import plan_from, simulate
from pipeline.simulated_session import write_session
from stages.export import read_trc
from stages.motion_files import read_mot
from stages.skeleton_fit import gathered, read_evidence
from stages.trial import no_progress

ALL_KINDS = ("images", "keypoints", "markers")
CLOCKS = {"synchronize": {"method": "clocks"}}
"""Of a recording that is too short to synchronise."""


def settings_of(**kinematics):
    return lambda trial: configure(trial.activity, CLOCKS | {"kinematics": kinematics})


def run(trial, last="kinematics", **kinematics):
    configuration = settings_of(**kinematics)
    return list(run_trial(trial, configuration, lambda *_: no_progress, last=last))


def write_simulated(folder, noise, **values):
    values = {"cameras": 3, "model": "pose2sim", "duration_s": 1.5, "rates_hz": (25.0,)} | values
    write_session(simulate(plan_from(values, noise, [])), folder, "pipeline", False, no_progress)
    return folder


@pytest.fixture(scope="module")
def perfect(tmp_path_factory):
    """Two movements and a static trial, without errors, augmented. Copy, never change."""
    folder = tmp_path_factory.mktemp("perfect") / "session"
    write_simulated(folder, 0.0, motion=("squats", "gait"))
    for trial in open_session(folder).trials():
        run(trial, "augment")
    return folder


@pytest.fixture
def session(perfect, tmp_path):
    return shutil.copytree(perfect, tmp_path / "session")


def trials_of(folder):
    return {trial.name: trial for trial in open_session(folder).trials()}


# Evidence


def test_the_evidence_is_where_the_truth_projects_to(perfect):
    trial = trials_of(perfect)["squats1"]
    evidence = read_evidence(trial, ALL_KINDS)
    time_s, names, position = read_trc(perfect / "truth" / "squats1" / "keypoints.trc")
    at = CubicSpline(time_s, position)(evidence.time_s)
    images = evidence.images
    chosen = [names.index(name) for name in images.names]
    assert images.cameras == ("cam1", "cam2", "cam3") and len(images.names) == 26
    for view, image in zip(images.camera_from_world, images.image, strict=True):
        in_camera = at[:, chosen] @ view[:, :3].T + view[:, 3]
        projected = in_camera[..., :2] / in_camera[..., 2:]
        assert (in_camera[..., 2] > 1).all()
        assert np.nanmax(np.abs(projected - image)) < 1e-3
    assert (np.isfinite(images.image).all(-1) == (images.confidence > 0)).all()
    chosen = [names.index(name) for name in evidence.keypoints.names]
    assert np.nanmax(np.abs(evidence.keypoints.position - at[:, chosen])) < 3e-3
    assert evidence.keypoints.standard_deviation.shape == (len(at), 26)
    assert evidence.markers.position.shape == (len(at), 43, 3)
    assert set(evidence.markers.names) < set(evidence.start)
    some = read_evidence(trial, ("keypoints",))
    assert some.images is None and some.markers is None and some.keypoints is not None


def test_sides_that_a_view_exchanged_are_put_right_in_the_evidence(session):
    trial = trials_of(session)["squats1"]
    whole = read_evidence(trial, ("images",)).images
    seen_file = trial.folder("synchronize") / "keypoints.nc"
    points_file = trial.folder("triangulate") / "points.nc"
    seen, points = load_dataset(seen_file), load_dataset(points_file)
    legs = ("Hip", "Knee", "Ankle", "BigToe", "SmallToe", "Heel")
    right, left = ([f"{side}{part}" for part in legs] for side in "RL")
    where = {"camera": "cam2", "time": seen.time[5:9]}
    for variable in (seen.position, seen.confidence):
        both = variable.sel(**where, keypoint=right + left).values.copy()
        variable.loc[where | {"keypoint": left + right}] = both
    points.swapped.loc[where | {"chain": "legs"}] = True
    save_dataset(seen, seen_file)
    save_dataset(points, points_file)
    repaired = read_evidence(trial, ("images",)).images
    np.testing.assert_array_equal(repaired.image, whole.image)
    np.testing.assert_array_equal(repaired.confidence, whole.confidence)


def test_evidence_of_a_session_is_the_same_whichever_trial_asks(perfect):
    trials = trials_of(perfect)
    asked = [
        gathered(trial, other_trials(trial, "kinematics", settings), ALL_KINDS)
        for trial in (trials["squats1"], trials["gait1"])
        for settings in [settings_of(fit="images", fit_trials="session")(trial)]
    ]
    for one, same in zip(*asked, strict=True):
        assert one.name == same.name
        np.testing.assert_array_equal(one.images.image, same.images.image)
    assert [each.name for each in asked[0]] == ["gait1", "squats1", "static1"]


def test_cameras_that_stood_elsewhere_in_a_static_trial_are_others(session):
    trials = trials_of(session)
    calibration = session / "calibration"
    shutil.copytree(calibration, session / "calibration2")
    moved = session / "calibration2" / trials["static1"].calibration.name
    static = replace(trials["static1"], calibration=moved)
    squats, standing = gathered(trials["squats1"], [static], ("images",))
    assert squats.images.cameras == ("cam1", "cam2", "cam3")
    assert standing.images.cameras == tuple(f"cam{n} of static1" for n in (1, 2, 3))


# Which trials


def test_a_fit_reads_the_trials_that_it_is_told_to(perfect):
    squats = trials_of(perfect)["squats1"]

    def read(trial, **kinematics):
        settings = settings_of(**kinematics)(trial)
        return sorted(each.name for each in other_trials(trial, "kinematics", settings))

    assert read(squats) == read(squats, fit="images") == ["static1"]
    assert read(squats, fit_trials="session") == [
        "static1"
    ]  # the classical chain has no use for more
    assert read(squats, fit="images", fit_trials="session") == ["gait1", "static1"]
    own = replace(squats, model=perfect / "truth" / "squats1" / "model.osim")
    assert read(own, fit="images", fit_trials="session") == ["static1"]
    static = trials_of(perfect)["static1"]
    assert read(static, fit="markers", fit_trials="session") == ["gait1", "squats1"]
    assert other_trials(squats, "smooth", settings_of()(squats)) == ()


def test_a_batch_plans_the_trials_of_a_session_that_a_fit_reads(session):
    whole = ("kinematics.fit=markers", "kinematics.fit_trials=session", "synchronize.method=clocks")
    jobs = {job.trial.name: job for job in make_plan(session, "squats", whole).jobs}
    assert set(jobs) == {"gait1", "squats1", "static1"}
    assert jobs["gait1"].stages == jobs["static1"].stages and jobs["gait1"].stages[-1] == "augment"
    name = session.name
    assert set(jobs["squats1"].waits_for) == {f"{name}/static1", f"{name}/gait1"}
    jobs = {job.trial.name: job for job in make_plan(session, None, whole).jobs}
    assert all(job.stages[-1] == "report" for job in jobs.values())
    assert set(jobs["static1"].waits_for) == {f"{name}/squats1", f"{name}/gait1"}
    jobs = {job.trial.name: job for job in make_plan(session, "squats", whole[-1:]).jobs}
    assert set(jobs) == {"squats1", "static1"}
    assert jobs["squats1"].waits_for == (f"{name}/static1",)


# What comes out


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """A session with errors, whose squat was fitted to its images and has a report. Copy, never change."""
    folder = write_simulated(tmp_path_factory.mktemp("filmed") / "session", 0.4, motion="squats")
    run(trials_of(folder)["squats1"], "report", fit="images")
    return folder


def of_kinematics(folder, trial="squats1"):
    text = trials_of(folder)[trial].folder("kinematics") / "kinematics.json"
    return json.loads(text.read_text(encoding="utf-8"))


def notices_of(folder, trial="squats1"):
    return read_record(trials_of(folder)[trial].folder("kinematics"))["notices"]


def test_a_fit_to_images_leaves_the_usual_files(filmed):
    folder = trials_of(filmed)["squats1"].folder("kinematics")
    about = of_kinematics(filmed)
    assert about["fit"]["asked"] == about["fit"]["done"] == "images"
    assert about["error_of"] == "keypoints" and 0.001 < about["keypoint_rms_m"] < 0.05
    assert about["samples"] == about["samples_solved"] and about["fit"]["why_not"] == ""
    assert set(about["fit"]["samples"]) <= {"squats1", "static1"}
    model = opensim.Model(str(folder / "scaled_model.osim"))
    model.initSystem()
    assert set(MARKERS) <= set(marker_names(model))
    angles = read_mot(folder / "angles.mot")
    coordinates = model.getCoordinateSet()
    assert list(angles) == [coordinates.get(i).getName() for i in range(coordinates.getSize())]
    truth = read_mot(filmed / "truth/squats1/angles.mot")
    for name in ("knee_angle_r", "knee_angle_l", "ankle_angle_r", "hip_flexion_l"):
        true = np.interp(angles.index, truth.index, truth[name])
        assert np.sqrt(np.mean((angles[name] - true) ** 2)) < 8
    parameters = pd.read_csv(folder / "fit_parameters.csv", index_col="parameter")
    assert parameters.determined.between(-1e-6, 1).all() and parameters.index.is_unique
    assert parameters.posterior_sd.le(parameters.prior_sd * (1 + 1e-6)).all()
    assert len(parameters) == len(about["fit"]["parameters"])
    stated = pd.read_csv(folder / "angles_sd.csv", index_col="time")
    assert list(stated.index) == pytest.approx(list(angles.index), abs=1e-6)
    rms = np.sqrt((stated.knee_angle_r**2).mean())
    assert rms == pytest.approx(about["fit"]["uncertainty"]["knee_angle_r"], rel=1e-3)
    assert 0.1 < rms < 10


def test_the_user_is_told_what_the_data_do_not_tell_and_how_sure_the_angles_are(filmed):
    told = " ".join(notices_of(filmed))
    assert "the data do not determine" in told and "fit_parameters.csv lists all" in told
    assert "standard deviation of angles: knee flexion" in told
    assert "ankle flexion" in told and "the fit's own estimate" in told


def test_the_report_says_how_the_model_was_fitted_and_how_sure_it_is(filmed):
    folder = trials_of(filmed)["squats1"].folder("report")
    html = (folder / "report.html").read_text(encoding="utf-8")
    for text in (
        "Fitted to the 2D keypoints in every image", "<th>±</th>", "thigh, length",
        "What the data told of the body", "keypoints from the fitted model, median",
    ):  # fmt: skip
        assert text in html
    assert "OpenSim&#39;s guidance" not in html and "OpenSim's guidance" not in html
    ranges = pd.read_csv(folder / "range_of_motion.csv", index_col="coordinate")
    uncertainty = of_kinematics(filmed)["fit"]["uncertainty"]
    assert ranges.uncertainty["knee_angle_r"] == pytest.approx(
        uncertainty["knee_angle_r"], abs=1e-3
    )
    quality = pd.read_csv(folder / "quality.csv", index_col="name")
    assert not quality.index.str.contains("marker").any()


def test_a_report_of_the_classical_chain_names_its_solver(session):
    trial = trials_of(session)["squats1"]
    run(trial, "report", solver="batched")
    html = (trial.folder("report") / "report.html").read_text(encoding="utf-8")
    assert "by the batched solver" in html and "Scaled by: static trial static1" in html
    assert "<th>±</th>" not in html and "What the data told" not in html
    assert of_kinematics(session)["error_of"] == "markers"


# The trials of a session


def test_all_trials_of_a_session_tell_of_the_body_and_are_watched(session):
    trials = trials_of(session)
    settings = settings_of(fit="markers", fit_trials="session")
    run(trials["squats1"], fit="markers", fit_trials="session")
    about = of_kinematics(session)
    assert set(about["fit"]["samples"]) == {"gait1", "squats1", "static1"}
    assert about["fit"]["samples"]["gait1"] > 0 and about["error_of"] == "markers"
    assert about["fit"]["samples"]["gait1"] > 0
    squats = trials["squats1"]
    assert is_up_to_date(squats, "kinematics", settings(squats))
    run(trials["gait1"])  # nothing new
    assert is_up_to_date(squats, "kinematics", settings(squats))
    path = trials["gait1"].folder("augment") / "markers.nc"
    markers = load_dataset(path)
    markers.position[:] += 0.001
    save_dataset(markers, path)
    assert not is_up_to_date(squats, "kinematics", settings(squats))


def test_a_trial_of_the_session_that_fails_is_left_out_and_named(session):
    shutil.rmtree(trials_of(session)["gait1"].results)
    for path in (session / "pose/gait1").rglob("*.json"):
        path.write_text('{"people": [', encoding="utf-8")
    run(trials_of(session)["squats1"], fit="markers", fit_trials="session")
    assert set(of_kinematics(session)["fit"]["samples"]) == {"squats1", "static1"}
    assert any("left out of the fit: gait1" in each for each in notices_of(session))
    again = run(trials_of(session)["squats1"], fit="markers", fit_trials="session")
    assert all(outcome.skipped for outcome in again)


# Bad input


def assert_classical(folder, why, trial="squats1"):
    about = of_kinematics(folder, trial)
    assert about["fit"]["done"] == "classical" and about["error_of"] == "markers"
    assert about["solver"] == "opensim" and about["samples_solved"] > 0
    told = next(each for each in notices_of(folder, trial) if "joint fit was not made" in each)
    assert why in told and told.endswith("The angles are those of the classical chain.")
    assert not (trials_of(folder)[trial].folder("kinematics") / "fit_parameters.csv").exists()


def test_a_scaled_model_of_the_sessions_own_keeps_its_scales(session):
    own = session / "own.osim"
    shutil.copy(session / "truth/squats1/model.osim", own)
    with (session / "session.toml").open("r+", encoding="utf-8") as toml:
        text = toml.read()
        toml.seek(0)
        toml.write(f'model = "own.osim"\n{text}')
    run(trials_of(session)["squats1"], fit="images")
    assert_classical(session, "its own scaled model, whose scales are kept")
    assert of_kinematics(session)["model"]["name"] == "own.osim"


def test_a_height_that_contradicts_the_data_gives_the_classical_result(session):
    path = session / "session.toml"
    height = trials_of(session)["squats1"].subject.height_m
    text = path.read_text(encoding="utf-8")
    assert str(height) in text
    path.write_text(text.replace(str(height), f"{height + 0.35:.2f}"), encoding="utf-8")
    run(trials_of(session)["squats1"], fit="images")
    assert_classical(session, "height")


def test_a_trial_that_is_too_still_or_too_short_gives_the_classical_result(tmp_path):
    write_simulated(tmp_path / "still", 0.0, motion="static", static=False)
    run(trials_of(tmp_path / "still")["static1"], fit="images")
    assert_classical(tmp_path / "still", "", "static1")
    write_simulated(tmp_path / "short", 0.0, motion="squats", static=False, duration_s=0.6)
    run(trials_of(tmp_path / "short")["squats1"], fit="images")
    assert_classical(tmp_path / "short", "short")


@dataclass(frozen=True)
class Changed(GenericModel):
    """The packaged model with other files."""

    where: Path = Path()

    @property
    def folder(self):
        return self.where


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """The packaged model's files, to change, and the pipeline's model from now on."""
    known = generic_model("pose2sim")
    shutil.copytree(known.folder, tmp_path / "model")
    model = Changed(**vars(known), where=tmp_path / "model")
    monkeypatch.setattr("stages.kinematics.generic_model", lambda name: model)
    return model


def test_a_model_with_an_unsupported_joint_gives_the_classical_result(session, changed):
    path = changed.folder / changed.model
    model = opensim.Model(str(path))
    watch = opensim.Body("watch", 0.05, opensim.Vec3(0), opensim.Inertia(1e-4))
    zero = opensim.Vec3(0)
    joint = opensim.EllipsoidJoint(
        "strap", model.getBodySet().get("hand_l"), zero, zero, watch, zero, zero, opensim.Vec3(0.03)
    )
    model.addBody(watch)
    model.addJoint(joint)
    model.finalizeConnections()
    model.printToXML(str(path))
    run(trials_of(session)["squats1"], fit="images")
    assert_classical(session, "EllipsoidJoint")


def test_a_model_that_lacks_markers_gives_the_classical_result(session, changed):
    path = changed.folder / changed.markers
    tree = ElementTree.parse(path)
    for parent in tree.iter():
        for marker in [
            each for each in parent if each.get("name") in ("r_sh1_study", "L_sh2_study")
        ]:
            parent.remove(marker)
    tree.write(path)
    run(trials_of(session)["squats1"], fit="markers")
    assert_classical(session, "r_sh1_study")
