"""The suspect labels of a comparison over folds: the table to mark, and a page that shows its first images."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader

from kth_lightning.data.catalogue import Catalogue
from kth_lightning.data.prepare import Prepared
from kth_lightning.drawing.attempt import attempt
from kth_lightning.evaluation.suspects import rank_suspects
from kth_lightning.io.run_folder import write_atomically
from kth_lightning.io.split_file import read_split
from kth_lightning.io.suspects_file import SuspectRow, read_decisions, write_suspects
from kth_lightning.report.photos import jpeg_uri, suspect_rows
from kth_lightning.report.table import Part

TABLE, PAGE = "suspects.csv", "suspects.html"
_FEWEST, _MOST = 30, 120
"""How many images the page shows."""


@dataclass(frozen=True)
class Suspects:
    """Tell what the table says.

    Attributes:
        table: The file.
        ranked: How many images models were asked about that had not seen them.
        doubted: How many of them look more like another class than like their label, and are not decided on.
        decided: How many rows are decided on.
    """

    table: Path
    ranked: int
    doubted: int
    decided: int

    @property
    def sentence(self) -> str:
        """Say it, and what to do."""
        before = f" ({self.decided} more are decided on)" if self.decided else ""
        return (
            f"Suspect labels: {self.doubted} of {self.ranked} images look more like another class{before}: see "
            f"{self.table.with_name(PAGE)}; to correct labels, write keep, relabel or drop into the column decision of "
            f"{self.table} and give it back with --data.corrections"
        )


def write_suspect_labels(part: Part, prepared: Prepared, folder: Path) -> Suspects:
    """Rank all images by how much their label is to be doubted, and write suspects.csv and suspects.html.

    What was decided in an earlier suspects.csv of the folder, or in the corrections of the images, stays in the column
    `decision`, so that the new table alone corrects all of it.

    Args:
        part: A model's runs over all folds, and perhaps over seeds, whose probabilities are averaged.
        prepared: The images.
        folder: Of the comparison.

    Raises:
        InputError: A run is damaged, or the earlier table cannot be read, which is then left as it is.
    """
    table, corrections = folder / TABLE, prepared.corrections
    earlier = {row.path: row for row in read_decisions(table, name="")} if table.exists() else {}
    images, class_names = prepared.catalogue.images, prepared.catalogue.class_names
    positions, probabilities = _out_of_fold(part, prepared.catalogue)
    labels = np.array([class_names.index(images[position].label) for position in positions], dtype=np.int64)
    suspicion = rank_suspects(labels, probabilities)

    rows: list[SuspectRow] = []
    shown: list[tuple[int, SuspectRow]] = []
    for rank in suspicion.order.tolist():
        image = images[positions[rank]]
        suggested = class_names[suspicion.suggested[rank]]
        row = SuspectRow(image.path, image.label, suggested, f"{suspicion.score[rank]:.4f}", "", image.sha256)
        known = corrections.decided.get(image.path) if corrections else None
        row = _decided(_decided(row._replace(label=known.label) if known else row, known), earlier.pop(row.path, None))
        rows.append(row)
        if not row.decision:
            shown.append((positions[rank], row))
    dropped = {row.path: row for row in corrections.dropped} if corrections else {}
    rows += [row._replace(score="") for row in (dropped | earlier).values()]
    write_suspects(rows, table)
    doubted = sum(float(row.score) > 0.5 for _, row in shown)
    told = Suspects(table, len(positions), doubted, sum(bool(row.decision) for row in rows))
    with attempt(f"{folder / PAGE} is not written"):
        _write_page(prepared.catalogue, shown[: min(max(doubted, _FEWEST), _MOST)], told, folder / PAGE)
    return told


def _decided(row: SuspectRow, known: SuspectRow | None) -> SuspectRow:
    """Enter what was decided on the same image with the same label."""
    if known is None or (known.sha256, known.label) != (row.sha256, row.label):
        return row
    suggested = known.suggested if known.decision == "relabel" else row.suggested
    return row._replace(decision=known.decision, suggested=suggested)


def _out_of_fold(part: Part, catalogue: Catalogue) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Return which images were tested, and the class probabilities [N, C] of each, averaged over the seeds."""
    said: dict[str, list[npt.NDArray[np.float64]]] = defaultdict(list)
    for run in part.runs:
        content = {row.path: row.sha256 for row in read_split(run.splits, "")}
        predictions = run.read_predictions()
        columns = [predictions.class_names.index(name) for name in catalogue.class_names]
        for path, row in zip(predictions.paths, predictions.probabilities, strict=True):
            said[content[path]].append(row[columns])
    positions = [position for position, image in enumerate(catalogue.images) if image.sha256 in said]
    return positions, np.array([np.mean(said[catalogue.images[position].sha256], axis=0) for position in positions])


def _write_page(catalogue: Catalogue, shown: list[tuple[int, SuspectRow]], suspects: Suspects, file: Path) -> None:
    environment = Environment(
        loader=PackageLoader("kth_lightning.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["jpeg"] = jpeg_uri
    rows = suspect_rows(catalogue, [(position, row.suggested, float(row.score)) for position, row in shown])
    page = environment.get_template("suspects.html").render(rows=rows, suspects=suspects)
    write_atomically(page, file)
