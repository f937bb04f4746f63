import torch
from torch import Tensor, nn

from kth_lightning import BenchmarkCNN, Classifier, FeatureHead
from kth_lightning.models.embedding import embed_features, with_embedding


class NoDense(Classifier):
    """End in a convolution."""

    def __init__(self, num_classes: int, **kwargs: object) -> None:
        super().__init__(num_classes, **kwargs)  # type: ignore[arg-type]
        self.last = nn.Conv2d(3, num_classes, 1)

    def tail(self, features: Tensor) -> Tensor:
        return self.last(features).mean((2, 3)) + features[..., 0].mean((1, 2))[:, None]


def images() -> Tensor:
    return torch.randint(0, 256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_vectors_are_what_the_last_dense_layer_takes_of_the_image_itself() -> None:
    torch.manual_seed(0)
    for mirrored in (False, True):
        head = FeatureHead(4, "tf_efficientnet_lite0", "none", image_size=64, tta_flip=mirrored).eval()
        cnn = BenchmarkCNN(4, (8, 16), (0.0, 0.0), image_size=64, tta_flip=mirrored).eval()
        with torch.no_grad():
            for model in (head, cnn):
                logits, vectors = with_embedding(model, images())
                assert torch.equal(logits, model(images()))
                features = model.features(images())
                assert torch.equal(vectors, embed_features(model, features))
                assert torch.allclose(model.head(vectors), model.tail(features), atol=1e-6)
            assert torch.equal(with_embedding(head, images())[1], head.features(images()))


def test_a_network_that_ends_in_no_dense_layer_is_embedded_by_its_logits() -> None:
    for mirrored in (False, True):
        model = NoDense(4, tta_flip=mirrored).eval()
        with torch.no_grad():
            logits, vectors = with_embedding(model, images())
            assert torch.equal(logits, model(images()))
            assert torch.equal(vectors, model.tail(model.features(images())))
