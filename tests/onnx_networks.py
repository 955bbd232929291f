"""Small real networks in ONNX files whose answers are known: they find what is painted."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

FLOAT, HALF, WHOLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
FOUND = 0.9
"""Score of what the painted detector finds."""


def found(model, *arguments, **options):
    """Run a model's three steps."""
    prepared = model.prepare(*arguments, **options)
    return model.read(prepared, model.infer(prepared))


def write(path: Path, nodes, constants, outputs, size, batch="batch", dtype=FLOAT) -> Path:
    """Write a network that takes `input`, images of a size (width, height); outputs are typed."""
    taken = helper.make_tensor_value_info("input", dtype, [batch, 3, size[1], size[0]])
    given = [helper.make_tensor_value_info(name, each, None) for name, each in outputs.items()]
    known = [onnx.numpy_helper.from_array(np.array(v), name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "network", [taken], given, known)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def dot_finder(path: Path, size=(192, 256), sure=1.0, batch="batch", dtype=FLOAT) -> Path:
    """A pose model of three keypoints: the reddest, the greenest and the bluest place.

    SimCC as RTMPose's, two bins a pixel; `sure` = 10 makes it look like RTMW.
    """
    node = helper.make_node
    nodes = [node("Cast", ["input"], ["image"], to=FLOAT)]
    for name, axis, scales in (("simcc_x", "2", "wide"), ("simcc_y", "3", "high")):
        nodes += [
            node("ReduceMax", ["image", axis], [f"{name}_line"]),
            node(
                "Resize", [f"{name}_line", "", scales], [f"{name}_fine"], mode="cubic",
                coordinate_transformation_mode="asymmetric",
            ),
            node("Squeeze", [f"{name}_fine", axis], [f"{name}_bins"]),
            node("Mul", [f"{name}_bins", "sure"], [f"{name}_wide"]),
            node("Cast", [f"{name}_wide"], [name], to=dtype),
        ]  # fmt: skip
    if sure != 1:
        nodes.append(node("DepthToSpace", ["pixels"], ["shuffled"], blocksize=2))
    constants = {
        "2": [2], "3": [3], "sure": np.float32(sure), "pixels": np.zeros((1, 4, 1, 1), np.float32),
        "wide": np.float32([1, 1, 1, 2]), "high": np.float32([1, 1, 2, 1]),
    }  # fmt: skip
    outputs = {"simcc_x": dtype, "simcc_y": dtype}
    return write(path, nodes, constants, outputs, size, batch, dtype)


def random_pose_network(path: Path, keypoints: int, size: tuple[int, int], seed=0) -> Path:
    """A network with the shapes of a published pose model, and random weights."""
    node, generator, (width, height) = helper.make_node, np.random.default_rng(seed), size
    features = 3 * (width // 32) * (height // 32)
    constants = {
        "flat": [-1, features],
        "by_keypoint": [-1, keypoints, 8],
        "mixed": generator.normal(size=(features, 8 * keypoints)).astype(np.float32),
        "across": generator.normal(size=(8, 2 * width)).astype(np.float32),
        "down": generator.normal(size=(8, 2 * height)).astype(np.float32),
    }
    nodes = [
        node("AveragePool", ["input"], ["coarse"], kernel_shape=[32, 32], strides=[32, 32]),
        node("Reshape", ["coarse", "flat"], ["features"]),
        node("MatMul", ["features", "mixed"], ["mixture"]),
        node("Reshape", ["mixture", "by_keypoint"], ["each"]),
        node("MatMul", ["each", "across"], ["simcc_x"]),
        node("MatMul", ["each", "down"], ["simcc_y"]),
    ]
    return write(path, nodes, constants, {"simcc_x": FLOAT, "simcc_y": FLOAT}, size)


def bright_finder(path: Path, size=(320, 320), batch="batch", first="Conv", bright=1.0) -> Path:
    """A detector whose person is what is bright on the average: a box with the score 0.9.

    Like RTMDet if its `first` operator is Conv, like YOLOX if that is Slice. And a better box of
    something else (label 5), and a person of score 0.05, both everywhere.
    """
    node = helper.make_node
    takes = {"Slice": ["input", "0", "all", "1"]}.get(first, ["input", "mean"])
    nodes = [node(first, takes, ["image"]), node("ReduceMean", ["image", "1"], ["grey"])]
    for name, axes in (("x", "not_x"), ("y", "not_y")):
        nodes += [
            node("ReduceMax", ["grey", axes], [f"{name}_line"], keepdims=0),
            node("Greater", [f"{name}_line", "bright"], [f"{name}_is"]),
            node("Cast", [f"{name}_is"], [f"{name}_mask"], to=FLOAT),
            node("ArgMax", [f"{name}_mask"], [f"{name}_low"], axis=1),
            node("ArgMax", [f"{name}_mask"], [f"{name}_high"], axis=1, select_last_index=1),
        ]
    nodes += [
        node("Concat", ["x_low", "y_low", "x_high", "y_high"], ["whole"], axis=1),
        node("Cast", ["whole"], ["corners"], to=FLOAT),
        node("Pad", ["corners", "room", "score"], ["row"]),
        node("Unsqueeze", ["row", "1"], ["person"]),
        node("Mul", ["person", "none"], ["nothing"]),
        node("Add", ["nothing", "distractors"], ["others"]),
        node("Concat", ["others", "person"], ["dets"], axis=1),
        node("ReduceMax", ["dets", "2"], ["most"], keepdims=0),
        node("Mul", ["most", "none"], ["zero"]),
        node("Add", ["zero", "kinds"], ["labelled"]),
        node("Cast", ["labelled"], ["labels"], to=WHOLE),
    ]
    constants = {
        "mean": np.full((1, 3, 1, 1), 1 / 3, np.float32), "0": [0], "all": [3], "bright": np.float32(bright), "1": [1],
        "2": [2], "not_x": [1, 2], "not_y": [1, 3], "room": [0, 0, 0, 1], "none": np.float32(0),
        "score": np.float32(FOUND), "kinds": np.float32([5, 0, 0]),
        "distractors": np.float32([[[9, 9, 99, 99, 0.95], [9, 9, 99, 99, 0.05]]]),
    }  # fmt: skip
    return write(path, nodes, constants, {"dets": FLOAT, "labels": WHOLE}, size, batch)


def yolox_that_says(path: Path, cells: np.ndarray, size: tuple[int, int]) -> Path:
    """A detector like YOLOX without suppression: grids (cell, value) whatever the image."""
    node = helper.make_node
    nodes = [
        node("Slice", ["input", "starts", "ends", "axes", "steps"], ["focus"]),
        node("ReduceSum", ["focus", "others"], ["sum"], keepdims=0),
        node("Mul", ["sum", "none"], ["zero"]),
        node("Unsqueeze", ["zero", "after"], ["by_image"]),
        node("Add", ["by_image", "cells"], ["output"]),
    ]
    constants = {
        "starts": [0, 0], "ends": [9999, 9999], "axes": [2, 3], "steps": [2, 2], "others": [1, 2, 3],
        "none": np.float32(0), "after": [1, 2], "cells": np.float32(cells)[None],
    }  # fmt: skip
    return write(path, nodes, constants, {"output": FLOAT}, size)
