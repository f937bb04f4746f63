from typing import Any

import pytest

from kth_lightning import BenchmarkCNN, Classifier, FeatureHead, FineTuned
from kth_lightning.testing import check_classifier

CNN: dict[str, Any] = {"filters": (4, 8), "block_dropout": (0.0, 0.5)}
PRETRAINED: dict[str, Any] = {"weights": "none"}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (BenchmarkCNN, CNN),
        (BenchmarkCNN, {**CNN, "batch_norm": True, "tta_flip": True}),
        (FeatureHead, {**PRETRAINED, "backbone": "test_efficientnet"}),
        (FeatureHead, {**PRETRAINED, "backbone": "test_vit", "tta_flip": True}),
        (FineTuned, {**PRETRAINED, "backbone": "test_resnet", "preprocessing": "blog"}),
        (FineTuned, {**PRETRAINED, "backbone": "test_convnext", "trained_stages": 2}),
        (FineTuned, {**PRETRAINED, "backbone": "test_vit"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "-".join(map(str, value.values())),
)
def test_built_in_models_keep_the_promises(kind: type[Classifier], settings: dict[str, Any]) -> None:
    check_classifier(kind, image_size=32, **settings)


class Entangled(BenchmarkCNN):
    """Have every image's features depend on the other images."""

    def features(self, images: Any) -> Any:
        inputs = super().features(images)
        return inputs - inputs.mean(0)


def test_a_model_whose_features_depend_on_the_batch_is_told() -> None:
    with pytest.raises(AssertionError, match="makes other features of an image when it comes alone"):
        check_classifier(Entangled, image_size=32, **CNN)
