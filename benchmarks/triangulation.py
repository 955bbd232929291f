"""Which method of triangulation when: simulated recordings with known points, and the demo's footage.

    python -m benchmarks.triangulation [--pose2sim PYTHON] [--gpu] [--write]     everything
    python -m benchmarks.triangulation --smoke                                   two short recordings, no document

`--pose2sim` is the Python of an environment that has Pose2Sim: it triangulates the same keypoints.
`--gpu` also times the volumetric network on a GPU. `--write` puts the tables into
docs/triangulation.md, and the figure beside it. Everything but times is seeded.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from benchmarks.accuracy import noise_of, table, version_of
from benchmarks.triangulation_demo import demo_table
from benchmarks.triangulation_methods import (
    ALGEBRAIC,
    ALONE,
    GEOMETRIC,
    METHODS,
    PEER,
    PLAIN,
    VOLUMETRIC,
    shipped_networks,
)  # fmt: skip
from benchmarks.triangulation_scores import (
    ANKLE,
    DISTANCE,
    KNEE,
    LABELS,
    LENGTH,
    mean,
    overall,
    percentile,
    root_mean_square,
    share_known,
    summed,
)  # fmt: skip
from benchmarks.triangulation_speed import OnGpu, cpu_table, on_gpu
from benchmarks.triangulation_suite import (
    EVERY,
    RATE_HZ,
    SEEDS,
    angle_table,
    cells,
    suite,
    suite_rows,
    swap_rows,
    swap_table,
)  # fmt: skip
from models.multiview import JOINTS
from pipeline.errors import PipelineError
from pipeline.files import replacing

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "triangulation.md"
FIGURE = HERE.parent / "docs" / "images" / "triangulation.png"
SMOKE, SMOKE_S = ("squats", "dropjump"), 1.5
LESS, SWAPS_CORRECTED = 25.0, 90.0
"""The bar, percent: how much less than geometric's volumetric's error must be with two cameras at noise
1, and how many swapped frames it must correct."""
CELL = ("cameras", "noise")
COLOURS = {
    PLAIN: "#999999", PEER: "#cc79a7", GEOMETRIC: "#d55e00", ALGEBRAIC: "#e69f00", ALONE: "#56b4e9",
    VOLUMETRIC: "#0072b2",
}  # fmt: skip
"""Okabe and Ito's, which colour-blind readers tell apart."""


@dataclass(frozen=True)
class Results:
    """Everything that the document says."""

    rows: pd.DataFrame
    swaps: pd.DataFrame
    angles: pd.DataFrame
    demo: pd.DataFrame | None
    cpu: pd.DataFrame
    gpu: OnGpu | None
    minutes: float

    @property
    def methods(self) -> list[str]:
        """Those that were compared."""
        return [method for method in METHODS if method in self.rows]


def run_everything(peer: str | None, gpu: bool) -> Results:
    """Run everything. Raises PipelineError if there are no weights."""
    began = time.perf_counter()
    networks = shipped_networks()
    rows, swaps, angles = suite_rows(suite(), peer), swap_rows(peer), angle_table()
    demo, cpu = demo_table(), cpu_table(networks)
    minutes = (time.perf_counter() - began) / 60
    on = on_gpu(networks[VOLUMETRIC]) if gpu else None
    return Results(rows, swaps, angles, demo, cpu, on, minutes)


@dataclass(frozen=True)
class Bar:
    """What must hold, and whether it does."""

    less: float
    """Percent by which volumetric's error is below geometric's, two cameras, noise 1."""
    worse: list[str]
    """Cells of cameras and noise in which volumetric's error is larger."""
    worse_movements: list[str]
    """The same by movement too."""
    corrected: dict[int, float]
    """Percent of swapped frames, by cameras."""

    @property
    def reached(self) -> bool:
        """Whether all of it holds."""
        return (
            self.less >= LESS and not self.worse and min(self.corrected.values()) >= SWAPS_CORRECTED
        )


def bar_of(rows: pd.DataFrame, swaps: pd.DataFrame) -> Bar:
    """Compare volumetric with geometric on the samples that both know."""
    distances = rows[rows.quantity == DISTANCE]
    pair = (GEOMETRIC, VOLUMETRIC)
    by_cell = cells(distances, CELL, pair)
    hardest = by_cell[(by_cell.cameras == 2) & (by_cell.noise == by_cell.noise.max())].iloc[0]
    ours = swap_table(swaps).query("method == @VOLUMETRIC").set_index("cameras")
    return Bar(
        100 * (1 - hardest[VOLUMETRIC] / hardest[GEOMETRIC]),
        _worse(by_cell),
        _worse(cells(distances, ("movement", *CELL), pair)),
        ours["corrected (%)"].to_dict(),
    )


def _worse(by_cell: pd.DataFrame) -> list[str]:
    return [
        f"{each.get('movement', '')} {each.cameras:g} cameras, noise {each.noise:g}: "
        f"{each[VOLUMETRIC]:.1f} mm against {each[GEOMETRIC]:.1f}".strip()
        for _, each in by_cell[by_cell[VOLUMETRIC] > by_cell[GEOMETRIC]].iterrows()
    ]


