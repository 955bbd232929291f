"""A report compares its trial with motion capture whose errors are known, and never fails over it."""

import json
import re
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation
from test_evaluate import AT_60, AT_100, cameras, squats, walker, write_points
from typer.testing import CliRunner

from calibration.aniposelib_toml import write_toml
from pipeline.cli import app
from pipeline.evaluation_text import line_of
from pipeline.session import open_session
from stages import report
from stages.comparison import compare
from stages.comparison_report import compared_section, read_reference
from stages.comparison_tables import summary_of, write_workbook
from stages.figures import save_for_papers
from stages.motion_files import write_mot
from stages.recordings import read_recording
from stages.trial import Reference, Trial

LAG_S, OFFSET_DEG = 0.1, 5.0
TURN = Rotation.from_euler("xyz", [90, 20, -40], degrees=True).as_matrix()
ORIGIN = np.array([0.5, -1.0, 2.0])


@pytest.fixture
def trial(tmp_path):
    """A result at 60 Hz that comes 0.1 s late, and bends the right knee by 5° too much."""
    angles = squats(AT_60, LAG_S)
    angles["knee_angle_r"] += OFFSET_DEG
    results = tmp_path / "results" / "squats1"
    write_mot(results / "09_kinematics" / "angles.mot", angles)
    write_points(results / "08_export" / "markers.trc", AT_60, walker(AT_60 - LAG_S))
    return Trial("squats1", "squats", {}, tmp_path, results)


@pytest.fixture
def mocap(tmp_path):
    """The truth at 100 Hz, its markers in a world of its own."""
    write_mot(tmp_path / "mocap.mot", squats(AT_100))
    elsewhere = walker(AT_100) @ TURN + ORIGIN  # so that video = TURN (mocap - ORIGIN)
    write_points(tmp_path / "mocap.trc", AT_100, elsewhere)
    return Reference("motion capture (lab)", tmp_path / "mocap.mot", tmp_path / "mocap.trc")


def with_reference(trial, **reference):
    return Trial(**{**vars(trial), "reference": Reference(**reference)})


def section_of(trial, out, max_lag_s=1.0):
    out.mkdir(exist_ok=True)
    return compared_section(trial, "knee bends", max_lag_s, out)


def test_lag_offset_and_distances_to_motion_capture_are_told(tmp_path, trial, mocap):
    section = section_of(with_reference(trial, **vars(mocap)), tmp_path / "out")
    folder = tmp_path / "out" / "comparison"
    summary = pd.read_csv(folder / "summary.csv")
    assert len(summary) == 1
    assert summary.lag_ms[0] == pytest.approx(1000 * LAG_S, abs=5)
    assert summary.markers_mpjpe_mm[0] < 5
    bias = pd.read_csv(folder / "angles.csv", index_col="coordinate").bias_deg
    assert bias["knee_angle_r"] == pytest.approx(OFFSET_DEG, abs=0.1)
    assert abs(bias["knee_angle_l"]) < 0.1
    assert set(pd.read_excel(folder / "comparison.xlsx", sheet_name=None)) >= {"summary", "angles"}
    for said in ("motion capture (lab)", "Plotly.newPlot", "knee_angle_r", "fitted to all points"):
        assert said in section.html
    assert re.search(r"lag \+(9|10)\d\.\d ms", section.html)
    told = line_of(folder, "motion capture (lab)")
    assert re.fullmatch(
        r"knee RMSE 2\.[56]°, lower limb MAE 1\.[67]°, markers \d mm against motion capture \(lab\), "
        r"lag \+(9|10)\d ms",
        told,
    )


