"""What users hear about files and devices that cannot be used."""

import numpy as np
import onnx_networks as networks
import onnxruntime
import pytest
from onnx import helper

from models.onnx_runtime import OnnxNetwork
from models.rtm import RtmDetector, RtmPoseEstimator
from pipeline.errors import PipelineError


@pytest.fixture
def pose_file(tmp_path):
    return networks.dot_finder(tmp_path / "dots.onnx")


@pytest.fixture
def detector_file(tmp_path):
    return networks.bright_finder(tmp_path / "bright.onnx")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PipelineError, match="there is no file .*none.onnx"):
        RtmDetector(tmp_path / "none.onnx")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_file_cut_short_is_named(pose_file, kept):
    content = pose_file.read_bytes()
    pose_file.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(
        PipelineError, match="dots.onnx cannot be loaded.*no ONNX network, or cut short"
    ):
        RtmPoseEstimator(pose_file)


def test_a_file_of_something_else_is_named(tmp_path):
    (tmp_path / "words.onnx").write_text("no network " * 50)
    with pytest.raises(PipelineError, match="words.onnx cannot be loaded"):
        RtmPoseEstimator(tmp_path / "words.onnx")


def test_a_pose_model_is_no_detector(pose_file):
    with pytest.raises(PipelineError, match="dots.onnx is a pose model, but a person detector"):
        RtmDetector(pose_file)


def test_a_detector_is_no_pose_model(detector_file):
    with pytest.raises(PipelineError, match="bright.onnx is a detector, but a pose model"):
        RtmPoseEstimator(detector_file)


def test_a_detector_that_is_neither_rtmdet_nor_yolox_is_not_guessed(tmp_path):
    path = networks.bright_finder(tmp_path / "other.onnx", first="Sub")
    with pytest.raises(PipelineError, match="other.onnx is neither"):
        RtmDetector(path)


def test_a_network_of_something_else_is_told_apart(tmp_path):
    nodes = [helper.make_node("GlobalAveragePool", ["input"], ["classes"])]
    path = networks.write(
        tmp_path / "classes.onnx", nodes, {}, {"classes": networks.FLOAT}, (64, 64)
    )
    with pytest.raises(PipelineError, match="neither, but a person detector is needed.*3 x 1 x 1"):
        RtmDetector(path)
    with pytest.raises(PipelineError, match="something else, but a pose model"):
        RtmPoseEstimator(path)


def test_a_network_whose_outputs_are_not_by_image_is_told_apart(tmp_path):
    nodes = [helper.make_node("ReduceMax", ["input"], ["most"], keepdims=0)]
    path = networks.write(tmp_path / "most.onnx", nodes, {}, {"most": networks.FLOAT}, (64, 64))
    with pytest.raises(PipelineError, match="outputs that are not by image"):
        RtmDetector(path)


def test_a_pose_model_of_open_size_is_not_guessed(tmp_path):
    path = networks.dot_finder(tmp_path / "open.onnx", size=("width", "height"))
    with pytest.raises(PipelineError, match="open.onnx leaves its images' size open"):
        RtmPoseEstimator(path)


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(pose_file, device):
    if any(device in each.lower() for each in onnxruntime.get_available_providers()):
        pytest.skip(f"this ONNX Runtime has {device}")
    with pytest.raises(PipelineError, match=f"'{device}' was asked for.*only cpu.*onnxruntime-gpu"):
        RtmPoseEstimator(pose_file, device=device)


def test_auto_takes_the_cpu_where_nothing_else_is(pose_file):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has cuda")
    assert OnnxNetwork(pose_file, "auto", 1).device == "cpu"


def test_too_little_memory_is_told_with_what_to_lower(tmp_path):
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0),
        helper.make_node("Cast", ["mean"], ["whole"], to=networks.WHOLE),
        helper.make_node("Add", ["whole", "huge"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["output"]),
    ]
    constants = {"huge": [10**7, 10**7]}
    path = networks.write(
        tmp_path / "huge.onnx", nodes, constants, {"output": networks.FLOAT}, (64, 64)
    )
    network = OnnxNetwork(path, "cpu", 1)
    with pytest.raises(PipelineError, match="memory is too small to run .*huge.onnx.*batch_size"):
        network.run(np.zeros((1, 3, 64, 64), np.float32))
