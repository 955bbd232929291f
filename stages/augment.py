"""Augment: video keypoints to the 43 anatomical markers that OpenSim's model needs."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from scipy.interpolate import CubicSpline

from models.assets import asset_folder, fingerprint
from models.augmenter import (
    LOWER_FEATURES,
    LOWER_RESPONSES,
    MARKERS,
    RATE_HZ,
    REFERENCE,
    UPPER_FEATURES,
    UPPER_RESPONSES,
    VIDEO_KEYPOINTS,
    Augmenter,
    load_augmenter,
    small_toe,
)
from models.segment_augmenter import SegmentAugmenter
from models.vocabulary import derivations
from models.weights import load_weights, shipped_weights
from pipeline.errors import PipelineError
from pipeline.files import load_dataset, save_dataset
from stages.series import by_name, stretches
from stages.trial import Progress, Subject, Trial

NEEDS = ("smooth",)
ASSET = "augmenter-v0.3"
RETRAINED = "augmenter"
"""Name of the network that `pipeline train` makes."""

THIGH_AND_SHANK_PER_HEIGHT = 0.245 + 0.246
"""Hip to knee to ankle as a share of body height (Drillis and Contini, 1966, as in Winter,
Biomechanics and Motor Control of Human Movement, 4th ed., 2009, figure 4.1)."""
ASSUMED_BODY_MASS_INDEX = 22.5
"""kg/m², used only where the session does not state the mass."""
SHORTEST_STRETCH_S = 0.2
"""Shorter stretches of complete keypoints are not augmented."""
RUN_UP_SAMPLES = 30
"""Without them the first answers are wrong by many millimetres, up to 11° at the ankle of a squat."""

Keypoints = dict[str, Float[np.ndarray, "time 3"]]
Networks = tuple[Augmenter | SegmentAugmenter, Augmenter | SegmentAugmenter]
"""Of the body and of the arms."""


class Settings(BaseModel):
    """Options of the augmentation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Literal["published", "retrained"] = "published"
    """OpenCap's augmenter v0.3, trained on recorded people; or our own, trained on simulated people
    alone, which puts markers where the OpenSim model has them (models/trained/augmenter)."""


def video_keypoints(keypoints: Keypoints) -> tuple[Keypoints, dict[str, str]]:
    """Complete the augmenter's 20 keypoints; return them with their kind by name.

    Kinds: `measured` as the pose model gave it; `derived`, a middle of two; `estimated`, a small toe
    by `SMALL_TOE`, which says nothing about how the forefoot turns. What comes from what, and where
    from, is in `models/vocabularies.toml`.
    """
    found, kind = dict(keypoints), dict.fromkeys(keypoints, "measured")
    for name, source in derivations(keypoints, VIDEO_KEYPOINTS).items():
        parts = [keypoints[part] for part in source.of]
        if source.rule == "middle":
            found[name], kind[name] = (parts[0] + parts[1]) / 2, "derived"
        elif source.rule == "small toe":
            placed = small_toe(*map(torch.from_numpy, parts), side=name[0])
            found[name], kind[name] = placed.numpy(), "estimated"
    missing = [name for name in VIDEO_KEYPOINTS if name not in found]
    if missing:
        raise PipelineError(
            f"the pose model does not give {', '.join(missing)}, which the marker augmenter needs. "
            "Choose a backend with feet: pipeline run … --set detect.backend=blazepose, or bring "
            "keypoints with feet, such as halpe-26."
        )
    return {name: found[name] for name in VIDEO_KEYPOINTS}, kind


def estimated_height_m(keypoints: Keypoints) -> float:
    """Body height from thigh and shank, medians over time and both sides."""
    lengths = [
        np.linalg.norm(keypoints[f"{side}{top}"] - keypoints[f"{side}{bottom}"], axis=-1)
        for top, bottom in (("Hip", "Knee"), ("Knee", "Ankle"))
        for side in "RL"
    ]
    thigh, shank = (
        np.nanmedian(np.concatenate(lengths[:2])),
        np.nanmedian(np.concatenate(lengths[2:])),
    )
    return float((thigh + shank) / THIGH_AND_SHANK_PER_HEIGHT)


