"""The suspect labels of a comparison over folds: the table to mark, and a page that shows its first images."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jinja2 import Environment, PackageLoader

from kth_lightning.data.catalogue import Catalogue
from kth_lightning.data.module import ImageData
from kth_lightning.drawing.attempt import attempt
from kth_lightning.evaluation.suspects import least_squares_likeness, rank_suspects
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.split_file import read_split
from kth_lightning.io.suspects_file import PAGE, TABLE, SuspectRow, read_decisions, write_suspects
from kth_lightning.report.photos import jpeg_uri, suspect_rows
from kth_lightning.report.table import Part
from kth_lightning.stores.store import CLEAN, Store

_FEWEST, _MOST = 30, 120
"""How many images the page shows."""
_MOST_FEATURES = 8192
"""Of an image; ridge regression takes the cube of their number."""


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


def write_suspect_labels(part: Part, data: ImageData, folder: Path) -> Suspects:
    """Rank all images by how much their label is to be doubted, and write suspects.csv and suspects.html.

    Where the runs have stored their images' features, ridge regression on these over the same folds ranks; else the
    class probabilities of the runs do.

    What was decided in an earlier suspects.csv of the folder, or in the corrections of the images, stays in the column
    `decision`, so that the new table alone corrects all of it.

    Args:
        part: A model's runs over all folds, and perhaps over seeds, whose probabilities are averaged.
        data: The images.
        folder: Of the comparison.

    Raises:
        InputError: A run is damaged, or the earlier table cannot be read, which is then left as it is.
    """
    table, prepared, corrections = folder / TABLE, data.prepared, data.prepared.corrections
    earlier = {row.name: row for row in read_decisions(table, name="")} if table.exists() else {}
    images, class_names = prepared.catalogue.images, part.runs[0].read_predictions().class_names
    positions, folds, likeness = _out_of_fold(part, prepared.catalogue, class_names)
    labels = np.array([class_names.index(images[position].label) for position in positions], dtype=np.int64)
    features = _features(part, data, positions)
    if features is not None:
        likeness = least_squares_likeness(features, labels, folds, len(class_names))
    suspicion = rank_suspects(labels, likeness)

    rows: list[SuspectRow] = []
    shown: list[tuple[int, SuspectRow]] = []
    for rank in suspicion.order.tolist():
        image = images[positions[rank]]
        suggested = class_names[suspicion.suggested[rank]]
        score = f"{suspicion.score[rank]:.4f}"
        row = SuspectRow(image.path, image.label, suggested, score, "", image.sha256, image.box_text)
        known = corrections.decided.get(image.name) if corrections else None
        row = _decided(_decided(row._replace(label=known.label) if known else row, known), earlier.pop(row.name, None))
        rows.append(row)
        if not row.decision:
            shown.append((positions[rank], row))
    dropped = {row.name: row for row in corrections.dropped} if corrections else {}
    rows += [row._replace(score="") for row in (dropped | earlier).values()]
    write_suspects(rows, table)
    doubted = sum(float(row.score) > 0.5 for _, row in shown)
    told = Suspects(table, len(positions), doubted, sum(bool(row.decision) for row in rows))
    with attempt(f"{folder / PAGE} is not written"):
        _write_page(prepared.catalogue, shown[: min(max(doubted, _FEWEST), _MOST)], told, folder / PAGE)
    return told


def _decided(row: SuspectRow, known: SuspectRow | None) -> SuspectRow:
    """Enter what was decided on the same image with the same label."""
    if known is None or (known.content, known.label) != (row.content, row.label):
        return row
    suggested = known.suggested if known.decision == "relabel" else row.suggested
    return row._replace(decision=known.decision, suggested=suggested)


def _out_of_fold(
    part: Part, catalogue: Catalogue, class_names: list[str]
) -> tuple[list[int], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return which images were tested, in which fold [N], and their class probabilities [N, C], averaged over seeds."""
    said: dict[str, list[npt.NDArray[np.float64]]] = defaultdict(list)
    folds: dict[str, int] = {}
    for number, run in enumerate(part.runs):
        content = {row.name: row.content for row in read_split(run.splits, "")}
        predictions = run.read_predictions()
        columns = [predictions.class_names.index(name) for name in class_names]
        for name, row in zip(predictions.names, predictions.probabilities, strict=True):
            said[content[name]].append(row[columns])
            folds.setdefault(content[name], number)  # further seeds have the folds of the first
    known = [image.content in said and image.label in class_names for image in catalogue.images]
    positions = np.flatnonzero(known).tolist()
    names = [catalogue.images[position].content for position in positions]
    return (
        positions,
        np.array([folds[name] for name in names]),
        np.array([np.mean(said[name], axis=0) for name in names]),
    )


def _features(part: Part, data: ImageData, positions: list[int]) -> npt.NDArray[np.float32] | None:
    """Return what the runs' frozen trunk makes of the images [N, D]; None where that is not stored, or is maps."""
    stores = {run.read_metrics().get("feature_store") for run in part.runs}
    name = stores.pop()
    if stores or not name:
        return None
    store = Store(
        data.cache_dir / "features" / name, torch.from_numpy(data.prepared.catalogue.content_keys), {CLEAN: CLEAN}
    )
    index = torch.tensor(positions)
    store.open()
    if store.missing(index.numpy(), [CLEAN]):
        return None
    if store.fetch(index[:1]).numel() > _MOST_FEATURES:
        return None
    return store.fetch(index).float().flatten(1).numpy()


def _write_page(catalogue: Catalogue, shown: list[tuple[int, SuspectRow]], suspects: Suspects, file: Path) -> None:
    environment = Environment(
        loader=PackageLoader("kth_lightning.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["jpeg"] = jpeg_uri
    rows = suspect_rows(catalogue, [(position, row.suggested, float(row.score)) for position, row in shown])
    page = environment.get_template("suspects.html").render(rows=rows, suspects=suspects)
    write_atomically(page, file)
