import shutil
import zipfile

import pytest

from models import assets
from models.assets import asset, asset_folder, fetch, import_from, is_present, list_assets, verify
from models.vocabulary import vocabulary
from pipeline.errors import PipelineError


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MARKERLESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def offline(monkeypatch):
    """No package index and no server answers."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")


def test_the_registry_says_what_each_file_is():
    for each in list_assets():
        assert each.licence and each.citation and each.description
        assert all(len(file.sha256) == 64 and file.size_bytes > 0 for file in each.files)
        paths = [file.path for file in each.files]
        assert len(paths) == len(set(paths)) and not any(
            path.startswith(("/", "..")) for path in paths
        )
        if not each.wheel:
            assert all(file.source.startswith("https://") for file in each.files)


def test_fetched_files_are_the_registered_ones():
    folder = asset_folder("augmenter-v0.3")
    assert (folder / "lower" / "model.onnx").stat().st_size == 2080428
    verify("augmenter-v0.3")


@pytest.mark.parametrize("name", ["blazepose-full", "opensim-lai-uhlrich-2022"])
def test_offline_with_nothing_cached_says_what_to_do(name, empty_cache, monkeypatch):
    offline(monkeypatch)
    with pytest.raises(PipelineError, match=f"pipeline models import {name}"):
        asset_folder(name)
    assert not is_present(name)


def test_a_damaged_file_is_noticed(empty_cache, monkeypatch):
    name = "blazepose-detector"
    source = _cached(name, monkeypatch, empty_cache)
    folder = import_from(name, source)
    verify(name)
    (folder / "pose_detection.tflite").write_bytes(b"broken")
    with pytest.raises(PipelineError, match="not the registered file"):
        verify(name)


def test_files_are_imported_by_content_from_a_folder_or_a_wheel(empty_cache, tmp_path, monkeypatch):
    name = "augmenter-v0.3"
    source = _cached(name, monkeypatch, empty_cache)
    renamed = tmp_path / "usb-stick"
    renamed.mkdir()
    for index, file in enumerate(asset(name).files):
        shutil.copy(source / file.path, renamed / f"{index}.bin")
    import_from(name, renamed)
    verify(name)
    shutil.rmtree(empty_cache)
    wheel = tmp_path / "pose2sim.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for index, file in enumerate(asset(name).files):
            archive.write(renamed / f"{index}.bin", file.source)
    import_from(name, wheel)
    verify(name)


def test_other_files_are_not_taken(empty_cache, tmp_path):
    (tmp_path / "pose_detection.tflite").write_bytes(b"something else")
    with pytest.raises(PipelineError, match="does not hold pose_detection.tflite"):
        import_from("blazepose-detector", tmp_path)
    with zipfile.ZipFile(tmp_path / "wrong.whl", "w") as archive:
        archive.writestr(
            "mediapipe/modules/pose_detection/pose_detection.tflite", b"something else"
        )
    with pytest.raises(PipelineError, match="not the registered file"):
        import_from("blazepose-detector", tmp_path / "wrong.whl")
    (tmp_path / "cut.whl").write_bytes((tmp_path / "wrong.whl").read_bytes()[:40])
    with pytest.raises(PipelineError, match="not the wheel"):
        import_from("blazepose-detector", tmp_path / "cut.whl")
    assert not is_present("blazepose-detector")


def test_unknown_names_list_the_known_ones():
    with pytest.raises(PipelineError, match="blazepose-full"):
        fetch("openpose")
    with pytest.raises(PipelineError, match="blazepose-33"):
        vocabulary("coco")


def test_vocabularies_are_consistent():
    names = vocabulary("blazepose-33")
    assert len(names.keypoints) == len(set(names.keypoints)) == 33
    assert {name for bone in names.bones for name in bone} <= set(names.keypoints)
    for name in names.keypoints:
        if name[0] in "LR" and name[1].isupper():
            assert {"L": "R", "R": "L"}[name[0]] + name[1:] in names.keypoints


def _cached(name, monkeypatch, empty_cache):
    """The asset's folder in the user's real cache."""
    monkeypatch.delenv("MARKERLESS_CACHE")
    folder = assets.asset_folder(name)
    monkeypatch.setenv("MARKERLESS_CACHE", str(empty_cache))
    return folder
