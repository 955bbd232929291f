import subprocess
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from openmmlab_networks import (
    build,
    checkpoint_of_onnx,
    export_pose_model,
    looking_once,
    pointing_checkpoint,
    random_checkpoint,
)
from torch import nn

from models.assets import asset_folder
from models.openmmlab import MmDetector, MmPoseEstimator, count_keypoints, missing_packages
from models.openmmlab_checkpoint import load_weights
from models.openmmlab_files import find_configuration
from models.people import NOBODY, Detections
from models.rtm import RtmDetector, RtmPoseEstimator
from models.vocabulary import vocabulary
from models.zoo import list_models
from pipeline.errors import PipelineError

LACKING = ", ".join(each.name for each in missing_packages())
with_packages = pytest.mark.skipif(
    bool(LACKING), reason=f"needs OpenMMLab's packages ({LACKING}): .ci/mm runs it"
)
without_packages = pytest.mark.skipif(not LACKING, reason="OpenMMLab's packages are installed")

NANO = "rtmdet_nano_320-8xb32_coco-person"
COCO = "rtmdet_tiny_8xb32-300e_coco"
TINY_POSE = "rtmpose-t_8xb1024-700e_body8-halpe26-256x192"
WHOLE_BODY = "rtmw-m_8xb1024-270e_cocktail14-256x192"
NANO_ONNX = Path(__file__).parents[2] / "shared/data/models/rtmdet_nano_person_320.onnx"


def frames(count: int) -> list[np.ndarray]:
    video = cv2.VideoCapture(str(asset_folder("demo-single-person") / "cam01.mp4"))
    return [video.read()[1] for _ in range(10 * count)][::10]


def persons(boxes) -> Detections:
    boxes = np.array(boxes, float).reshape(-1, 4)
    return Detections(boxes, np.zeros(len(boxes)), np.ones(len(boxes)))


def detect(detector, images):
    prepared = detector.prepare(images)
    return detector.read(prepared, detector.infer(prepared))


def estimate(estimator, images, regions):
    prepared = estimator.prepare(images, regions)
    return estimator.read(prepared, estimator.infer(prepared))


