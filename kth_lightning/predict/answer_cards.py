"""What a classifier says of images, as cards of HTML: a picture with the map, the label, the probabilities."""

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment
from PIL import Image

from kth_lightning.errors import InputError
from kth_lightning.explain.explanation import Explanation, explain
from kth_lightning.explain.overlay import overlay
from kth_lightning.predict.predictor import Prediction, Predictor

_TEMPLATE = Path(__file__).parent / "templates" / "answer_cards.html"
_LONGEST = 640  # pixels of a card's pictures


class _Card(NamedTuple):
    name: str
    prediction: Prediction
    image: str
    map: str


def answer_cards(predictor: Predictor, files: Sequence[Path], top_k: int = 5, remark: str = "") -> str:
    """Classify image files and write a card for each; one that cannot be read gets a card that says why.

    Args:
        predictor: Of the classifier.
        files: Of which the cards show the names, and not where they lie.
        top_k: How many classes to name, as far as there are.
        remark: What is said above the cards.

    Returns:
        A piece of HTML that needs no other file.
    """
    page = Environment(autoescape=True, trim_blocks=True).from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return page.render(cards=list(_cards(predictor, files, top_k)), remark=remark)


def _cards(predictor: Predictor, files: Sequence[Path], top_k: int) -> Iterator[_Card]:
    predictions = predictor(list(files), top_k)
    readable = [position for position, prediction in enumerate(predictions) if prediction.error is None]
    pictures = dict(zip(readable, _pictures(predictor, [files[item] for item in readable]), strict=True))
    for position, (file, prediction) in enumerate(zip(files, predictions, strict=True)):
        yield _Card(file.name, prediction, *pictures.get(position, ("", "")))


def _pictures(predictor: Predictor, files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Yield each image, and the map of its predicted class over it where the network has maps."""
    try:
        for explanation in explain(predictor.model, files, options=predictor.options):
            if isinstance(explanation, Explanation):
                image = explanation.image
                image.thumbnail((_LONGEST, _LONGEST))
                yield _data_uri(image), _data_uri(overlay(image, explanation.map, predictor.model.square))
            else:
                yield "", ""
    except InputError:  # a network without maps is good for labels
        yield from [("", "")] * len(files)


def _data_uri(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
