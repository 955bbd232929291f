"""A whole dataset in one command: what is found, who runs it, and what survives being killed."""

import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import pipeline
from dask_jobqueue.slurm import SLURMJob
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batch import JobResult, run_jobs
from pipeline.batch_plan import Job, find_sessions, make_plan, network_stages, stages_to_run
from pipeline.cluster import connected, demands, notices_about
from pipeline.config import configure
from pipeline.dataset_report import means_over_repetitions
from pipeline.dataset_table import Repeated
from pipeline.errors import PipelineError
from pipeline.files import load_dataset
from pipeline.runner import run_stage
from pipeline.session import open_session
from pipeline.simulate import plan_from, simulate
from pipeline.simulated_session import write_session
from stages import ORDER
from stages.trial import no_progress

SUBJECTS, COPIES = 3, 4
BROKEN_JSON, BROKEN_VIDEO, NO_CALIBRATION = "group1/subject1-2", "group2/subject0-1", "group1/lost"
COMPARED = "group2/subject2-3"
"""This session's truth is there, as motion capture would be."""


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    """Simulated sessions of different persons, static1 and squats1 each. Copy, never change."""
    folder = tmp_path_factory.mktemp("subjects")
    for seed in range(SUBJECTS):
        values = {"cameras": 2, "seed": seed, "duration_s": 3.0, "rates_hz": (30.0,)}
        without_gaps = ["occlusion=0", "missed=0", "dropped_frames=0", "outliers=0"]
        plan = plan_from(values | {"motion": "squats"}, 0.3, without_gaps)
        write_session(simulate(plan), folder / f"subject{seed}", "pipeline", False, no_progress)
    return folder


@pytest.fixture
def session(subjects, tmp_path):
    return shutil.copytree(subjects / "subject0", tmp_path / "data" / "subject0")


def make_dataset(subjects: Path, folder: Path) -> Path:
    """24 trials that can be run, one with a broken video, one with a broken JSON file, and a session
    without calibration.
    """
    for seed in range(SUBJECTS):
        for copy in range(COPIES):
            target = folder / f"group{1 + copy % 2}" / f"subject{seed}-{copy}"
            shutil.copytree(subjects / f"subject{seed}", target)
            if f"{target.parent.name}/{target.name}" != COMPARED:
                shutil.rmtree(target / "truth")
    shutil.copytree(folder / BROKEN_JSON / "pose/squats1", folder / BROKEN_JSON / "pose/squats2")
    first = min((folder / BROKEN_JSON / "pose/squats2").rglob("*.json"))
    first.write_text('{"people": [', encoding="utf-8")
    shutil.copytree(folder / BROKEN_VIDEO / "pose/squats1", folder / BROKEN_VIDEO / "pose/squats3")
    for camera in ("cam1", "cam2"):
        video = folder / BROKEN_VIDEO / "videos/squats3" / f"{camera}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        video.write_bytes(b"cut short")
    with (folder / BROKEN_JSON / "session.toml").open("a", encoding="utf-8") as toml:
        toml.write("\n[trials.squats2]\nrate_hz = 30.0\n")
    shutil.copytree(subjects / "subject0", folder / NO_CALIBRATION)
    shutil.rmtree(folder / NO_CALIBRATION / "calibration")
    return folder


