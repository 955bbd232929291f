"""Speed of finding keypoints: where the time goes, what batches and overlap bring, and rtmlib.

    python -m benchmarks.keypoints [--detector FILE.onnx] [--mm PYTHON] [--rtmlib PYTHON]
                                   [--device cuda] [--repeats N] [--write]

Every backend finds the keypoints of the demo's four videos. Networks for ONNX Runtime have random
weights, as speed does not depend on them: `--mm` is the Python of an environment that has this package
and OpenMMLab's (docs/keypoints.md), which exports them and is measured too. `--detector` is an RTMDet
or YOLOX. `--rtmlib` is the Python of an environment with rtmlib, which is called frame by frame on the
same files. With `--write`, docs/keypoints_speed.md is written of it. Measurements take turns, so that
what else the computer does meets all of them; best it does nothing else.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from dask.system import CPU_COUNT
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.demo import build_demo
from pipeline.files import replacing
from pipeline.session import open_session

HERE = Path(__file__).parent
SHARED_DETECTOR = HERE.parents[1] / "shared" / "data" / "models" / "rtmdet_nano_person_320.onnx"
# Configurations that come with mmpose.
POSE_MODELS = {
    "RTMPose-t": "rtmpose-t_8xb256-420e_coco-256x192",
    "RTMPose-m": "rtmpose-m_8xb256-420e_coco-256x192",
}
MM_DETECTOR = "rtmdet_nano_320-8xb32_coco-person"
POSE_PX, DETECTOR_PX = (192, 256), (640, 640)
STEPS = ("-m", "benchmarks.keypoints_steps")
THREADS = 2
"""Of the CPU for a network of ours, and so of rtmlib's."""
DETECT_EVERY = (1, 4)
"""As rtmlib's tracker does by default, and as the pipeline does."""
BATCH_SIZES = (1, 16)
PER_STEP = ("decode", "prepare", "infer", "read")
STAGE_GOAL = 1.15
"""Of the keypoint stage's time, per time of its model alone."""
RTMLIB_GOAL = 1.5
"""Frames per second, per those of rtmlib."""


@dataclass(frozen=True)
class Case:
    """A backend's models, and the Python that runs them."""

    name: str
    python: str
    models: dict[str, str]


def told(python: str, program: Sequence[str], task: dict) -> dict:
    """What a measurement in a process of its own prints. Raises RuntimeError if it fails."""
    threads = {
        "OMP_NUM_THREADS": str(task.get("threads", THREADS))
    }  # torch's, in all of its threads
    ran = subprocess.run(
        [python, *program, json.dumps(task)],
        capture_output=True, text=True, cwd=HERE.parent, env=os.environ | threads,
    )  # fmt: skip
    if ran.returncode:
        raise RuntimeError(f"{python} {' '.join(program)}: {ran.stderr.strip()}")
    return json.loads(ran.stdout.strip().splitlines()[-1])


def exported(python: str, folder: Path) -> None:
    """Have OpenMMLab's packages write the networks, with random weights."""
    names = MM_DETECTOR, *POSE_MODELS.values()
    program = [python, str(HERE / "keypoints_export.py"), str(folder), *names]
    ran = subprocess.run(program, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(program)}: {ran.stderr.strip()}")


def cases(detector: Path | None, folder: Path, arguments: argparse.Namespace) -> list[Case]:
    """What is measured: BlazePose on the CPU, and what has its files in the folder."""
    found = []
    if arguments.device == "cpu":
        found.append(Case("BlazePose, LiteRT", sys.executable, {"backend": "blazepose"}))
    for name, configuration in POSE_MODELS.items():
        network = folder / f"{configuration}.onnx"
        if detector and network.is_file():
            models = {"backend": "rtm", "detector": str(detector), "pose_model": str(network)}
            found.append(Case(f"{name}, ONNX Runtime", sys.executable, models))
        if arguments.mm:
            models = {"backend": "mm", "detector": MM_DETECTOR, "pose_model": configuration}
            models |= {"detector_weights": str(folder / f"{MM_DETECTOR}.pth")}
            models |= {"pose_weights": str(network.with_suffix(".pth"))}
            found.append(Case(f"{name}, OpenMMLab", arguments.mm, models))
    return found


