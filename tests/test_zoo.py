"""Which models a run gets: the registry of models, what is installed, what the user asks for."""

import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnx_networks as networks
import pytest
from conftest import pipeline

from models import assets, choice, openmmlab
from models.assets import asset, import_from, is_present
from models.augmenter import VIDEO_KEYPOINTS
from models.backends import citation, fingerprints, make_detector, make_pose_estimator
from models.choice import Choice, choice_of, choose, summary
from models.vocabulary import derivations, vocabulary
from models.zoo import QUALITIES, list_models, model, pair, pairs
from pipeline import doctor
from pipeline.errors import PipelineError
from pipeline.terminal import console
from stages.detect import Settings as Asked


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MARKERLESS_CACHE", str(tmp_path / "cache"))


def fetched(*names):
    """Put files into the cache for models; their content does not matter here."""
    for name in names:
        (file,) = asset(name).files
        path = assets._folder(name) / file.path
        path.parent.mkdir(parents=True)
        path.write_bytes(b"weights")
        if len(file.sha256) < 64:
            path.with_name(f"{path.name}.sha256").write_text("0" * 64)
        assert is_present(name)


@pytest.fixture
def pose_file(tmp_path):
    return networks.random_pose_network(tmp_path / "pose.onnx", 26, (64, 96))


@pytest.fixture
def detector_file(tmp_path):
    return networks.bright_finder(tmp_path / "detector.onnx")


def test_every_model_says_what_it_is_and_where_it_comes_from():
    for each in list_models():
        assert each.licence and each.citation and each.description and each.backends
        assert bool(each.vocabulary) == (each.job == "pose")
        assert not each.vocabulary or vocabulary(each.vocabulary)
        assert ("halpe26" in each.name) == (each.vocabulary == "halpe-26")
        assert ("133" in each.vocabulary) == (each.finds == "whole body")
        for backend in each.backends:
            assert asset(each.asset_of(backend)).licence == each.licence
        for measured in filter(None, (each.accuracy_ap, each.speed_ms)):
            assert 0 < measured.value < 100 and measured.of and measured.source


def test_weights_come_from_https_and_have_the_hash_that_their_name_tells():
    for each in list_models():
        for backend, weights in each.weights.items():
            assert weights.address.startswith("https://")
            assert re.fullmatch("[0-9a-f]*", weights.sha256)
            assert bool(weights.config) == (backend == "mm")
            assert bool(weights.member) == weights.address.endswith(".zip")
            told = re.search("-([0-9a-f]{8})(_[0-9]{8})?.pth$", weights.address)
            if backend == "mm" and told and not told[1].startswith("2023"):  # those are dates
                assert weights.sha256 == told[1]


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_quality_is_a_pair_that_gives_the_augmenter_all_its_keypoints(quality):
    detector, pose = (model(name, job) for job, name in pair(quality).items())
    assert set(detector.backends) & set(pose.backends) == {"rtm", "mm"}
    known = vocabulary(pose.vocabulary).keypoints
    assert len(derivations(known, VIDEO_KEYPOINTS)) == len(VIDEO_KEYPOINTS)


def test_with_nothing_fetched_it_is_blazepose():
    found = choose(Asked())
    assert found.backend == "blazepose" and found.vocabulary == "blazepose-33"
    assert choice_of(asdict(found)) == found
    assert summary(found) == "blazepose-detector and blazepose-full, by LiteRT"


def test_the_best_pair_that_is_fetched_is_the_default(monkeypatch):
    fetched("rtmdet-nano")
    assert choose(Asked()).backend == "blazepose"
    fetched("rtmpose-s-halpe26")
    found = choose(Asked())
    assert (found.backend, found.detector, found.pose_model) == ("rtm", *pair("fast").values())
    fetched("rtmdet-m", "rtmw-l-384")
    found = choose(Asked())
    assert (found.detector, found.pose_model) == tuple(pair("best").values())
    assert found.vocabulary == "coco-wholebody-133"
    assert choose(Asked(quality="fast")).pose_model == "rtmpose-s-halpe26"
    assert choose(Asked(backend="blazepose")).pose_model == "blazepose-full"
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    assert choose(Asked()).backend == "blazepose"


