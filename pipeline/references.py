"""What a session folder has to compare results with: motion capture, or a simulation's truth."""

import json
from pathlib import Path

from stages.recordings import model_of
from stages.trial import Reference

BROUGHT, TRUTH = "reference", "truth"
TRANSFORM = "mocapToVideoTransform.yaml"


def brought(session: Path, trial: str) -> Reference | None:
    """Motion capture that a lab put into `reference/TRIAL.mot` and `reference/TRIAL.trc`."""
    files = {suffix: session / BROUGHT / f"{trial}{suffix}" for suffix in (".mot", ".trc")}
    found = {suffix: path for suffix, path in files.items() if path.is_file()}
    if not found:
        return None
    space = session / BROUGHT / TRANSFORM
    return Reference(
        f"motion capture ({', '.join(f'{BROUGHT}/{path.name}' for path in found.values())})",
        angles=found.get(".mot"),
        markers=found.get(".trc"),
        space=space if space.is_file() else None,
    )


def simulated(session: Path, trial: str) -> Reference | None:
    """The truth of a simulated session, `truth/TRIAL/`."""
    folder = session / TRUTH / trial
    angles, markers = folder / "angles.mot", folder / "markers.trc"
    if not angles.is_file():
        return None
    return Reference(
        f"simulated truth ({TRUTH}/{trial})",
        angles=angles,
        markers=markers if markers.is_file() else None,
        model=model_of(folder),
        aligned=True,
        clock_offsets_s=_clock_offsets_s(folder),
    )


def _clock_offsets_s(truth: Path) -> dict[str, float]:
    """How the clocks of a simulation's cameras differ from its truth's, if they started apart."""
    file = truth / "simulation.json"
    about = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return about["clock_offsets_s"] if about.get("plan", {}).get("start_spread_s") else {}
