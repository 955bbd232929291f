"""Model cards: what weights were trained on, how well they do, and what they are not good for.

Mitchell et al., Model cards for model reporting, FAT* 2019.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined

from models.training.checkpoint import Record
from models.training.validation import FRAMES, SUITE
from models.weights import FILE, load_weights, read_facts
from pipeline.errors import PipelineError
from pipeline.files import replacing

CARD = "MODEL_CARD.md"


def triangulation_card(path: Path, method: str) -> str:
    """Text of the model card of weights of a method of triangulation."""
    facts = read_facts(path)
    scores_mm, by_views = facts["record"]["best"]["scores_mm"], {}
    for entry in SUITE:
        by_views.setdefault(entry.views, []).append(scores_mm[str(entry)])
    return rendered(
        "model_card.md.j2",
        path,
        method,
        noises=sorted({entry.noise for entry in SUITE}),
        by_views=by_views,
        frames_of_entry=facts["recipe"]["validation_windows"] * FRAMES,
    )


def rendered(template: str, path: Path, method: str, **more: Any) -> str:
    """Fill a template with what a file of weights says of itself, and more."""
    network, facts = load_weights(path, method), read_facts(path)
    environment = Environment(
        loader=PackageLoader("models.training", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(
        method=method,
        recipe=facts["recipe"],
        record=Record.model_validate(facts["record"]),
        parameters=sum(each.numel() for each in network.parameters()),
        megabytes=path.stat().st_size / 1e6,
        torch=torch.__version__,
        **more,
    )


def export(
    best: Path, method: str, folder: Path, card: Callable[[Path, str], str] = triangulation_card
) -> list[Path]:
    """Put weights and their model card into a folder; return both files.

    Raises PipelineError if there are no weights yet, or they do not load.
    """
    if not best.is_file():
        raise PipelineError(
            f"there is nothing to export in {best.parent}: no validation is done yet. Train longer: "
            f"pipeline train {method} --out {best.parent}"
        )
    text = card(best, method)
    with replacing(folder / FILE) as temporary:
        shutil.copyfile(best, temporary)
    with replacing(folder / CARD) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return [folder / FILE, folder / CARD]