def test_openmmlab_runs_its_own_files_where_it_is_installed(tmp_path, monkeypatch):
    fetched("rtmdet-m-mm", "rtmw-l-384-mm")
    monkeypatch.setattr(openmmlab, "missing_packages", lambda: openmmlab.PACKAGES)
    assert choose(Asked()).backend == "blazepose"
    with pytest.raises(PipelineError, match="mmcv.* not installed: .*pip install mmengine"):
        choose(Asked(backend="mm"))
    monkeypatch.setattr(openmmlab, "missing_packages", lambda: [])
    found = choose(Asked())
    assert (found.backend, found.pose_model) == ("mm", "rtmw-l-384")
    fetched("rtmdet-nano", "rtmpose-s-halpe26")
    assert choose(Asked()).backend == "mm"  # the better pair
    fetched("rtmdet-m", "rtmw-l-384")
    assert choose(Asked()).backend == "rtm"  # of the same pair, the lighter runtime
    (tmp_path / "own.pth").write_bytes(b"weights")
    found = choose(Asked(backend="mm", pose_model="rtmw-x-384", pose_weights=f"{tmp_path}/own.pth"))
    assert found.vocabulary == "coco-wholebody-133"
    assert "RTMW-x, whole body, 384 x 288 px, with weights own.pth" in citation(found)


def test_what_is_left_open_is_the_best_that_is_fetched():
    fetched("rtmdet-nano", "yolox-x", "rtmpose-s-halpe26", "rtmpose-l-halpe26")
    found = choose(Asked(pose_model="rtmpose-l-halpe26"))
    assert (found.detector, found.pose_model) == ("rtmdet-nano", "rtmpose-l-halpe26")
    found = choose(Asked(detector="yolox-x", backend="rtm"))
    assert (found.detector, found.pose_model) == ("yolox-x", "rtmpose-s-halpe26")


@pytest.mark.parametrize(
    "asked, message",
    [
        ({"quality": "best"}, "not fetched yet: pipeline models fetch rtmw-l-384$"),
        ({"backend": "rtm"}, "not fetched yet: pipeline models fetch rtmpose-m-halpe26$"),
        ({"pose_model": "openpose"}, "no model 'openpose'. There are: .*rtmw-l-384.* \\.onnx"),
        ({"detector": "rtmw-l"}, "rtmw-l is a pose model, but a person detector is needed"),
        ({"pose_model": "yolox-m"}, "yolox-m is a person detector, but a pose model is needed"),
        ({"pose_model": "nowhere.onnx"}, "there is no file .*nowhere.onnx"),
        ({"detector": "rtmdet-m", "pose_model": "blazepose-full"}, "no backend in common"),
        ({"backend": "blazepose", "detector": "rtmdet-m"}, "rtmdet-m does not run by LiteRT"),
        ({"backend": "blazepose", "quality": "fast"}, "not BlazePose's"),
        ({"backend": "rtm", "detector": "config.py"}, "config.py does not run by ONNX Runtime"),
        ({"detector_weights": "epoch_9.pth"}, "for backend mm only"),
        ({"device": "cuda"}, "BlazePose, run on the CPU only"),
    ],
)
def test_what_cannot_run_is_told_in_one_line(asked, message):
    fetched("rtmdet-m")
    with pytest.raises(PipelineError, match=message) as told:
        choose(Asked(**asked))
    assert "\n" not in str(told.value)


def test_a_runtime_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    for asked in (Asked(backend="rtm"), Asked(quality="fast"), Asked(detector="yolox-m")):
        with pytest.raises(PipelineError, match="pip install onnxruntime"):
            choose(asked)


def test_the_keypoints_of_a_file_are_known_by_their_number(pose_file, detector_file):
    asked = {"detector": str(detector_file), "pose_model": str(pose_file)}
    found = choose(Asked(**asked))
    assert found.backend == "rtm" and found.vocabulary == "halpe-26"
    assert make_pose_estimator(found).keypoints == 26
    assert make_detector(found)
    wrong = choose(Asked(**asked, vocabulary="coco-17"))
    with pytest.raises(PipelineError, match="has 26 keypoints, but coco-17 has 17"):
        make_pose_estimator(wrong)