def step_times(
    chosen: Sequence[Case], arguments: argparse.Namespace, threads: int
) -> dict[str, list[dict]]:
    """By case: what `keypoints_steps` measured, a few times, in turns."""
    found: dict[str, list[dict]] = {each.name: [] for each in chosen}
    for _ in range(arguments.repeats):
        for each in chosen:
            task = {"task": "steps", "device": arguments.device, "threads": threads}
            task |= {"detector": "", "pose_model": "", "batch_sizes": BATCH_SIZES, **each.models}
            found[each.name].append(told(each.python, STEPS, task))
    return found


def step_row(name: str, runs: Sequence[dict]) -> dict:
    """CPU time of each step a frame, ms, in batches; the steps in turn."""

    def per_frame(steps_of):
        return median(1e3 * steps_of(run) / run["frames"] for run in runs)

    largest = str(max(BATCH_SIZES))
    row = {"backend": name}
    for step in ("detector: prepare", "detector: infer", "detector: read"):
        row[step] = median(1e3 * run["detection"]["cpu_s"][step] / run["looks"] for run in runs)
    for step in PER_STEP:
        row[step] = per_frame(
            lambda run, step=step: run["batches"][largest]["in turn"]["cpu_s"][step]
        )
    return row


def overlap_rows(name: str, runs: Sequence[dict]) -> list[dict]:
    """Times per time of the model alone in batches, in turn and as a stage, by batch size."""
    rows = []
    for size in BATCH_SIZES:
        each = [run["batches"][str(size)] for run in runs]
        best = [run["batches"][str(max(BATCH_SIZES))] for run in runs]
        alone = [of["in turn"]["wall_s"]["infer"] for of in each]
        turn = [sum(of["in turn"]["wall_s"].values()) for of in each]
        stage = [of["stage"]["wall_s"]["stage"] for of in each]
        batched = [of["in turn"]["wall_s"]["infer"] for of in best]
        rate = [run["frames"] / seconds for run, seconds in zip(runs, stage, strict=True)]
        rows.append(
            {
                "backend": name,
                "batch": size,
                "model": ratio(alone, batched),
                "in turn": ratio(turn, alone),
                "stage": ratio(stage, alone),
                "frames per second": median(rate),
            }  # fmt: skip
        )
    return rows


def ratio(times: Sequence[float], of: Sequence[float]) -> float:
    """Median of ratios of measurements that were made in one turn."""
    return median(a / b for a, b in zip(times, of, strict=True))


def against_rtmlib(
    python: str, detector: Path, pose: Path, arguments: argparse.Namespace, videos: Sequence[Path]
) -> list[dict]:
    """Ours and rtmlib's times of the same work, in turns; a row for each way to detect.

    Both look at one person a frame: which boxes are persons is not the same in the two.
    """
    ours = {"backend": "rtm", "detector": str(detector), "pose_model": str(pose)}
    ours |= {"device": arguments.device, "max_persons": 1}
    theirs = {
        "detector": str(detector),
        "pose": str(pose),
        "videos": [str(each) for each in videos],
    }
    theirs |= {"device": arguments.device, "threads": THREADS}
    theirs |= {"detector_px": DETECTOR_PX, "pose_px": POSE_PX}
    runs: dict[str | int, list[dict]] = {every: [] for every in (*DETECT_EVERY, "rtmlib")}
    for _ in range(arguments.repeats):
        for every in DETECT_EVERY:
            task = {"task": "stages", "settings": ours | {"detect_every": every}}
            runs[every].append(told(sys.executable, STEPS, task))
        runs["rtmlib"].append(told(python, [str(HERE / "keypoints_peer.py")], theirs))
    return [compared(every, runs[every], runs["rtmlib"]) for every in DETECT_EVERY]


