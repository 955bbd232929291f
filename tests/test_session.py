import pytest

from pipeline.config import configure
from pipeline.errors import PipelineError
from pipeline.session import activity_of, open_session


@pytest.fixture
def folder(tmp_path):
    for trial in ("squats1", "squatsAsym1", "static1"):
        for camera in ("cam1", "cam2"):
            video = tmp_path / "videos" / trial / f"{camera}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            video.touch()
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration" / "Calib.toml").touch()
    return tmp_path


def write(folder, text):
    (folder / "session.toml").write_text(text, encoding="utf-8")
    return open_session(folder)


@pytest.mark.parametrize(
    "trial, activity",
    [
        ("squats1", "squats"),
        ("squatsAsym12", "squatsAsym"),
        ("STS1_syncdWithMocap", "STS"),
        ("balancing", "balancing"),
        ("walk-3", "walk"),
        ("42", "42"),
        ("STSweakLegs1", "STSweakLegs"),
        ("squats_1_sync", "squats"),
        ("squats1_2", "squats"),
        ("P01_squats1", "P01_squats"),  # not "P", which would be that of all trials
        ("squats1_Session0", "squats"),
        ("squats1_Cam1-Cam3", "squats"),  # results of some cameras
        ("S00_P00_T01_Balancing", "S00_P00_T01_Balancing"),
        ("Kniebeuge-überkopf2", "Kniebeuge-überkopf"),
    ],
)
def test_an_activity_is_a_trial_name_without_its_number(trial, activity):
    assert activity_of(trial) == activity


def test_trials_are_selected_by_activity_or_name(folder):
    session = open_session(folder)
    assert [trial.name for trial in session.select()] == ["squats1", "squatsAsym1", "static1"]
    (squats,) = session.select(activity="Squats")
    assert squats.name == "squats1" and list(squats.videos) == ["cam1", "cam2"]
    assert squats.scaling_trial.name == "static1"
    assert session.select(trial="static1")[0].scaling_trial is None


def names(trials):
    return [each.name for each in trials]


def test_a_trial_knows_the_others_of_its_person_that_the_same_cameras_filmed(folder):
    trials = {each.name: each for each in open_session(folder).trials()}
    assert names(trials["squats1"].session_trials) == ["squatsAsym1", "static1"]
    assert names(trials["static1"].session_trials) == ["squats1", "squatsAsym1"]
    assert trials["squats1"].session_trials[0].session_trials == ()
    (folder / "videos/squatsAsym1/cam3.mp4").touch()
    trials = {each.name: each for each in open_session(folder).trials()}
    assert names(trials["squats1"].session_trials) == ["static1"]
    assert trials["squatsAsym1"].session_trials == ()


def test_session_toml_sets_subject_activity_cameras_and_clocks(folder):
    session = write(
        folder,
        """
        subject = {height_m = 1.7, mass_kg = 66}
        [trials.squats1]
        activity = "lunges"
        cameras = ["cam2"]
        clock_offsets_s = {cam2 = 0.25}
        """,
    )
    (trial,) = session.select(activity="lunges")
    assert list(trial.videos) == ["cam2"] and trial.clock_offsets_s == {"cam2": 0.25}
    assert trial.subject.height_m == 1.7


@pytest.mark.parametrize(
    "text, message",
    [
        ("[subject]\nheight_m = 170", "less than 2.6"),
        ("[subject]\nweight = 70", "subject.weight is unknown"),
        ("[subject]\nheight_m = true", "height_m.* should be a number, got True"),
        ("[trials.jumps1]\nactivity='x'", "speaks of trials jumps1"),
        ("[trials.squats1]\ncameras=['cam9']", "names camera cam9"),
        ("calibration = 'nowhere.toml'", "nowhere.toml, which is not there"),
        ("height = ", "cannot read"),
        ("world_up = 'up'", "world_up: input should be"),
        ("[trials.squats1]\nclock_offsets_s={cam1=nan}", "finite number"),
    ],
)
def test_mistakes_in_session_toml_are_named(folder, text, message):
    with pytest.raises(PipelineError, match=message):
        write(folder, text).select()


def test_hidden_files_and_folders_without_videos_are_passed_over_and_doubles_refused(folder):
    (folder / "videos" / "extrinsics").mkdir()
    (folder / "videos" / "squats1" / "._cam1.mp4").touch()
    assert [trial.name for trial in open_session(folder).trials()] == [
        "squats1",
        "squatsAsym1",
        "static1",
    ]
    assert list(open_session(folder).select(trial="squats1")[0].videos) == ["cam1", "cam2"]
    (folder / "videos" / "squats1" / "cam1.MOV").touch()
    with pytest.raises(PipelineError, match="several videos of one camera.*cam1.MOV, cam1.mp4"):
        open_session(folder).trials()


def test_what_a_session_lacks_is_named(folder, tmp_path):
    with pytest.raises(PipelineError, match="no activity 'jumps'.*squats1 .activity squats"):
        open_session(folder).select(activity="jumps")
    with pytest.raises(PipelineError, match="no trial 'static1' of activity 'squats'"):
        open_session(folder).select(activity="squats", trial="static1")
    (folder / "dataset" / "subject2").mkdir(parents=True)
    (folder / "dataset" / "subject2" / "session.toml").touch()
    with pytest.raises(PipelineError, match="is no session, but holds some: .*subject2. Name one"):
        open_session(folder / "dataset").select()
    with pytest.raises(PipelineError, match="no session folder"):
        open_session(folder / "nowhere")
    (folder / "calibration" / "Other.toml").touch()
    with pytest.raises(PipelineError, match="2 calibration files"):
        open_session(folder).select()
    for path in (folder / "calibration").iterdir():
        path.unlink()
    with pytest.raises(PipelineError, match="no calibration file"):
        open_session(folder).select()


def test_settings_come_from_activity_then_session_then_command_line():
    assert configure("balancing", {}).smooth.cutoff_hz == 6
    assert configure("DJ", {}).smooth.cutoff_hz == 12
    assert configure("squatsAsym", {}).report.repetitions == "knee bends"
    assert configure("walking", {}).report.repetitions == "strides"
    assert configure("trunkrotation", {}).report.repetitions == "none"
    assert configure("DJ", {"smooth": {"cutoff_hz": 9}}).smooth.cutoff_hz == 9
    chosen = configure(
        "DJ", {"smooth": {"cutoff_hz": 9}}, ["smooth.cutoff_hz=5", "smooth.method=butterworth"]
    )
    assert chosen.smooth.cutoff_hz == 5 and chosen.smooth.method == "butterworth"


@pytest.mark.parametrize(
    "override, message",
    [
        ("smooth.cutof_hz=5", "smooth.cutof_hz is unknown"),
        ("smoothing.cutoff_hz=5", "smoothing is unknown"),
        ("smooth.cutoff_hz=-1", "greater than 0"),
        ("smooth.cutoff_hz", "expected stage.key=value"),
        ("smooth=3", "expected stage.key=value"),
    ],
)
def test_unknown_or_impossible_settings_are_refused(override, message):
    with pytest.raises(PipelineError, match=message):
        configure("squats", {}, [override])
