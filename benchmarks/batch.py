"""Throughput of a batch with one and two workers, what Dask costs, and what each stage costs.

    python -m benchmarks.batch [--write]

Simulated trials with keypoints are run by one worker and by two, each from nothing, and once more when
all is up to date. The demo's videos are run by one worker: the cost of every stage, those that read
images among them. With `--write`, docs/scaling.md is written of it: what 1 000 sessions cost, with one
GPU and with eight. Run it on a computer that does nothing else.
"""

import argparse
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from dask.system import CPU_COUNT
from distributed import Client
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.batch import JobResult, run_jobs
from pipeline.batch_plan import Job, make_plan
from pipeline.cluster import connected
from pipeline.demo import build_demo
from pipeline.files import load_dataset, replacing
from pipeline.simulate import plan_from, simulate
from pipeline.simulated_session import write_session
from stages import ORDER
from stages.frames import read_frames
from stages.trial import Trial, no_progress

HERE = Path(__file__).parent
SESSIONS, PERSONS = 12, 3
STUDY = {"sessions": 1000, "trials": 5, "cameras": 5, "seconds": 8, "rate_hz": 60}
"""What docs/scaling.md reckons with."""
PER_IMAGE = ("frames", "detect", "keypoints", "report")
"""Their cost is taken to grow with the number of images, that of the others with the trial's length."""
NETWORKS = ("detect", "keypoints")
GPU_FACTOR = 10.0
"""An assumption: how much faster a GPU runs the networks than one CPU core."""


@dataclass(frozen=True)
class Throughput:
    """One batch of simulated trials."""

    workers: int
    trials: int
    wall_s: float
    in_stages_s: float
    """Sum over all stages of all trials."""
    up_to_date_s: float
    """Wall time of the same batch when there is nothing to do."""

    @property
    def trials_per_minute(self) -> float:
        """All trials over the wall time."""
        return 60 * self.trials / self.wall_s

    @property
    def overhead(self) -> float:
        """Share of the workers' time that is not spent in stages."""
        return 1 - self.in_stages_s / (self.workers * self.wall_s)

    @property
    def handling(self) -> float:
        """Share of the run that handing out, checking and locking its stages would take alone."""
        return self.up_to_date_s / self.wall_s

    @property
    def up_to_date_ms(self) -> float:
        """A worker's time for a stage that is up to date."""
        return 1000 * self.up_to_date_s * self.workers / (self.trials * len(ORDER))


def simulated_dataset(folder: Path) -> Path:
    """Copies of a few persons' sessions: static1 and squats1 of two cameras, keypoints only."""
    for seed in range(PERSONS):
        values = {"motion": "squats", "cameras": 2, "seed": seed}
        first = folder / f"subject{seed}"
        write_session(simulate(plan_from(values, 0.5, [])), first, "pipeline", False, no_progress)
        shutil.rmtree(first / "truth")
        for copy in range(seed + PERSONS, SESSIONS, PERSONS):
            shutil.copytree(first, folder / f"subject{copy}")
    return folder


def measure(dataset: Path, workers: int) -> Throughput:
    """Run all trials from nothing, by workers that have started and imported everything."""
    for results in dataset.glob("*/results"):
        shutil.rmtree(results)
    jobs = make_plan(dataset, None, []).jobs
    with connected(None, workers, 0) as client:
        client.run(import_everything)
        wall_s, results = timed(client, jobs)
        up_to_date_s, _ = timed(client, jobs)
    in_stages_s = sum(unit.seconds for result in results for unit in result.units)
    return Throughput(workers, len(results), wall_s, in_stages_s, up_to_date_s)


def import_everything() -> None:
    """What a worker does once, at its first stage."""
    import pipeline.batch  # noqa: F401


def timed(client: Client, jobs: list[Job]) -> tuple[float, list[JobResult]]:
    """Run a batch in which no trial may fail; return the wall time and the results."""
    began = time.perf_counter()
    results = run_jobs(client, jobs, lambda _: None)
    seconds = time.perf_counter() - began
    failures = [result.failure.message for result in results if result.failure]
    if failures:
        raise RuntimeError(f"trials of the benchmark failed: {failures}")
    return seconds, results


def demo_costs(folder: Path) -> tuple[pd.DataFrame, Trial]:
    """Seconds and MB by stage, of the demo run by one worker; and its trial."""
    (job,) = make_plan(build_demo(folder), None, []).jobs
    with connected(None, 1, 0) as client:
        client.run(import_everything)
        _, (result,) = timed(client, [job])
    seconds = {unit.stage: unit.seconds for unit in result.units}
    return pd.DataFrame({"seconds": seconds, "mb": megabytes(job.trial)}), job.trial


def megabytes(trial: Trial) -> dict[str, float]:
    """Size of each stage's files, 10^6 bytes."""
    return {
        stage: sum(path.stat().st_size for path in trial.folder(stage).rglob("*")) / 1e6
        for stage in ORDER
    }


