"""Learning curves: a table over the steps, and TensorBoard's events where it is installed."""

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.files import replacing

CURVE, LOGS = "curve.csv", "logs"


@dataclass(frozen=True)
class Curve:
    """Losses and validations, a row for each validation."""

    path: Path
    rows: list[Mapping[str, Any]]
    events: Any
    """TensorBoard's writer, or None."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Write what there is to say of `row["step"]`; the columns are always the same."""
        self.rows.append(row)
        with replacing(self.path) as temporary, open(temporary, "w", newline="") as stream:
            writer = csv.DictWriter(stream, list(row))
            writer.writeheader()
            writer.writerows(self.rows)
        if self.events is not None:
            for name, value in row.items():
                self.events.add_scalar(name, value, row["step"])
            self.events.flush()


@contextmanager
def opened_curve(folder: Path, step: int) -> Iterator[Curve]:
    """Go on with a folder's curve after a step; later ones are about to be done again."""
    path, rows = folder / CURVE, []
    if path.is_file():
        with open(path, newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if int(row["step"]) <= step]
    if not has_tensorboard():
        yield Curve(path, rows, None)
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / LOGS), purge_step=step + 1) as events:
        yield Curve(path, rows, events)


def has_tensorboard() -> bool:
    """Tell whether TensorBoard is installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        return False
    return True
