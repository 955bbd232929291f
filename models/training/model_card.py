"""Model cards: what weights were trained on, how well they do, and what they are not good for.

Mitchell et al., Model cards for model reporting, FAT* 2019.
"""

import shutil
from pathlib import Path

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined

from models.training.checkpoint import Record
from models.training.validation import FRAMES, SUITE
from models.weights import FILE, load_weights, read_facts
from pipeline.errors import PipelineError
from pipeline.files import replacing

CARD = "MODEL_CARD.md"


def export(best: Path, method: str, folder: Path) -> list[Path]:
    """Put weights and their model card into a folder; return both files.

    Raises PipelineError if there are no weights yet, or they do not load.
    """
    if not best.is_file():
        raise PipelineError(
            f"there is nothing to export in {best.parent}: no validation is done yet. Train longer: "
            f"pipeline train {method} --out {best.parent}"
        )
    text = _card(best, method)
    with replacing(folder / FILE) as temporary:
        shutil.copyfile(best, temporary)
    with replacing(folder / CARD) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return [folder / FILE, folder / CARD]


def _card(path: Path, method: str) -> str:
    network, facts = load_weights(path, method), read_facts(path)
    recipe, record = facts["recipe"], Record.model_validate(facts["record"])
    environment = Environment(
        loader=PackageLoader("models.training", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    by_views: dict[int, list[float]] = {}
    for entry in SUITE:
        by_views.setdefault(entry.views, []).append(record.best.scores_mm[str(entry)])
    return environment.get_template("model_card.md.j2").render(
        method=method,
        recipe=recipe,
        record=record,
        parameters=sum(each.numel() for each in network.parameters()),
        megabytes=path.stat().st_size / 1e6,
        noises=sorted({entry.noise for entry in SUITE}),
        by_views=by_views,
        frames_of_entry=recipe["validation_windows"] * FRAMES,
        torch=torch.__version__,
    )