def test_relative_paths_mean_the_same_from_elsewhere(pose_file, detector_file, monkeypatch):
    monkeypatch.chdir(pose_file.parent)
    found = choose(Asked(detector="detector.onnx", pose_model="pose.onnx"))
    assert (Path(found.detector), Path(found.pose_model)) == (detector_file, pose_file)


def test_files_that_are_cut_short_or_for_another_job(pose_file, detector_file):
    for pose, message in ((detector_file, "is a detector, but a pose model"), (None, "cut short")):
        if pose is None:
            pose = pose_file
            pose.write_bytes(pose.read_bytes()[:-500])
        with pytest.raises(PipelineError, match=message):
            choose(Asked(detector=str(detector_file), pose_model=str(pose)))


def test_keypoints_that_no_vocabulary_has_must_be_named(tmp_path, detector_file):
    pose = networks.random_pose_network(tmp_path / "three.onnx", 3, (64, 96))
    with pytest.raises(PipelineError, match="three.onnx has 3 keypoints.*one of .*halpe-26"):
        choose(Asked(detector=str(detector_file), pose_model=str(pose)))


def test_fingerprints_change_with_the_files_and_not_with_the_device(pose_file, detector_file):
    asked = {"detector": str(detector_file), "pose_model": str(pose_file)}
    before = fingerprints(choose(Asked(**asked, device="cpu")))
    assert fingerprints(choose(Asked(**asked))) == before
    networks.random_pose_network(pose_file, 26, (64, 96), seed=1)
    after = fingerprints(choose(Asked(**asked)))
    assert {name for name in before if before[name] != after[name]} == {"pose_model sha256"}