def message(call, *arguments) -> str:
    with pytest.raises(PipelineError) as raised:
        call(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# What needs none of the packages


@without_packages
@pytest.mark.parametrize("call", [MmDetector, MmPoseEstimator, count_keypoints])
def test_without_its_packages_the_backend_says_which_and_how_to_install_them(call):
    said = message(call, TINY_POSE)
    assert all(each.name in said and each.command in said for each in missing_packages())


@without_packages
def test_mmcv_without_compiled_operations_counts_as_missing(tmp_path, monkeypatch):
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert "mmcv" in [each.name for each in missing_packages()]
    (tmp_path / "mmcv" / "_ext.so").touch()
    assert "mmcv" not in [each.name for each in missing_packages()]


def test_a_package_may_be_a_single_file(tmp_path, monkeypatch):
    (tmp_path / "munkres.py").touch()  # as version 1 is
    monkeypatch.syspath_prepend(tmp_path)
    assert "munkres" not in [each.name for each in missing_packages()]


def test_a_path_of_a_configuration_that_is_not_there_is_named(tmp_path):
    assert str(tmp_path / "mine.py") in message(find_configuration, str(tmp_path / "mine.py"))


def network(*widths: int) -> nn.Module:
    layers = [nn.Linear(*pair) for pair in zip(widths, widths[1:], strict=False)]
    return nn.Sequential(*layers, nn.BatchNorm1d(widths[-1]))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_come_back_as_they_were_saved(tmp_path, prefix):
    trained, fresh = network(3, 5), network(3, 5)
    weights = {f"{prefix}{name}": value for name, value in trained.state_dict().items()}
    torch.save({"state_dict": weights, "meta": {"epoch": 7}}, tmp_path / "a.pth")
    assert load_weights(fresh, tmp_path / "a.pth") == {"epoch": 7}
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(fresh.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("home", [b"numpy._core", b"numpy.core"])
def test_what_a_checkpoint_says_in_numpy_is_read_whichever_numpy_wrote_it(tmp_path, home):
    meta = {"sigmas": np.array([0.5, 0.25]), "lr": np.float32(0.125), "names": np.array(["a", "b"])}
    path = tmp_path / "a.pth"
    content = {"state_dict": network(3, 5).state_dict(), "meta": meta}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    written = path.read_bytes().replace(b"cnumpy._core.", b"cnumpy.core.")
    assert b"cnumpy.core." in written
    path.write_bytes(written.replace(b"cnumpy.core.", b"c" + home + b"."))
    read = load_weights(network(3, 5), path)
    assert read["lr"] == 0.125 and read["names"].tolist() == ["a", "b"]
    np.testing.assert_array_equal(read["sigmas"], [0.5, 0.25])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_cut_short_is_refused(tmp_path, share, zipped):
    path = tmp_path / "a.pth"
    torch.save(network(3, 50, 5).state_dict(), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "cut short" in message(load_weights, network(3, 50, 5), path)


@pytest.mark.parametrize(
    "other, misfits",
    [
        (nn.Sequential(*network(3, 5), nn.Linear(5, 5)), 2),  # deeper
        (network(4, 5), 1),
        (nn.Linear(3, 5), 9),
    ],
)
def test_the_checkpoint_of_another_network_is_refused_with_how_much_does_not_fit(
    tmp_path, other, misfits
):
    torch.save({"state_dict": other.state_dict()}, tmp_path / "a.pth")
    said = message(load_weights, network(3, 5), tmp_path / "a.pth")
    assert f"another network: {misfits} weights" in said


class Program:
    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_a_checkpoint_that_is_a_program_is_refused_and_not_run(tmp_path):
    content = {"state_dict": network(3, 5).state_dict(), "meta": Program(tmp_path / "ran")}
    torch.save(content, tmp_path / "a.pth")
    assert "could run programs" in message(load_weights, network(3, 5), tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}])
def test_a_file_without_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    assert "no" in message(load_weights, network(3, 5), tmp_path / "a.pth")


# What needs them


@pytest.fixture(scope="module")
def tiny_pose(tmp_path_factory) -> str:
    return str(random_checkpoint(tmp_path_factory.mktemp("tiny") / "a.pth", TINY_POSE, "mmpose"))


@pytest.fixture(scope="module")
def nano(tmp_path_factory) -> str:
    if not NANO_ONNX.is_file():
        pytest.skip("the shared data (../shared) is not beside this checkout")
    return str(checkpoint_of_onnx(tmp_path_factory.mktemp("nano") / "a.pth", NANO, NANO_ONNX))


@with_packages
def test_the_zoos_configurations_come_with_the_packages_and_have_its_keypoints():
    for model in list_models():
        if "mm" not in model.weights:
            continue
        name = model.weights["mm"].config
        if model.job == "pose":
            assert count_keypoints(name) == len(vocabulary(model.vocabulary).keypoints), name
        else:
            assert find_configuration(name).is_file()


@with_packages
def test_an_unknown_name_is_answered_with_similar_ones(tiny_pose):
    assert TINY_POSE in message(MmPoseEstimator, "rtmpose-t", tiny_pose)
    assert "retinanet_r50" in message(MmDetector, "retinanett_r50_fpn", tiny_pose)


@with_packages
def test_a_detector_is_no_pose_model_and_a_pose_model_no_detector(tiny_pose):
    assert "a RTMDet, but a top-down pose model" in message(MmPoseEstimator, NANO, tiny_pose)
    assert "but a detector" in message(MmDetector, TINY_POSE, tiny_pose)
    assert "no top-down" in message(count_keypoints, NANO)


@with_packages
def test_a_model_without_weights_is_refused_with_where_they_are_published():
    assert "rtmpose-t_simcc-body7_pt-body7-halpe26_700e" in message(MmPoseEstimator, TINY_POSE)
    assert "knows nothing" in message(MmDetector, NANO)


@with_packages
@pytest.mark.parametrize("device, said", [("tensorrt", "tensorrt is for rtm"), ("cuda", "no CUDA")])
def test_a_device_that_is_not_there_is_refused(tiny_pose, device, said):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert said in message(MmPoseEstimator, TINY_POSE, tiny_pose, device)


@with_packages
@pytest.mark.parametrize(
    "text, said",
    [
        ("model = dict(", "SyntaxError"),
        ("raise ValueError('mine')", "ValueError: mine"),
        ("_base_ = 'mmpose::nowhere.py'", "ValueError"),
        ("model = dict(type='TopdownPoseEstimator')", "test_dataloader"),
        ("model = 3\ntest_dataloader = dict()", "nothing about model"),
        ("model = dict(type='Wrong')\ntest_dataloader = dict(dataset=1)", "of a Wrong"),
    ],
)
def test_a_configuration_that_does_not_do_is_refused(tmp_path, tiny_pose, text, said):
    (tmp_path / "mine.py").write_text(text)
    assert said in message(MmPoseEstimator, str(tmp_path / "mine.py"), tiny_pose)


@with_packages
def test_a_configuration_without_images_to_test_on_is_refused(tmp_path, tiny_pose):
    emptied = "test_dataloader = dict(dataset=dict(_delete_=True))"
    path = looking_once(tmp_path / "mine.py", TINY_POSE)
    path.write_text(f"{path.read_text()}{emptied}\n")
    assert "test pipeline" in message(MmPoseEstimator, str(path), tiny_pose)


@with_packages
def test_a_detector_of_hands_is_refused(tmp_path):
    hands = "rtmdet_nano_320-8xb32_hand"
    checkpoint = random_checkpoint(tmp_path / "a.pth", hands, "mmdet")
    assert "not persons" in message(MmDetector, hands, str(checkpoint))


@with_packages
def test_a_checkpoint_as_training_leaves_it_is_read_without_its_logs(tmp_path):
    from mmengine.logging import MessageHub

    hub = MessageHub.get_instance("test_openmmlab")
    hub.update_scalar("train/loss", 0.5)
    weights = build(TINY_POSE, "mmpose")[0].state_dict()
    content = {"state_dict": weights, "message_hub": hub.state_dict(), "meta": {"epoch": 7}}
    torch.save(content, tmp_path / "a.pth")
    assert MmPoseEstimator(TINY_POSE, str(tmp_path / "a.pth"), "cpu").keypoints == 26


@with_packages
def test_a_trained_detector_finds_what_its_onnx_file_finds(nano):
    images = [*frames(4), frames(1)[0][300:1100, :700]]
    expected = detect(RtmDetector(NANO_ONNX, "cpu", side_px=320), images)
    found = detect(MmDetector(NANO, nano, "cpu"), images)
    for image, ours, theirs in zip(images, found, expected, strict=True):
        assert len(theirs.scores) > 1 and theirs.scores[0] > 0.5
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
        width, height = image.shape[1::-1]  # mmdet cuts boxes off where the image ends
        inside = theirs.boxes.clip(0, [width, height, width, height])
        np.testing.assert_allclose(ours.boxes, inside, atol=0.02)


@pytest.fixture(scope="module")
def of_80_classes(tmp_path_factory) -> str:
    """A detector of COCO's classes that sees all of them everywhere: boxes of two cells and more."""
    path = random_checkpoint(tmp_path_factory.mktemp("coco") / "a.pth", COCO, "mmdet")
    weights = torch.load(path, weights_only=True)["state_dict"]
    for name, value in weights.items():
        if name.startswith("bbox_head.rtm_") and name.endswith("bias"):
            value.fill_(0 if "cls" in name else 2)
            if "cls" in name:
                value[:2] = 0.2  # persons and bicycles most
    torch.save({"state_dict": weights}, path)
    return str(path)


@with_packages
@pytest.mark.parametrize("name, weights", [(NANO, "nano"), (COCO, "of_80_classes")])
def test_a_batch_of_images_gives_the_persons_that_mmdet_finds_in_each(name, weights, request):
    from mmdet.apis import inference_detector
    from mmengine.registry import DefaultScope

    checkpoint = request.getfixturevalue(weights)
    images = [frames(1)[0], frames(2)[1][:, 200:]]
    network, config = build(name, "mmdet")
    network.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    network.cfg = config
    found = detect(MmDetector(name, checkpoint, "cpu"), images)
    for image, ours in zip(images, found, strict=True):
        with DefaultScope.overwrite_default_scope("mmdet"):
            expected = inference_detector(network, image).pred_instances
        kept = (expected.scores >= 0.1) & (expected.labels == 0)
        assert kept.any() and not kept.all()
        np.testing.assert_allclose(ours.boxes, expected.bboxes[kept], atol=0.01)
        np.testing.assert_allclose(ours.scores, expected.scores[kept], atol=1e-5)


@with_packages
def test_an_image_without_persons_has_none(nano):
    (found,) = detect(MmDetector(NANO, nano, "cpu"), [np.full((200, 300, 3), 114, np.uint8)])
    assert found.boxes.shape == (0, 4)


def stand_in_for_torchvision():
    """mmpose.apis imports this one name for a figure; torchvision may have no build to install."""
    whole, part = ModuleType("torchvision"), ModuleType("torchvision.transforms")
    part.ToPILImage = None
    return {"torchvision": whole, "torchvision.transforms": part}


@with_packages
def test_persons_get_what_mmpose_gives_them_mirrored_look_included(tiny_pose, monkeypatch):
    for name, module in stand_in_for_torchvision().items():
        monkeypatch.setitem(sys.modules, name, module)
    from mmpose.apis import inference_topdown

    images = [frames(1)[0], np.ascontiguousarray(frames(1)[0][::-1])]
    regions = [persons([[100, 300, 400, 1000], [500, 200.5, 777, 900]]), persons([1, 2, 300, 400])]
    estimator = MmPoseEstimator(TINY_POSE, tiny_pose, "cpu")
    found = estimate(estimator, images, regions)
    network, config = build(TINY_POSE, "mmpose")
    network.load_state_dict(torch.load(tiny_pose, weights_only=True)["state_dict"])
    network.cfg, network.dataset_meta = config, estimator._about
    for image, region, poses in zip(images, regions, found, strict=True):
        expected = inference_topdown(network, image, region.boxes)
        assert len(expected) == len(poses.keypoints)
        for person, keypoints in zip(expected, poses.keypoints, strict=True):
            np.testing.assert_allclose(keypoints, person.pred_instances.keypoints[0], atol=1e-3)


@with_packages
def test_persons_without_a_box_have_no_keypoints(tiny_pose):
    estimator = MmPoseEstimator(TINY_POSE, tiny_pose, "cpu")
    regions = [persons([[np.nan] * 4, [10, 10, 200, 300]]), NOBODY, persons([[5, 5, 5, 50]])]
    first, second, third = estimate(estimator, [*frames(2), frames(1)[0]], regions)
    assert np.isnan(first.keypoints[0]).all() and not first.confidences[0].any()
    assert np.isfinite(first.keypoints[1]).any() and first.confidences[1].any()
    assert second.keypoints.shape == (0, 26, 2)
    assert np.isnan(third.keypoints).all()
    assert [len(each.keypoints) for each in estimate(estimator, frames(1), [NOBODY])] == [0]


@pytest.fixture(scope="module", params=[TINY_POSE, WHOLE_BODY])
def both_ways(request, tmp_path_factory):
    """The same network with the same weights, by mmpose and by ONNX Runtime."""
    folder = tmp_path_factory.mktemp("both")
    config = looking_once(folder / "once.py", request.param)
    random = random_checkpoint(folder / "random.pth", str(config), "mmpose")
    fresh = MmPoseEstimator(str(config), str(random), "cpu")
    batch = fresh.prepare(frames(3), squarish(fitting=True)).batch
    crops = fresh._network.data_preprocessor(batch, False)["inputs"]
    checkpoint = pointing_checkpoint(folder / "pointing.pth", config, crops)
    exported = export_pose_model(folder / "exported.onnx", config, checkpoint)
    return MmPoseEstimator(str(config), str(checkpoint), "cpu"), RtmPoseEstimator(exported, "cpu")


def squarish(fitting: bool) -> list[Detections]:
    """Boxes of four persons in each of three frames; fitting: pixels are those of the crop."""
    generator = np.random.default_rng(0)
    centres = generator.integers([200, 300], [800, 1500], (3, 4, 2))
    half = np.array([70, 102.4]) if fitting else generator.uniform(30, 150, (3, 4, 2))
    return [persons(each) for each in np.concatenate([centres - half, centres + half], -1)]


@with_packages
def test_a_network_and_its_onnx_export_give_the_same_keypoints(both_ways):
    """Within half a pixel along each axis: these networks' answers are in steps of that."""
    regions = squarish(fitting=True)
    found, expected = (estimate(each, frames(3), regions) for each in both_ways)
    ours, theirs = (np.stack([each.keypoints for each in poses]) for poses in (found, expected))
    assert ours.shape == (3, 4, both_ways[1].keypoints, 2)
    np.testing.assert_allclose(ours, theirs, atol=0.5 + 1e-3)
    assert (np.abs(ours - theirs) < 1e-3).mean() > 0.95
    for mine, others in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine.confidences, others.confidences, atol=1e-4)
        assert 0.005 < mine.confidences.min() and mine.confidences.max() < 0.9
    in_box = ours - np.stack([each.boxes for each in regions])[:, :, None, :2]
    spread = in_box.reshape(12, -1, 2).std(0).mean(0), in_box.std(2).mean((0, 1))
    assert (np.array(spread) > 5).all()  # px: it sees other things in other crops


@with_packages
def test_both_cut_the_same_crops_out_of_any_box(both_ways):
    prepared = [each.prepare(frames(3), squarish(fitting=False)) for each in both_ways]
    batch = both_ways[0]._network.data_preprocessor(prepared[0].batch, False)
    np.testing.assert_allclose(batch["inputs"].numpy(), prepared[1].images, atol=1e-5)


@with_packages
def test_torchvision_is_not_needed(tiny_pose):
    program = (
        "import sys; sys.modules['torchvision'] = None; from models.openmmlab import *; "
        f"MmPoseEstimator({TINY_POSE!r}, {tiny_pose!r}, 'cpu')"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[1])