def compared(every: int, ours: Sequence[dict], theirs: Sequence[dict]) -> dict:
    """How many times as fast we are, by wall and by CPU time, and at how much was looked."""
    row = {
        "detect_every": every, "version": theirs[0]["version"],
        "crops": ours[0]["crops"] / ours[0]["frames"],
        "rtmlib's crops": theirs[0]["crops"] / theirs[0]["frames"],
        "frames per second": median(run["frames"] / sum(run["wall_s"].values()) for run in ours),
    }  # fmt: skip
    for kind in ("wall_s", "cpu_s"):
        row[kind] = ratio([run[kind] for run in theirs], [sum(run[kind].values()) for run in ours])
    return row


def verdicts(by_threads: dict[int, list[dict]], peers: dict[str, list[dict]]) -> list[str]:
    """What became of the goals, a line each."""
    lines = []
    for threads, rows in by_threads.items():
        for row in (row for row in rows if row["batch"] == max(BATCH_SIZES)):
            lines.append(
                f"{row['backend']}, the model on {threads} of {CPU_COUNT} cores: the stage takes "
                f"{row['stage']:.2f} of the model's own time, goal {STAGE_GOAL} at most: "
                f"{said(row['stage'] <= STAGE_GOAL)}"
            )
    for name, rows in peers.items():
        for row in rows:
            lines.append(
                f"{name}, detection in every {ordinal(row['detect_every'])}frame: "
                f"{row['wall_s']:.2f} times the frames per second of rtmlib, goal {RTMLIB_GOAL} at "
                f"least: {said(row['wall_s'] >= RTMLIB_GOAL)}"
            )
    return lines


def said(reached: bool) -> str:
    """A verdict in a word."""
    return "reached" if reached else "missed"


def ordinal(every: int) -> str:
    """As in every 4th frame."""
    return "" if every == 1 else f"{every}th "


def main() -> None:
    """Print the measurements; with `--write`, write docs/keypoints_speed.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--detector", type=Path, default=SHARED_DETECTOR)
    parser.add_argument("--mm", metavar="PYTHON", help="a Python with OpenMMLab's packages")
    parser.add_argument("--rtmlib", metavar="PYTHON", help="a Python with rtmlib")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=3, help="of every measurement")
    parser.add_argument("--write", action="store_true", help="write docs/keypoints_speed.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measured(arguments, Path(scratch))
    for line in found["verdicts"]:
        print(line)
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined)
    page = environment.get_template("keypoints.md.j2").render(**found)
    print(page)
    if arguments.write:
        with replacing(HERE.parent / "docs" / "keypoints_speed.md") as path:
            path.write_text(page, encoding="utf-8")


def measured(arguments: argparse.Namespace, scratch: Path) -> dict:
    """All that the document says."""
    if arguments.mm:
        exported(arguments.mm, scratch)
    detector = arguments.detector if arguments.detector.is_file() else None
    if not (arguments.mm and detector):
        print(f"skipped ONNX Runtime: it takes --mm, and a detector at {arguments.detector}")
    chosen = cases(detector, scratch, arguments)
    steps, by_threads = [], {}
    for threads in sorted({max(1, CPU_COUNT - 1), CPU_COUNT}):
        runs = step_times(chosen, arguments, threads)
        by_threads[threads] = [row for each in runs for row in overlap_rows(each, runs[each])]
        steps = [step_row(each, runs[each]) for each in runs]
    peers = {}
    if arguments.rtmlib and arguments.mm and detector:
        (trial,) = open_session(build_demo(scratch / "demo")).trials()
        videos = list(trial.videos.values())
        for name, configuration in POSE_MODELS.items():
            pose = scratch / f"{configuration}.onnx"
            peers[name] = against_rtmlib(arguments.rtmlib, detector, pose, arguments, videos)
    return {
        "steps": steps, "by_threads": by_threads, "peers": peers, "cores": CPU_COUNT,
        "device": arguments.device, "repeats": arguments.repeats, "batch": max(BATCH_SIZES),
        "verdicts": verdicts(by_threads, peers), "detector": arguments.detector.stem,
    }  # fmt: skip


if __name__ == "__main__":
    main()