def decoding_s(trial: Trial) -> float:
    """CPU time for decoding all of a trial's videos once."""
    began = time.process_time()
    for video in trial.videos.values():
        for _ in read_frames(video):
            pass
    return time.process_time() - began


def samples_of(trial: Trial) -> int:
    """Length of the trial's common timeline."""
    return load_dataset(trial.folder("triangulate") / "points.nc").sizes["time"]


def study_costs(costs: pd.DataFrame, trial: Trial) -> pd.DataFrame:
    """The demo's costs, as one trial of the study would have them."""
    timeline = load_dataset(trial.folder("frames") / "timeline.nc")
    images = STUDY["cameras"] * STUDY["seconds"] * STUDY["rate_hz"]
    samples = STUDY["seconds"] * STUDY["rate_hz"]
    per_image = images / int(timeline.frame_time.notnull().sum())
    per_sample = samples / samples_of(trial)
    # Keypoints and views of every camera are kept with each sample.
    per_view = per_sample * STUDY["cameras"] / timeline.sizes["camera"]
    seconds = [per_image if stage in PER_IMAGE else per_sample for stage in costs.index]
    sizes = [per_image if stage in PER_IMAGE else per_view for stage in costs.index]
    return costs.assign(seconds=costs.seconds * seconds, mb=costs.mb * sizes)


@dataclass(frozen=True)
class Bottleneck:
    """The study on some GPUs."""

    gpus: int
    workers_per_gpu: int
    gpu_hours: float
    """Wall time if only the stages on GPUs counted."""
    cpu_workers: float
    """So many keep pace with the GPUs."""


def bottlenecks(cpu_hours: float, worker_hours: float, network_hours: float) -> list[Bottleneck]:
    """With one GPU and with eight, by one worker each, and by as many as a GPU can feed.

    Hours of all trials: of CPU workers, of one GPU worker, and of what that one does on the GPU.
    """
    found = []
    for gpus in (1, 8):
        for workers in (1, round(worker_hours / network_hours)):
            hours = max(worker_hours / workers, network_hours) / gpus
            found.append(Bottleneck(gpus, workers, hours, cpu_hours / hours))
    return found


def scaling_page(batches: list[Throughput], costs: pd.DataFrame, trial: Trial) -> str:
    """The text of docs/scaling.md."""
    per_trial = study_costs(costs, trial)
    trials = STUDY["sessions"] * STUDY["trials"]
    timeline = load_dataset(trial.folder("frames") / "timeline.nc")
    images = STUDY["cameras"] * STUDY["seconds"] * STUDY["rate_hz"]
    decode_s = decoding_s(trial) * images / int(timeline.frame_time.notnull().sum())
    networks_s = per_trial.seconds[list(NETWORKS)].sum() - len(NETWORKS) * decode_s
    gpu_s = len(NETWORKS) * decode_s + networks_s / GPU_FACTOR
    rest_s = per_trial.seconds.drop(list(NETWORKS)).sum()
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined)
    return environment.get_template("scaling.md.j2").render(
        cores=CPU_COUNT, batches=batches,
        ratio=batches[1].trials_per_minute / batches[0].trials_per_minute,
        costs=costs, per_trial=per_trial, study=STUDY, trials=trials, per_image=PER_IMAGE,
        cameras=timeline.sizes["camera"], samples=samples_of(trial), factor=GPU_FACTOR,
        width=int(timeline.width[0]), height=int(timeline.height[0]),
        cpu_only_h=per_trial.seconds.sum() * trials / 3600,
        gigabytes=per_trial.mb.sum() * trials / 1e3,
        decode_s=decode_s, networks_s=networks_s, gpu_s=gpu_s, rest_s=rest_s,
        decode_share=len(NETWORKS) * decode_s / gpu_s,
        bottlenecks=bottlenecks(*(s * trials / 3600 for s in (rest_s, gpu_s, networks_s / GPU_FACTOR))),
        scheduler_h=batches[0].up_to_date_ms * trials * len(ORDER) / 3.6e6,
    )  # fmt: skip


def main() -> None:
    """Print the measurements; with `--write`, write docs/scaling.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write docs/scaling.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        dataset = simulated_dataset(Path(scratch) / "dataset")
        batches = [measure(dataset, workers) for workers in (1, 2)]
        for each in batches:
            print(
                f"{each.workers} workers: {each.trials} trials in {each.wall_s:.1f} s, "
                f"{each.trials_per_minute:.1f} a minute; outside of stages {each.overhead:.1%}; "
                f"a stage that is up to date {each.up_to_date_ms:.1f} ms"
            )
        print(f"ratio {batches[1].trials_per_minute / batches[0].trials_per_minute:.2f}")
        costs, trial = demo_costs(Path(scratch) / "demo")
        print(costs.round(2).to_string())
        page = scaling_page(batches, costs, trial)
    if arguments.write:
        with replacing(HERE.parent / "docs" / "scaling.md") as path:
            path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