def body_size(subject: Subject, keypoints: Keypoints) -> tuple[float, float, list[str]]:
    """Return height (m) and mass (kg), and a notice for each that the session does not state.

    Raises PipelineError for a height that no adult or child who stands has.
    """
    notices = []
    measured = estimated_height_m(keypoints)
    height = subject.height_m
    if height is None:
        height = measured
        notices.append(
            f"height_m is not given in session.toml: estimated as {height:.2f} m from the length of "
            "the legs. Measure it: marker positions scale with it."
        )
    elif abs(measured / height - 1) > 0.15:
        notices.append(
            f"height_m = {height:.2f} m in session.toml, but the legs in the video are those of a "
            f"person of {measured:.2f} m. Check the height, and the scale of the calibration."
        )
    if not 0.8 <= height <= 2.5:
        raise PipelineError(
            f"body height of {height:.2f} m is impossible. Check height_m in session.toml (metres) "
            "and the scale of the calibration (metres against millimetres, size of the board)."
        )
    mass = subject.mass_kg
    if mass is None:
        mass = ASSUMED_BODY_MASS_INDEX * height**2
        notices.append(
            f"mass_kg is not given in session.toml: assumed {mass:.0f} kg (body mass index "
            f"{ASSUMED_BODY_MASS_INDEX}). Joint angles hardly depend on it; forces would."
        )
    return height, mass, notices


def rotation_to_heading(keypoints: Keypoints, rows: slice) -> Float[np.ndarray, "3 3"]:
    """Rotation about Y that turns the person to walk along +X, their right to +Z.

    By the mean direction of hips and shoulders over the rows. The network was trained on people
    turned at many angles, and answers a little differently to each: the same movement shall give
    the same angles whichever way the laboratory is laid out.
    """
    right = sum(
        np.nan_to_num(keypoints[f"R{part}"][rows] - keypoints[f"L{part}"][rows]).mean(0)
        for part in ("Hip", "Shoulder")
    )
    angle = np.arctan2(right[0], right[2])  # about Y, from +Z to the person's right
    cosine, sine = np.cos(-angle), np.sin(-angle)
    return np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])


def augment(
    keypoints: Keypoints,
    time_s: Float[np.ndarray, "time"],
    networks: Networks,
    height_m: float,
    mass_kg: float,
) -> Float[np.ndarray, "time 43 3"]:
    """Return the 43 anatomical markers (m, order of `MARKERS`) for each sample.

    Body and arms each have their network. Wherever one's keypoints are all known for a while, they
    are turned to the trained heading, augmented and turned back. NaN elsewhere.
    """
    parts = []
    names = ((LOWER_FEATURES, LOWER_RESPONSES), (UPPER_FEATURES, UPPER_RESPONSES))
    for network, (features, responses) in zip(networks, names, strict=True):
        stacked = np.stack([keypoints[name] for name in (*features, REFERENCE)], axis=1)
        markers = np.full((len(time_s), len(responses), 3), np.nan)
        for stretch in complete_stretches(stacked, time_s):
            rotation = rotation_to_heading(keypoints, stretch)
            turned = stacked[stretch] @ rotation.T
            answer = augment_stretch(turned, time_s[stretch], network, height_m, mass_kg)
            markers[stretch] = answer @ rotation
        parts.append(markers)
    return np.concatenate(parts, axis=1)


def complete_stretches(
    stacked: Float[np.ndarray, "time keypoint 3"], time_s: Float[np.ndarray, "time"]
) -> list[slice]:
    """Stretches of samples, long enough for the network, in which every keypoint is known."""
    complete = np.isfinite(stacked).all((1, 2))
    return [
        s for s in stretches(complete) if time_s[s.stop - 1] - time_s[s.start] >= SHORTEST_STRETCH_S
    ]


def augment_stretch(
    stacked: Float[np.ndarray, "time keypoint 3"],
    time_s: Float[np.ndarray, "time"],
    network: Augmenter | SegmentAugmenter,
    height_m: float,
    mass_kg: float,
) -> Float[np.ndarray, "time marker 3"]:
    """Run one network on a stretch of its keypoints, the mid-hip last, turned to its heading.

    The keypoints are resampled to the trained 60 Hz and the answer back. The network needs some
    samples before its answers settle: the movement is continued backwards, point-reflected at its
    first sample, and the answers to that are dropped.
    """
    trained = np.arange(time_s[0], time_s[-1] + 0.5 / RATE_HZ, 1 / RATE_HZ)
    # Queried at most half a sample past the end, so that no sample is left out.
    sampled = CubicSpline(time_s, stacked)(trained)
    run_up = min(RUN_UP_SAMPLES, len(sampled) - 1)
    sampled = np.concatenate([2 * sampled[0] - sampled[run_up:0:-1], sampled])
    features = torch.as_tensor(sampled, dtype=torch.float32)[None]
    with torch.inference_mode():
        answer = network(features[:, :, :-1], features[:, :, -1], height_m, mass_kg)[0].numpy()
    return CubicSpline(trained, answer[run_up:])(time_s)