def test_weights_in_a_file_beside_the_network_count(tmp_path, pose_file, detector_file):
    network, hashes = onnx.load(pose_file), []
    for factor in (1.0, 1.0, 2.0):
        for each in network.graph.initializer:
            values = onnx.numpy_helper.to_array(each)
            if values.dtype == np.float32:
                each.CopyFrom(onnx.numpy_helper.from_array(factor * values, each.name))
        (tmp_path / "own.onnx.data").unlink(missing_ok=True)
        onnx.save(
            onnx.ModelProto.FromString(network.SerializeToString()), tmp_path / "own.onnx",
            save_as_external_data=True, location="own.onnx.data", size_threshold=256,
        )  # fmt: skip
        asked = Asked(detector=str(detector_file), pose_model=str(tmp_path / "own.onnx"))
        hashes.append(fingerprints(choose(asked))["pose_model sha256"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_configuration_counts_with_what_it_builds_on(tmp_path):
    pytest.importorskip("mmengine")
    (tmp_path / "own.py").write_text("_base_ = ['base.py']")
    hashes = []
    for channels in (17, 17, 26):
        (tmp_path / "base.py").write_text(
            f"model = dict(head=dict(out_channels={channels}))\ntest_dataloader = dict(batch_size=1)"
        )
        found = Choice("mm", "d", f"{tmp_path}/own.py", "", "", "coco-17", "cpu")
        hashes.append(fingerprints(found)["pose_model sha256"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_fingerprints_of_files_whose_hash_nobody_publishes_are_those_of_the_copy(tmp_path):
    results = []
    for content in (b"one", b"two"):
        (tmp_path / "file.onnx").write_bytes(content)
        folder = import_from("rtmpose-s-halpe26", tmp_path / "file.onnx")
        if not results:
            fetched("rtmdet-m")
        results.append(fingerprints(choose(Asked(pose_model="rtmpose-s-halpe26"))))
        for file in folder.iterdir():
            file.unlink()
    assert results[0]["pose_model sha256"] != results[1]["pose_model sha256"]
    assert results[0]["detector sha256"] == results[1]["detector sha256"]


def test_citations_name_models_licences_and_files(pose_file):
    fetched("rtmdet-m")
    found = choose(Asked(pose_model=str(pose_file)))
    told = citation(found)
    assert "RTMDet-m, 640 px (Lyu et al., RTMDet, arXiv 2212.07784, 2022; Apache-2.0)" in told
    assert "pose.onnx" in told and str(pose_file.parent) not in told and "ONNX Runtime" in told


def test_pairs_are_offered_best_first():
    assert [*pairs()] == ["best", "balanced", "fast"]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line; return its exit code and what it printed."""

    def command(*arguments):
        monkeypatch.setattr(console, "width", 150)
        code, out, err = pipeline(monkeypatch, capsys, *arguments)
        return code, out + err

    return command


def test_the_list_tells_what_each_model_is_worth_and_what_is_fetched(run, tmp_path):
    (tmp_path / "network.onnx").write_bytes(b"weights" * 1000)
    code, out = run("models", "import", "rtmpose-s-halpe26", tmp_path / "network.onnx")
    assert code == 0
    code, out = run("models", "list")
    assert code == 0 and all(each.name in out for each in list_models())
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert re.search(r"rtm, mm +55.7 +Apache-2.0 76.7 Body8 +11 no", rows["rtmpose-m-halpe26"])
    assert re.search(r" 0.0 .* 72.0 Body8 +4 +rtm \(first seen\)", rows["rtmpose-s-halpe26"])
    assert re.search(r" ~99 .* 62.5 COCO +no", rows["rtmdet-m"])
    assert "--quality best: rtmdet-m and rtmw-l-384" in out and "augmenter-v0.3" in out
    assert run("models", "verify") == (0, "rtmpose-s-halpe26: ok (against its first copy)\n")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["fetch", "--quality", "best"],
            "rtmdet_m_.*235e8209.zip, then here: pipeline models import",
        ),
        (["fetch", "rtmdet-m-mm"], "download https://.*rtmdet_m.*pth, then here: pipeline models"),
        (["fetch", "--quality", "good"], "no quality 'good'. There are: fast, balanced, best"),
        (["fetch", "--quality", "fast", "--backend", "x"], "rtmdet-nano runs by backend rtm, mm"),
        (["fetch", "openpose"], "there is no asset 'openpose'"),
        (["import", "rtmdet-m", __file__], "does not hold rtmdet-m.onnx of rtmdet-m"),
    ],
)
def test_what_cannot_be_fetched_or_imported_is_told(run, monkeypatch, arguments, message):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # offline
    code, out = run("models", *arguments)
    assert code == 1 and re.search(message, out) and out.count("\n") == 1


def test_the_doctor_tells_which_models_a_run_takes():
    def taken():
        return next(each.detail for each in doctor.examine() if each.subject == "2D keypoints")

    assert taken().startswith("blazepose-detector and blazepose-full, by LiteRT. Better ones: ")
    fetched(*pair("balanced").values())
    assert taken() == "rtmdet-m and rtmpose-m-halpe26, by ONNX Runtime"


def test_the_doctor_tells_how_to_get_what_other_backends_need(monkeypatch):
    def found():
        return {each.subject: each for each in doctor.examine() if each.verdict == "optional"}

    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    monkeypatch.setattr(openmmlab, "missing_packages", lambda: openmmlab.PACKAGES)
    assert "pip install onnxruntime" in found()["ONNX Runtime"].detail
    assert "docs/keypoints.md" in found()["OpenMMLab"].detail
    lacking = [each for each in openmmlab.PACKAGES if each.name == "munkres"]
    monkeypatch.setattr(openmmlab, "missing_packages", lambda: lacking)
    assert "pip install munkres" in found()["OpenMMLab: munkres"].detail


def test_a_detector_sees_images_of_the_size_that_it_was_trained_with():
    assert model("rtmdet-nano").side_px == 320 and model("rtmdet-m").side_px == 640
    sizes = {each.name: each.side_px for each in list_models() if each.job == "detector"}
    told = {name: model(name).description.partition(", ")[2] for name in sizes}
    assert all(f"{sizes[name]} px" == text for name, text in told.items() if text)
