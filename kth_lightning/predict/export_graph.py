"""A classifier with its preprocessing, as one graph that torch can export."""

from importlib.metadata import version

import torch
from torch import Tensor, nn

from kth_lightning.data.square import BAR, LETTERBOX, SQUASH
from kth_lightning.evaluation.novelty import Novelty
from kth_lightning.models import Classifier
from kth_lightning.models.embedding import with_embedding


class ImageClassifier(nn.Module):
    """Map uint8 RGB images of any size to probabilities, and to their novelty.

    Images become squares as `Square` makes them with the installed Pillow, to the last bit: by two matrix products with
    weights in 22-bit fixed point, rounded after each. Near a decision, a single wrong bit in many pixels moves
    probabilities by percents.

    Args:
        model: In evaluation mode.
        temperature: Divides the logits.
        novelty: Of the training images; None for probabilities alone.
    """

    def __init__(self, model: Classifier, temperature: float, novelty: Novelty | None = None) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.novelty = novelty

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Classify images uint8 [B, H, W, 3]; returns float32 [B, num_classes], and with it novelty float32 [B]."""
        _, height, width, _ = images.shape
        square, size = self.model.square, self.model.image_size
        # Sums of products of 8 and 22 bits are exact in double precision only.
        for_columns, for_rows = self._filter(height, width), self._filter(width, height, transposed=True)
        operands = (images.permute(0, 3, 1, 2).double(), for_columns, for_rows)
        if _HIGH_IMAGES_BY_COLUMNS and square.resize == SQUASH:
            # A transpose inside a branch would be a view of its operand, which torch.cond refuses.
            high = (height > size) & (2 * width < height + size)
            values = torch.cond(high, _columns_first, _rows_first, operands)
        else:
            values = _rows_first(*operands)
        if square.resize == LETTERBOX:
            inside = self._inside(height, width)[:, None] & self._inside(width, height)
            values = torch.where(inside, values, torch.tensor(BAR, dtype=torch.float64)[:, None, None])
        if self.novelty is None:
            return (self.model(values.float()) / self.temperature).softmax(1)
        logits, vectors = with_embedding(self.model, values.float())
        return (logits / self.temperature).softmax(1), self.novelty(vectors, logits)

    def _filter(self, length: int, across: int, transposed: bool = False) -> Tensor:
        """Return what each pixel adds to each resized one, float64 [image_size, length], or transposed."""
        size = self.model.image_size
        start, seen, at, shown = self.model.square.span(length, across)
        pixels = torch.arange(length, dtype=torch.float64) + 0.5 - start
        places = (torch.arange(size) - at).clamp(min=0, max=shown - 1)  # in a bar as beside it, and written over
        if self.model.interpolation == "nearest":
            steps = torch.ones(size, dtype=torch.float64) * seen / shown
            steps[0] = steps[0] / 2
            nearest = pixels.floor() == steps.cumsum(0)[places][:, None].floor()
            return (nearest.T if transposed else nearest).double()
        centres = (places[:, None].double() + 0.5) * seen / shown
        # Shrinking widens the filter, so that no pixel is passed over.
        widening = (torch.ones((), dtype=torch.float64) * seen / shown).clamp(min=1)
        x = (pixels - centres).abs() / widening
        weights = (1 - x).clamp(min=0) if self.model.interpolation == "bilinear" else _cubic(x)
        weights = weights * ((pixels > 0) & (pixels < seen))
        fixed = weights / weights.sum(1, keepdim=True) * 2**22
        # Right before the product, ONNX Runtime would fuse the two into an operator that it has in float32 only.
        fixed = fixed.T if transposed else fixed
        return torch.where(fixed < 0, (fixed - 0.5).ceil(), (fixed + 0.5).floor()) / 2**22

    def _inside(self, length: int, across: int) -> Tensor:
        """Tell which places of a side of the square show something of the image, bool [image_size]."""
        _, _, at, shown = self.model.square.span(length, across)
        places = torch.arange(self.model.image_size)
        return (places >= at) & (places < at + shown)


_HIGH_IMAGES_BY_COLUMNS = int(version("pillow").split(".")[0]) >= 13
"""Whether Pillow resizes columns before rows where that is less work."""


def _rows_first(values: Tensor, for_columns: Tensor, for_rows: Tensor) -> Tensor:
    return _rounded(for_columns @ _rounded(values @ for_rows))


def _columns_first(values: Tensor, for_columns: Tensor, for_rows: Tensor) -> Tensor:
    return _rounded(_rounded(for_columns @ values) @ for_rows)


def _cubic(x: Tensor) -> Tensor:
    """Return Keys' cubic kernel with a = -0.5."""
    inner = (1.5 * x - 2.5) * x * x + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, inner, torch.where(x < 2, outer, torch.zeros_like(x)))


def _rounded(values: Tensor) -> Tensor:
    return (values + 0.5).floor().clamp(0, 255)