def check_ever_complete(keypoints: Keypoints, time_s: Float[np.ndarray, "time"]) -> None:
    """Raise PipelineError if the body's network can never work, naming the keypoints that lack."""
    body = {name: keypoints[name] for name in (*LOWER_FEATURES, REFERENCE)}
    if complete_stretches(np.stack(list(body.values()), 1), time_s):
        return
    if time_s[-1] - time_s[0] < SHORTEST_STRETCH_S:
        raise PipelineError(
            f"the trial is only {time_s[-1] - time_s[0]:.2f} s long: the marker augmenter needs "
            f"{SHORTEST_STRETCH_S:g} s at least, and a second for good results."
        )
    shares = {name: np.isfinite(value).all(-1).mean() for name, value in body.items()}
    worst = sorted(shares, key=shares.get)[:4]
    listed = ", ".join(f"{name} ({shares[name]:.0%} of the trial)" for name in worst)
    raise PipelineError(
        f"in no stretch of {SHORTEST_STRETCH_S:g} s are all keypoints of the body known, which the "
        f"marker augmenter needs. Least seen: {listed}. Film so that at least two cameras see them, "
        "or lower triangulate.min_confidence if the overlay videos show them in the right place."
    )


def inputs(trial: Trial, settings: Settings) -> dict[str, object]:
    """Return what the result depends on besides other stages."""
    subject = trial.subject
    known = {"height_m": subject.height_m, "mass_kg": subject.mass_kg}
    if settings.network == "published":
        return known | {"asset": fingerprint(ASSET)}
    return known | {"weights": retrained_weights()}


def retrained_weights() -> Path:
    """Where the retrained augmenter is. Raises PipelineError if it did not come with the package."""
    path = shipped_weights(RETRAINED)
    if path is None:
        raise PipelineError(
            "there are no weights of the retrained augmenter. Take --set augment.network=published, or "
            "train some: pipeline train augmenter"
        )
    return path


def load_networks(settings: Settings) -> Networks:
    """Load the networks of body and arms. Raises PipelineError if they are missing or damaged."""
    if settings.network == "published":
        folder = asset_folder(ASSET)
        return load_augmenter(folder / "lower"), load_augmenter(folder / "upper")
    network = load_weights(retrained_weights(), RETRAINED).eval()
    return network.body, network.arms


def run(trial: Trial, settings: Settings, out: Path, progress: Progress) -> list[str]:
    """Augment the smoothed keypoints of one trial into `markers.nc`."""
    points = load_dataset(trial.folder("smooth") / "points.nc")
    keypoints, kind = video_keypoints(by_name(points.position, "keypoint"))
    check_ever_complete(keypoints, points.time.values)
    height_m, mass_kg, notices = body_size(trial.subject, keypoints)
    networks = load_networks(settings)
    markers = augment(keypoints, points.time.values, networks, height_m, mass_kg)
    if settings.network == "retrained":
        notices.append(
            "markers are by the retrained augmenter, which has seen simulated people only and is not "
            "validated on recorded ones. The published one: --set augment.network=published"
        )
    estimated = [name for name in VIDEO_KEYPOINTS if kind[name] == "estimated"]
    if estimated:
        notices.append(
            f"{' and '.join(estimated)}: estimated from heel, big toe and ankle, since the pose model "
            "does not know them. Subtalar angles and foot rotation are weak."
        )
    for part, names in (("body", LOWER_RESPONSES), ("arms", UPPER_RESPONSES)):
        columns = [MARKERS.index(name) for name in names]
        unknown = 1 - np.isfinite(markers[:, columns]).all((1, 2)).mean()
        if unknown:
            notices.append(
                f"{unknown:.0%} of the trial has no markers of the {part}, since keypoints are "
                "missing there."
            )
    names = [*VIDEO_KEYPOINTS, *MARKERS]
    save_dataset(
        xr.Dataset(
            {
                "position": (
                    ("time", "marker", "axis"),
                    np.concatenate([np.stack(list(keypoints.values()), 1), markers], axis=1),
                    {"units": "m"},
                )
            },
            coords={
                "time": points.time,
                "marker": names,
                "axis": ["x", "y", "z"],
                "kind": ("marker", [kind.get(name, "augmented") for name in names]),
            },
            attrs=points.attrs
            | {
                "augmenter": settings.network,
                "height_m": height_m,
                "mass_kg": mass_kg,
                "height_source": "session" if trial.subject.height_m else "estimated",
                "mass_source": "session" if trial.subject.mass_kg else "assumed",
            },
        ),
        out / "markers.nc",
    )
    return notices
