"""How long triangulation takes: each method on one core, the volumetric network on a GPU."""

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from benchmarks.accuracy import plan
from benchmarks.chains import direct_linear
from benchmarks.triangulation_methods import GEOMETRIC, PLAIN, Networks, geometric, learned
from benchmarks.triangulation_recordings import Recording, filmed
from benchmarks.triangulation_suite import FIRST
from models.context import joint_distances
from models.multiview import JOINTS, body_frames, rightwards
from models.simulation.detector import Errors
from models.simulation.population import Examples, Population, draw
from models.training.cost import H200, Cost, cost_of
from models.training.run import training_skeleton
from models.volumetric import Architecture, Volumetric

VIEWS = (2, 4)
FRAMES = slice(None, None, 15)
REPEATS = 2
GPU_FRAMES, GPU_REPEATS = 32, 10


def _recording(views: int) -> Recording:
    return filmed(plan("squats", views, Errors().scaled(0.5), FIRST))


def cpu_table(networks: Networks) -> pd.DataFrame:
    """CPU milliseconds a frame on one core, and how many times that of geometric.

    Networks start from geometric points, whose time is not in theirs.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tables = [_cpu_times(_recording(views), networks) for views in VIEWS]
    torch.set_num_threads(threads)
    return pd.concat(tables, ignore_index=True)


def _cpu_times(recording: Recording, networks: Networks) -> pd.DataFrame:
    image, pose = recording.image, recording.camera_from_world
    seeds, whole = geometric(recording), image.shape[1]
    few = len(range(*FRAMES.indices(whole)))
    seconds = {
        PLAIN: _cpu_seconds(lambda: direct_linear(image, pose)) / whole,
        GEOMETRIC: _cpu_seconds(lambda: geometric(recording)) / whole,
    }
    for method, network in networks.items():
        seconds[method] = _cpu_seconds(partial(learned, recording, FRAMES, network, seeds)) / few
    time_s = pd.Series(seconds)
    return pd.DataFrame(
        {
            "cameras": len(image),
            "method": time_s.index,
            "CPU time (ms a frame)": 1000 * time_s.values,
            "of geometric's": time_s.values / seconds[GEOMETRIC],
        }
    )


def _cpu_seconds(job: Callable) -> float:
    """The shortest of a few runs."""
    spent = []
    for _ in range(REPEATS):
        began = time.process_time()
        job()
        spent.append(time.process_time() - began)
    return min(spent)


@dataclass(frozen=True)
class OnGpu:
    """What was measured on a GPU."""

    device: str
    speed: pd.DataFrame
    """Of the full network; its weights are random, which does not matter for the time."""
    agreement: pd.DataFrame
    """Of the shipped network's joints with those on the CPU."""


def on_gpu(shipped: Volumetric) -> OnGpu | None:
    """Time the full network, and compare the shipped one; None where there is no GPU."""
    if not torch.cuda.is_available():
        return None
    skeleton, generator = training_skeleton(), torch.Generator().manual_seed(0)
    full = Volumetric(Architecture()).eval()
    speed, agreement = [], []
    for views in VIEWS:
        examples = draw(Population(performances=1), skeleton, 1, GPU_FRAMES, views, generator)
        cost = cost_of(full, examples, generator)
        expected = _estimated(shipped, examples)
        for numbers, mixed in (("bf16", True), ("float32", False)):
            row = {"cameras": views, "numbers": numbers}
            speed.append(row | _speed(full, examples, mixed, cost))
            found = _estimated(_moved(shipped, mixed), examples.to("cuda")).cpu()
            apart_mm = 1000 * (found - expected).norm(dim=-1)
            agreement.append(
                row
                | {"median (mm)": float(apart_mm.median()), "largest (mm)": float(apart_mm.max())}
            )
    return OnGpu(torch.cuda.get_device_name(), pd.DataFrame(speed), pd.DataFrame(agreement))


def _moved(network: Volumetric, mixed: bool) -> Volumetric:
    """A copy on the GPU."""
    network = deepcopy(network).cuda()
    network.mixed_precision = mixed
    return network


def _estimated(network: Volumetric, examples: Examples) -> Tensor:
    """Joints of examples, in their bodies' frames, m."""
    measured = joint_distances(examples.position).mean(1)
    frames = body_frames(
        examples.position[:, :, JOINTS.index("midHip")], rightwards(examples.position)
    )
    with torch.inference_mode():
        return network.estimate(examples.views, frames, measured).position


def _speed(network: Volumetric, examples: Examples, mixed: bool, cost: Cost) -> dict[str, float]:
    """Frames a second and memory, and how near they come to what the cost allows."""
    network, examples = _moved(network, mixed), examples.to("cuda")
    _estimated(network, examples)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    for _ in range(GPU_REPEATS):
        _estimated(network, examples)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - began) / GPU_REPEATS / GPU_FRAMES
    return {
        "frames a second": 1 / seconds,
        "memory (GB)": torch.cuda.max_memory_allocated() / 1e9,
        "GFLOP a frame": cost.flops / 1e9,
        "floor (frames a second)": 1 / cost.floor_s(H200),
        "of the floor (%)": 100 * cost.floor_s(H200) / seconds,
    }