def test_the_figures_are_those_of_an_evaluation(tmp_path, trial, mocap):
    section_of(with_reference(trial, **vars(mocap)), tmp_path / "out")
    sides = read_recording(trial.results), read_reference(mocap)
    expected = pd.DataFrame([summary_of(compare(*sides, None))])
    found = pd.read_csv(tmp_path / "out" / "comparison" / "summary.csv")
    assert list(found) == list(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_simulated_truth_is_on_the_results_clock_so_that_a_lag_is_an_error(tmp_path, trial, mocap):
    aligned = with_reference(trial, source="truth", angles=mocap.angles, aligned=True)
    section_of(aligned, tmp_path / "out")
    assert pd.read_csv(tmp_path / "out/comparison/summary.csv").lag_ms[0] == 0
    angles = pd.read_csv(tmp_path / "out/comparison/angles.csv", index_col="coordinate")
    assert angles.rmse_deg["knee_angle_l"] > 5


def test_a_result_of_other_cameras_than_the_truths_first_is_compared_on_their_clock(
    tmp_path, trial, mocap
):
    """The trial comes 0.1 s late: its first camera was started 0.1 s before the truth's clock."""
    started = {"cam1": 0.0, "cam2": -LAG_S, "cam3": 7.0}
    seen = replace(trial, videos={"cam2": tmp_path, "cam3": tmp_path})
    apart = with_reference(
        seen, source="truth", angles=mocap.angles, aligned=True, clock_offsets_s=started
    )
    section_of(apart, tmp_path / "out")
    assert pd.read_csv(tmp_path / "out/comparison/summary.csv").lag_ms[0] == 100
    angles = pd.read_csv(tmp_path / "out/comparison/angles.csv", index_col="coordinate")
    assert angles.rmse_deg["knee_angle_l"] < 0.1


def test_the_files_transform_is_used_unless_a_rigid_fit_is_much_better(tmp_path, trial, mocap):
    space = tmp_path / "mocapToVideoTransform.yaml"
    for origin, far in ((ORIGIN, False), (ORIGIN + [0.2, 0, 0], True)):
        space.write_text(
            f"R_fromMocap_toVideo: {TURN.tolist()}\n"
            f"position_fromMocapOrigin_toVideoOrigin: {origin.tolist()}\n"
        )
        out = tmp_path / f"out{far}"
        section = section_of(with_reference(trial, **{**vars(mocap), "space": space}), out)
        assert "by mocapToVideoTransform.yaml" in section.html
        assert ("fitted to all points" in section.html) == far
        assert pd.read_csv(out / "comparison/summary.csv").markers_mpjpe_mm[0] < 5
        assert any("after a rigid fit" in notice for notice in section.notices) == far


def test_a_singular_transform_is_told_and_a_rigid_one_fitted(tmp_path, trial, mocap):
    space = tmp_path / "mocapToVideoTransform.yaml"
    space.write_text(
        "R_fromMocap_toVideo: [[0, 0, -1], [0, -1, 0], [0, 0, -1]]\n"
        "position_fromMocapOrigin_toVideoOrigin: [0, 0, 0]\n"
    )
    section = section_of(with_reference(trial, **{**vars(mocap), "space": space}), tmp_path / "out")
    assert any("no rotation" in notice and "fitted" in notice for notice in section.notices)
    assert pd.read_csv(tmp_path / "out/comparison/summary.csv").markers_mpjpe_mm[0] < 5


def test_markers_of_other_names_are_told_and_the_angles_compared(tmp_path, trial, mocap):
    text = mocap.markers.read_text()
    for name in ("RHip", "RKnee", "RAnkle", "Neck", "LHip"):
        text = text.replace(name, f"lab:{name}")
    mocap.markers.write_text(text)
    section = section_of(with_reference(trial, **vars(mocap)), tmp_path / "out")
    assert any("none of the reference's markers (lab:RHip" in each for each in section.notices)
    assert (tmp_path / "out/comparison/angles.csv").exists()


def broken(tmp_path, kind):
    path = tmp_path / "bad.mot"
    if kind == "garbage":
        path.write_text("nothing")
    elif kind == "another day":
        late = squats(AT_100)
        late.index += 3600
        write_mot(path, late)
    elif kind == "no unit":
        write_mot(path, squats(AT_100))
        path.write_text(path.read_text().replace("inDegrees=yes\n", ""))
    elif kind == "other names":
        write_mot(path, squats(AT_100).add_prefix("their_"))
    return path


@pytest.mark.parametrize(
    "kind, said",
    [
        ("garbage", "is not an OpenSim motion file"),
        ("another day", "overlap by less than"),
        ("no unit", "degrees or radians"),
        ("other names", "no coordinate and no point in common"),
    ],
)
def test_a_bad_reference_costs_a_notice_and_not_the_report(tmp_path, trial, kind, said):
    bad = with_reference(trial, source="mocap <lab>", angles=broken(tmp_path, kind))
    section = section_of(bad, tmp_path / "out")
    (notice,) = section.notices
    assert notice.startswith("not compared with mocap <lab>: ") and said in notice
    assert "mocap &lt;lab&gt;" in section.html and "Plotly" not in section.html
    assert not (tmp_path / "out" / "comparison").exists()


def test_without_a_reference_the_user_is_told_where_to_put_one(tmp_path, trial):
    section = section_of(trial, tmp_path / "out")
    assert "reference/squats1.mot" in section.notices[0] and "reference/" in section.html


def session_folder(tmp_path):
    folder = tmp_path / "session"
    (folder / "calibration").mkdir(parents=True)
    write_toml(cameras(), folder / "calibration" / "Calib.toml")
    for camera in ("cam1", "cam2"):
        (folder / "pose" / "squats1" / f"{camera}_json").mkdir(parents=True)
    (folder / "session.toml").write_text("[trials.squats1]\nrate_hz = 60\n")
    return folder


def test_a_session_brings_motion_capture_or_else_its_simulations_truth(tmp_path):
    folder = session_folder(tmp_path)
    assert open_session(folder).trials()[0].reference is None
    write_mot(folder / "truth" / "squats1" / "angles.mot", squats(AT_100))
    write_points(folder / "truth" / "squats1" / "markers.trc", AT_100, walker(AT_100))
    (folder / "truth/squats1/simulation.json").write_text('{"plan": {"model": "pose2sim"}}')
    truth = open_session(folder).trials()[0].reference
    assert truth.aligned and truth.model == "pose2sim" and truth.markers.name == "markers.trc"
    assert truth.clock_offsets_s == {}
    apart = {"plan": {"model": "pose2sim", "start_spread_s": 3}, "clock_offsets_s": {"cam2": 0.4}}
    (folder / "truth/squats1/simulation.json").write_text(json.dumps(apart))
    assert open_session(folder).trials()[0].reference.clock_offsets_s == {"cam2": 0.4}
    write_points(folder / "reference" / "squats1.trc", AT_100, walker(AT_100))
    write_mot(folder / "reference" / "squats2.mot", squats(AT_100))
    (folder / "reference" / "mocapToVideoTransform.yaml").touch()
    brought = open_session(folder).trials()[0].reference
    assert brought.source == "motion capture (reference/squats1.trc)" and not brought.aligned
    assert brought.angles is None and brought.space.name == "mocapToVideoTransform.yaml"


def test_the_report_depends_on_the_reference_only_if_it_is_compared_with(trial, mocap):
    trial = with_reference(trial, **vars(mocap))
    assert "reference" not in report.inputs(trial, report.Settings())
    known = report.inputs(trial, report.Settings(compare=True))["reference"]
    assert known["angles"] == mocap.angles and known["markers"] == mocap.markers


def test_a_workbook_does_not_say_when_it_was_made(tmp_path):
    tables = {"summary": pd.DataFrame({"lag_ms": [1.5], "name": ["a"]})}
    write_workbook(tables, tmp_path / "a.xlsx")
    with zipfile.ZipFile(tmp_path / "a.xlsx") as book:
        assert {each.date_time[0] for each in book.infolist()} == {1980}
        assert b"dcterms:" not in re.sub(rb"xmlns:dcterms", b"", book.read("docProps/core.xml"))
    pd.testing.assert_frame_equal(pd.read_excel(tmp_path / "a.xlsx"), tables["summary"])


def test_pages_and_figures_are_the_same_bytes_each_time(tmp_path, trial, mocap):
    trial = with_reference(trial, **vars(mocap))
    pages = [section_of(trial, tmp_path / name).html for name in "ab"]
    assert pages[0] == pages[1]
    identities = re.findall(r'<div id="([^"]+)"', pages[0])
    assert len(identities) > 1 and len(set(identities)) == len(identities)


def test_figures_for_papers_are_the_same_bytes_each_time(tmp_path):
    angles = squats(AT_60).assign(ankle_angle_r=0.0, ankle_angle_l=0.0)
    for name in "ab":
        save_for_papers(angles, {}, tmp_path / f"{name}.png", tmp_path / f"{name}.pdf")
    for suffix in ("png", "pdf"):
        first, second = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
        assert first == second
    assert b"CreationDate" not in (tmp_path / "a.pdf").read_bytes()


@pytest.mark.slow
def test_run_compares_a_simulated_session_with_its_truth_as_evaluate_does(tmp_path):
    folder, runner = str(tmp_path / "sim"), CliRunner()
    make = ["simulate", folder, "--noise", "0.5", "--duration", "2.5", "--no-static"]
    assert runner.invoke(app, make).exit_code == 0
    ran = runner.invoke(app, ["run", folder, "--compare", "--set", "smooth.cutoff_hz=7"])
    assert ran.exit_code == 0, ran.output
    line = next(each for each in ran.output.splitlines() if each.startswith("  compared "))
    assert "against simulated truth (truth/squats1), lag +0 ms" in line
    assert "Compared with simulated truth" in (
        tmp_path / "sim/results/squats1/10_report/report.html"
    ).read_text(encoding="utf-8")
    assert runner.invoke(app, ["evaluate", folder]).exit_code == 0
    results = tmp_path / "sim" / "results" / "squats1"
    for name in ("summary", "angles"):
        mine = pd.read_csv(results / "10_report" / "comparison" / f"{name}.csv")
        theirs = pd.read_csv(results / "comparison" / f"{name}.csv")
        pd.testing.assert_frame_equal(mine, theirs[list(mine)])
    again = runner.invoke(app, ["run", folder, "--compare", "--set", "smooth.cutoff_hz=7"])
    assert "compared" in again.output and "report       up to date" in again.output
    without = runner.invoke(app, ["run", folder, "--set", "smooth.cutoff_hz=7"])
    assert "compared" not in without.output and not (results / "10_report/comparison").exists()