def start(*arguments) -> subprocess.Popen:
    """`pipeline batch` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "batch", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def records(dataset: Path) -> dict[Path, tuple[int, str]]:
    """When each finished stage was written, and what it wrote about itself."""
    found = {}
    for folder, below, files in os.walk(dataset):  # goes on where a folder vanishes under it
        below[:] = [name for name in below if not name.startswith(".")]
        if "stage.json" in files:
            path = Path(folder) / "stage.json"
            found[path] = (path.stat().st_mtime_ns, path.read_text(encoding="utf-8"))
    return found


def wait_for_stages(dataset: Path, count: int, process: subprocess.Popen) -> None:
    began = time.monotonic()
    while len(records(dataset)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < began + 120
        time.sleep(0.05)


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [each for each in children if "spawn_main" in " ".join(each.cmdline())]


@pytest.fixture(scope="module")
def survivor(subjects, tmp_path_factory):
    """A dataset whose batch lost a worker, was killed, and ran again, and what was seen meanwhile."""
    dataset = make_dataset(subjects, tmp_path_factory.mktemp("lab") / "dataset")
    first = start(dataset, "--workers", 2)
    wait_for_stages(dataset, 20, first)
    victim, *_ = workers_of(first)
    victim.kill()
    wait_for_stages(dataset, 90, first)
    workers = workers_of(first)
    first.kill()
    first.communicate()
    _, alive = psutil.wait_procs(workers, timeout=20)
    kept = records(dataset)
    code, out, err = finish(start(dataset, "--workers", 2))
    return {
        "dataset": dataset, "kept": kept, "alive": alive, "workers": len(workers),
        "code": code, "out": out, "err": err,
    }  # fmt: skip


@pytest.mark.slow
def test_what_a_killed_batch_had_finished_is_neither_lost_nor_done_again(survivor):
    assert survivor["workers"] == 2 and not survivor["alive"]
    kept, now = survivor["kept"], records(survivor["dataset"])
    assert 90 <= len(kept) < len(now)
    assert {path: now[path] for path in kept} == kept
    assert f"{len(now) - len(kept)} done" in survivor["out"]
    assert not list(survivor["dataset"].glob("**/results/*/.*.new"))


@pytest.mark.slow
def test_the_table_has_a_row_for_every_trial_and_says_why_some_failed(survivor):
    dataset = survivor["dataset"]
    table = pd.read_parquet(dataset / "batch" / "trials.parquet")
    assert survivor["code"] == 1 and "3 of 27 trials have no results" in survivor["err"]
    failed = table[table.status != "done"].set_index("session")
    assert len(table) == 27 and set(failed.index) == {BROKEN_JSON, BROKEN_VIDEO, NO_CALIBRATION}
    for name, words in (
        (BROKEN_JSON, ".json"),
        (BROKEN_VIDEO, "cam1.mp4"),
        (NO_CALIBRATION, "calibration"),
    ):
        assert words in failed.reason[name] and "\n" not in failed.reason[name]
        assert failed.reason[name] in survivor["err"]
    assert failed.drop(columns=["trial", "activity", "status", "reason"]).isna().all(axis=None)
    done = table[table.status == "done"]
    assert set(done.trial) == {"static1", "squats1"} and len(done) == 24
    squats = done[done.trial == "squats1"]
    assert squats.knee_angle_r_range_deg.between(40, 150).all()
    assert done[[f"{stage}_s" for stage in ORDER]].gt(0).all(axis=None)
    assert done.verdict.isin(["ok", "warn", "bad"]).all()
    assert done.notices.str.contains("kinematics: ").all()
    assert done.inverse_kinematics_marker_error_rms_mean_mm.between(1, 60).all()
    has_errors = done.reference_lower_limb_rmse_deg.notna()
    assert set(done.session[has_errors]) == {COMPARED} and has_errors.sum() == 2
    assert done.reference_lower_limb_rmse_deg.max() < 15
    for other in (
        pd.read_csv(dataset / "batch/trials.csv"),
        pd.read_excel(dataset / "batch/trials.xlsx"),
    ):
        assert list(other.columns) == list(table.columns)
        np.testing.assert_allclose(
            other.hip_flexion_l_range_deg, table.hip_flexion_l_range_deg, rtol=1e-5
        )


@pytest.mark.slow
def test_the_page_links_every_report_and_opens_offline(survivor):
    folder = survivor["dataset"] / "batch"
    html = (folder / "dataset.html").read_text(encoding="utf-8")
    reports = re.findall(r'<a href="([^"]+/report\.html)"', html)
    tables = re.findall(r'<a href="(trials\.[a-z]+)"', html)
    assert len(reports) == 24 and len(tables) == 3
    assert all((folder / link).is_file() for link in reports + tables)
    assert "right, n = 12" in html and "left, n = 12" in html and NO_CALIBRATION in html


@pytest.mark.slow
def test_results_are_the_same_bytes_whoever_computes_them(survivor, subjects, tmp_path):
    alone = shutil.copytree(subjects / "subject1", tmp_path / "alone")
    shutil.rmtree(alone / "truth")
    subprocess.run(
        [sys.executable, "-m", "pipeline", "run", str(alone)], check=True, capture_output=True
    )
    expected = contents(alone / "results")
    assert len(expected) > 40
    for copy in range(COPIES):
        session = survivor["dataset"] / f"group{1 + copy % 2}" / f"subject1-{copy}"
        found = contents(session / "results", [f"{trial}/" for trial in ("static1", "squats1")])
        assert [name for name in expected if found[name] != expected[name]] == []


def contents(results: Path, below: tuple = ("",)) -> dict[str, bytes | dict]:
    """What is in every file of results; but for `seconds`, which says how long a stage took.

    Of NetCDF what it holds: HDF5 may lay the same content out in more than one way.
    """
    found = {}
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results).as_posix()
        if path.is_file() and path.name != ".lock" and name.startswith(tuple(below)):
            found[name] = path.read_bytes()
            if path.name == "stage.json":
                found[name] = {k: v for k, v in json.loads(found[name]).items() if k != "seconds"}
            elif path.suffix == ".nc":
                found[name] = repr(load_dataset(path).to_dict())
    return found


@pytest.mark.slow
def test_two_batches_at_once_on_a_folder_share_the_work(session):
    both = [start(session, "--workers", 1, "--activity", "static") for _ in range(2)]
    ends = [finish(process) for process in both]
    assert [code for code, *_ in ends] == [0, 0], ends
    assert sum(count(out, "done") for _, out, _ in ends) == len(ORDER)
    assert sum(count(out, "up to date") for _, out, _ in ends) == len(ORDER)
    assert [stages_to_run(job) for job in make_plan(session, "static", []).jobs] == [[]]


def count(out: str, status: str) -> int:
    """How many stages a batch says to be so."""
    (line,) = [line for line in out.splitlines() if line.startswith("  stages")]
    numbers = {
        each.partition(" ")[2]: each.partition(" ")[0]
        for each in line.split(None, 1)[1].split(", ")
    }
    return int(numbers.get(status, 0))


@pytest.mark.slow
def test_ctrl_c_stops_a_batch_and_its_workers(session):
    process = start(session, "--workers", 1)
    wait_for_stages(session, 3, process)
    workers = workers_of(process)
    os.killpg(process.pid, signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130 and "Finished stages are kept" in err and "Traceback" not in err
    assert not psutil.wait_procs(workers, timeout=10)[1]


@pytest.fixture(scope="module")
def client():
    """A client of one worker for networks, which is `0`, and one for the rest, which is `1`."""
    with connected(None, workers=1, gpu_workers=1) as client:
        yield client


def run_here(client, *jobs):
    told = []
    results = run_jobs(client, jobs, told.append)
    assert {each.job.name for each in told if isinstance(each, JobResult)} == {j.name for j in jobs}
    return results


@pytest.mark.slow
def test_networks_run_where_a_gpu_is_declared_and_the_rest_does_not(client, session):
    static, squats = make_plan(session, None, []).jobs
    (result,) = run_here(client, static)
    assert result.failure is None
    # A trial that brings keypoints runs no network, and leaves the GPU alone.
    assert {unit.worker for unit in result.units} == {"1"}
    trial = replace(squats.trial, poses={}, scaling_trial=None)
    filmed = replace(squats, trial=trial, networks=network_stages(trial, squats.configure(trial)))
    (result,) = run_here(client, filmed)
    assert {unit.stage for unit in result.units if unit.worker == "0"} >= {"detect", "keypoints"}


@pytest.mark.slow
def test_a_static_trial_that_fails_blocks_what_it_scales_and_nothing_else(client, session):
    for part in (session / "pose/static1").rglob("*.json"):
        part.write_text("[]", encoding="utf-8")
    jobs = make_plan(session, "squats", []).jobs
    static, squats = run_here(client, *jobs)
    assert static.failure.status == "failed" and static.job.stages[-1] == "augment"
    assert squats.failure.status == "blocked" and squats.failure.stage == "kinematics"
    assert "of subject0/static1" in squats.failure.message
    assert [unit.status for unit in squats.units[:8]] == ["done"] * 8


@pytest.mark.slow
def test_trials_wait_for_others_of_their_session_and_do_without_those_that_fail(client, session):
    """Three squats whose fits read each other's results; one of them is broken."""
    for name in ("squats2", "squats3"):
        shutil.copytree(session / "pose/squats1", session / "pose" / name)
        with (session / "session.toml").open("a", encoding="utf-8") as toml:
            toml.write(f"\n[trials.{name}]\nrate_hz = 30.0\n")
    for part in (session / "pose/squats3").rglob("*.json"):
        part.write_text('{"people": [', encoding="utf-8")
    together = ["kinematics.fit=markers", "kinematics.fit_trials=session", "report.overlay=false"]
    results = {
        each.job.trial.name: each
        for each in run_here(client, *make_plan(session, "squats", together).jobs)
    }
    assert results["squats3"].failure.stage == "detect"
    for name, other in (("squats1", "squats2"), ("squats2", "squats1")):
        trial = results[name].job.trial
        assert results[name].failure is None
        assert f"{session.name}/{other}" in results[name].job.waits_for
        about = json.loads((trial.folder("kinematics") / "kinematics.json").read_text("utf-8"))
        assert about["fit"]["done"] == "markers"
        assert set(about["fit"]["samples"]) == {"squats1", "squats2", "static1"}
        assert "left out of the fit: squats3" in results[name].summary.row["notices"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_fails_a_stage_and_nothing_of_it_is_left(client, session):
    """Files may not grow beyond a limit: what a full disk does to whoever writes."""
    (job,) = make_plan(session, "static", []).jobs
    before = client.run(limit_file_size, 1_000_000)
    (result,) = run_here(client, job)
    client.run(limit_file_size, max(before.values()))
    assert result.failure.stage == "report" and "too large" in result.failure.message
    assert not list(job.trial.results.glob("*10_report*"))
    (again,) = run_here(client, job)
    assert [unit.status for unit in again.units] == ["up to date"] * 9 + ["done"]


def limit_file_size(size: int) -> int:
    import resource

    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    return before


@dataclass(frozen=True)
class Deadly(Job):
    """A trial that ends the process which works on it, as a crash in a library would."""

    def configure(self, trial):
        """Never return."""
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Mistaken(Job):
    """A trial that meets a mistake of ours."""

    def configure(self, trial):
        """Divide by zero."""
        return 1 / 0


@pytest.mark.slow
def test_neither_crash_nor_mistake_takes_other_trials_with_it(client, session):
    good, _ = make_plan(session, None, []).jobs
    deadly = Deadly(
        "lab/deadly", session, replace(good.trial, results=session / "results/a"), {}, ()
    )
    mistaken = Mistaken(
        "lab/wrong", session, replace(good.trial, results=session / "results/b"), {}, ()
    )
    first, second, third = run_here(client, deadly, mistaken, good)
    assert "process that ran it died" in first.failure.message
    assert "ZeroDivisionError" in second.failure.message and "1 / 0" in second.failure.traceback
    assert {unit.status for unit in first.units[1:]} == {"blocked"}
    assert third.failure is None and third.summary.row["verdict"] in ("ok", "warn", "bad")


@pytest.mark.slow
def test_a_scheduler_that_runs_already_is_used(client, session, monkeypatch, capsys):
    arguments = ("batch", session, "--activity", "static", "--scheduler", client.scheduler.address)
    code, out, err = pipeline(monkeypatch, capsys, *arguments, "--out", session.parent / "tables")
    assert code == 0, err
    assert "10 done" in out and (session.parent / "tables" / "dataset.html").exists()
    code, out, _ = pipeline(monkeypatch, capsys, "batch", session, "--dry-run")
    assert code == 0 and "10 of 20 stages to run" in out.replace("\n", " ")


def test_results_of_other_settings_are_not_built_upon(session):
    """Two runs with different settings on one folder: the slower one must not mix them."""
    (trial,) = open_session(session).select(trial="static1")
    slow, fast = (
        lambda _, hz=hz: configure("static", {"smooth": {"cutoff_hz": hz}}) for hz in (6.0, 8.0)
    )

    def run(stage, settings):
        return run_stage(trial, stage, settings, lambda *_: no_progress)

    for stage in ORDER[:7]:
        run(stage, slow)
    run("smooth", fast)
    with pytest.raises(PipelineError, match="06_smooth is not of this run's settings"):
        run("export", slow)


def test_an_input_that_changes_while_it_is_read_leaves_no_result(session):
    (trial,) = open_session(session).select(trial="static1")
    first = min((session / "pose/static1").rglob("*.json"))

    def watch(*_):
        first.write_text('{"people": []}', encoding="utf-8")
        return no_progress

    with pytest.raises(PipelineError, match="changed while it ran"):
        run_stage(trial, "frames", lambda t: configure(t.activity, {}), watch)
    assert not trial.folder("frames").exists()


def test_sessions_are_found_at_any_depth_but_not_within_sessions(tmp_path):
    for name in ("a", "study/b", "study/more/c", "1/2/3/4", "1/2/3/4x/5", ".hidden/d", "a/truth/e"):
        (tmp_path / name / "pose/squats1/cam1_json").mkdir(parents=True)
    found = [path.relative_to(tmp_path).as_posix() for path in find_sessions(tmp_path)]
    assert found == ["1/2/3/4", "a", "study/b", "study/more/c"]
    assert find_sessions(tmp_path / "a") == [tmp_path / "a"]
    with pytest.raises(PipelineError, match="no session in"):
        find_sessions(tmp_path / "a/pose")


def test_a_plan_has_static_trials_first_and_only_as_far_as_they_are_needed(session):
    static, squats = make_plan(session.parent, "SQUATS", []).jobs
    assert (static.name, static.stages) == ("subject0/static1", ORDER[:7])
    assert (squats.name, squats.stages) == ("subject0/squats1", ORDER)
    assert stages_to_run(squats) == list(ORDER)
    with pytest.raises(
        PipelineError, match="has activity 'gait'. Their activities: squats, static"
    ):
        make_plan(session.parent, "gait", [])
    unreadable = session.parent / "subject1" / "session.toml"
    unreadable.parent.mkdir()
    unreadable.write_text("mass_kg = [", encoding="utf-8")
    with pytest.raises(PipelineError, match="has activity 'gait'"):
        make_plan(session.parent, "gait", [])
    plan = make_plan(session.parent, "squats", [])
    assert len(plan.jobs) == 2 and [each.session for each in plan.unreadable] == ["subject1"]
    with pytest.raises(PipelineError, match="smooth.cutoff_hz"):
        make_plan(session.parent, None, ["smooth.cutoff_hz=-1"])


def test_a_dry_run_writes_nothing(session, monkeypatch, capsys):
    code, out, _ = pipeline(monkeypatch, capsys, "batch", session.parent, "--dry-run")
    assert code == 0 and "1 sessions, 2 trials: 20 of 20 stages to run" in out
    assert not (session / "results").exists() and not (session.parent / "batch").exists()


def test_a_folder_of_other_files_is_not_replaced(session, monkeypatch, capsys):
    (session.parent / "batch").mkdir()
    (session.parent / "batch" / "thesis.docx").touch()
    code, _, err = pipeline(monkeypatch, capsys, "batch", session.parent)
    assert code == 1 and "would be replaced" in err


@pytest.mark.parametrize("address", ["nonsense", "tcp://node1", "foo://node1:8786"])
def test_an_address_that_is_none_is_told_at_once(address):
    began = time.monotonic()
    with pytest.raises(PipelineError, match="no Dask scheduler answers at"):
        with connected(address, 1, 0):
            pass
    gc.collect()  # a client that is half made would wait for itself here
    assert time.monotonic() - began < 5


def test_a_stage_never_asks_for_what_no_worker_has(session):
    (trial,) = open_session(session).select(trial="static1")

    def job(trial, *overrides):
        bare = Job("", session, trial, {}, overrides)
        return replace(bare, networks=network_stages(trial, bare.configure(trial)))

    filmed, brought = job(replace(trial, poses={})), job(trial)
    learned = job(trial, "triangulate.method=volumetric")
    assert demands(filmed, "detect", {"CPU", "GPU"}) == {"GPU": 1.0}
    assert demands(brought, "detect", {"CPU", "GPU"}) == {"CPU": 1.0}
    assert demands(filmed, "kinematics", {"CPU", "GPU"}) == {"CPU": 1.0}
    assert demands(brought, "triangulate", {"CPU", "GPU"}) == {"CPU": 1.0}
    assert demands(learned, "triangulate", {"CPU", "GPU"}) == {"GPU": 1.0}
    assert demands(filmed, "detect", {"CPU"}) == {} == demands(filmed, "smooth", {"GPU"})
    assert notices_about(set()) == [] and "networks run on any" in notices_about({"CPU"})[0]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.lists(st.floats(-90, 140), min_size=1, max_size=4)),
        min_size=1,
    )
)
def test_every_repetition_of_a_subject_counts_the_same_whichever_trial_it_is_in(trials):
    curves = [
        (f"subject{who}", {"knee_angle_r": Repeated(np.full(101, np.mean(levels)), len(levels))})
        for who, levels in trials
    ]
    means = means_over_repetitions(curves)["knee_angle_r"]
    pooled = pd.DataFrame([(who, level) for who, levels in trials for level in levels]).groupby(0)[
        1
    ]
    np.testing.assert_allclose(np.sort(means[:, 50]), np.sort(pooled.mean()), atol=1e-9)


def test_the_documented_slurm_workers_declare_what_they_are_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # they make a folder for their logs
    text = (Path(__file__).parents[1] / "docs" / "batch.md").read_text(encoding="utf-8")
    names = {}
    exec(re.findall(r"```python\n(.*?)```", text, re.S)[0], names)
    cpu = names["cluster"].job_script()
    gpu = SLURMJob(scheduler="tcp://node1:8786", name="gpu", **names["gpu"]["options"]).job_script()
    names["cluster"].close()
    for script, kind, queue in ((cpu, "CPU", "cpu"), (gpu, "GPU", "gpu")):
        assert f"--resources {kind}=1" in script and script.count("--resources") == 1
        assert f"#SBATCH -p {queue}\n" in script and "#SBATCH -A my-lab\n" in script
        assert "--nthreads 1" in script and "export OPENCV_FOR_THREADS_NUM=1\n" in script
    assert "--gres=gpu:1" in gpu and "--gres" not in cpu
    assert "tcp://node1:8786" in gpu