def draw(rows: pd.DataFrame, path: Path) -> None:
    """MPJPE by cameras for each method, a panel a size of noise."""
    means = summed(rows, CELL, DISTANCE, mean, shared=True)
    noises = sorted(means.noise.unique())
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, len(noises), sharey=True, squeeze=False)[0]
    for axis, noise in zip(axes, noises, strict=True):
        chosen = means[means.noise == noise]
        places = range(len(chosen))
        for method in (each for each in METHODS if each in chosen):
            wide = 2.4 if method == VOLUMETRIC else 1.4
            axis.plot(
                places, chosen[method], "o-", color=COLOURS[method], lw=wide, ms=4, label=method
            )
        axis.set(title=f"noise {noise:g}", xlabel="cameras")
        axis.set_xticks(places, [f"{each:g}" for each in chosen.cameras])
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#dddddd", lw=0.6)
    axes[0].set_ylim(0)
    axes[0].set_ylabel("mean error of keypoints (mm)")
    axes[-1].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150, metadata={"Software": None})


TABLES = (
    ("MPJPE, mm, over the keypoints that all methods know", DISTANCE, mean, True),
    ("MPJPE, mm, over the keypoints that each method knows", DISTANCE, mean, False),
    ("95th percentile, mm, over the keypoints that all methods know", DISTANCE, percentile, True),
    ("Keypoints known, %", DISTANCE, share_known, False),
    ("Standard deviation over time of the length of limb segments, mm", LENGTH, mean, True),
    ("Knee flexion between keypoints, RMSE, °", KNEE, root_mean_square, True),
    ("Ankle flexion between keypoints, RMSE, °", ANKLE, root_mean_square, True),
)  # fmt: skip
"""By cameras and noise: title, quantity, what is taken of it, of what all know or each."""


def document(results: Results, peer: str | None) -> str:
    """Render docs/triangulation.md."""
    rows, demo = results.rows, results.demo
    by_movement = summed(rows, ("movement",), DISTANCE, mean, shared=True)
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined)
    return environment.get_template("triangulation.md.j2").render(
        times=_times(results.cpu),
        joints=len(JOINTS),
        minutes=f"{results.minutes:.0f}",
        processors=os.cpu_count(),
        peer_version=version_of(peer) if peer else "",
        recordings=len(rows[list(LABELS[:4])].drop_duplicates()),
        rate=f"{RATE_HZ:g}",
        judged_rate=f"{RATE_HZ / EVERY:g}",
        seeds=SEEDS,
        bar=bar_of(rows, results.swaps),
        less=LESS,
        corrected=SWAPS_CORRECTED,
        overall=table(overall(rows, results.methods)),
        tables=[
            (title, table(_noise_as_text(summed(rows, CELL, quantity, statistic, shared))))
            for title, quantity, statistic, shared in TABLES
        ],
        by_movement=table(by_movement),
        swaps=table(swap_table(results.swaps)),
        angles=table(_noise_as_text(results.angles)),
        demo=table(demo) if demo is not None else "",
        cpu=table(results.cpu, 2),
        gpu=_gpu_tables(results.gpu),
    )  # fmt: skip


def _noise_as_text(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(noise=rows.noise.map("{:g}".format))


def _gpu_tables(gpu: OnGpu | None) -> dict[str, str]:
    return {
        "device": gpu.device, "speed": table(gpu.speed), "agreement": table(gpu.agreement, 3),
    } if gpu else {}  # fmt: skip


def _times(cpu: pd.DataFrame) -> dict[str, str]:
    """Of the methods, with most cameras, as multiples of geometric's."""
    most = cpu[cpu.cameras == cpu.cameras.max()].set_index("method")["of geometric's"]
    return {method: f"{1 + most[method]:.0f}" for method in (ALGEBRAIC, VOLUMETRIC)}


def smoke() -> pd.DataFrame:
    """One row a method, over the first seconds of a squat and a drop jump before two cameras."""
    plans = [
        each.model_copy(update={"duration_s": SMOKE_S})
        for each in suite(seeds=1)
        if each.motion in SMOKE and each.cameras == 2 and noise_of(each) == 1
    ]
    rows = suite_rows(plans, None)
    return overall(rows, [method for method in METHODS if method in rows])


def main() -> None:
    """Run the benchmark, or its smoke version."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pose2sim", metavar="PYTHON", help="Python that has Pose2Sim")
    parser.add_argument("--gpu", action="store_true", help="time the network on a GPU too")
    parser.add_argument("--smoke", action="store_true", help="two short recordings, no document")
    parser.add_argument("--write", action="store_true", help="write docs/triangulation.md")
    arguments = parser.parse_args()
    if arguments.smoke and (arguments.pose2sim or arguments.gpu or arguments.write):
        parser.error("--smoke stands alone")
    try:
        if arguments.smoke:
            print(table(smoke()))
            return
        results = run_everything(arguments.pose2sim, arguments.gpu)
    except PipelineError as error:
        sys.exit(str(error))
    text = document(results, arguments.pose2sim)
    print(text)
    if arguments.write:
        with replacing(FIGURE) as path:
            draw(results.rows, path)
        with replacing(DOCUMENT) as path:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
