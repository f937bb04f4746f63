import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from kth_lightning.errors import InputError
from kth_lightning.evaluation.novelty import CENTRED, MOST_BYTES, MOST_SCORES, Novelty, most_images, thin_out


def clusters(directions: Tensor, count: int, seed: int) -> Tensor:
    drawn = torch.randn(len(directions), count, directions.shape[1], generator=torch.Generator().manual_seed(seed))
    return (directions[:, None] + 0.2 * drawn).flatten(0, 1)


@pytest.fixture(scope="module")
def directions() -> Tensor:
    return 3 * torch.eye(8)


@pytest.fixture(scope="module")
def novelty(directions: Tensor) -> Novelty:
    train = clusters(directions[:3], 200, seed=0)
    fitted = Novelty.fit(train, torch.arange(len(train)))
    assert fitted is not None
    return fitted


def test_new_images_of_known_classes_are_as_novel_as_any_and_those_of_another_class_are_more(
    novelty: Novelty, directions: Tensor
) -> None:
    known, unknown = (
        novelty(vectors, vectors)
        for vectors in (clusters(directions[:3], 200, seed=1), clusters(directions[3:], 50, seed=2))
    )
    assert known.mean() == pytest.approx(0.5, abs=0.05)
    assert [float((known <= share).float().mean()) for share in (0.25, 0.75)] == pytest.approx([0.25, 0.75], abs=0.07)
    assert unknown.min() > 0.99
    assert unknown.max() <= 1


def test_it_is_the_share_of_training_images_that_lie_less_far_from_the_five_nearest_others(
    novelty: Novelty, directions: Tensor
) -> None:
    train = clusters(directions[:3], 200, seed=0)
    vectors = clusters(directions[:4], 5, seed=3)
    centre = CENTRED * train.mean(0)
    cosines = functional.normalize(train - centre) @ functional.normalize(train - centre).T
    own = 1 - cosines.fill_diagonal_(-1).sort(descending=True)[0][:, :5].mean(1)
    new = functional.normalize(vectors - centre) @ functional.normalize(train - centre).T
    far = 1 - new.sort(descending=True)[0][:, :5].mean(1)
    expected = (far[:, None] > own).float().mean(1)
    assert novelty(vectors, vectors).tolist() == pytest.approx(expected.tolist(), abs=0.02)


@pytest.fixture(scope="module")
def with_known(directions: Tensor) -> Novelty:
    """Summarise images beside others that were not trained on, with logits along the three directions."""
    train, known = clusters(directions[:3], 200, seed=0), clusters(directions[:3], 100, seed=5)
    fitted = Novelty.fit(train, torch.arange(len(train)), (known, known[:, :3]))
    assert fitted is not None
    assert fitted.scores is not None
    return fitted


def test_mixed_precision_changes_nothing_of_a_summary(directions: Tensor) -> None:
    train, known = clusters(directions[:3], 20, seed=1), clusters(directions[:3], 10, seed=3)
    plain = Novelty.fit(train, torch.arange(60), (known, known[:, :3]))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = Novelty.fit(train, torch.arange(60), (known, known[:, :3]))
    assert plain is not None
    assert mixed is not None
    assert Novelty.of({"novelty": mixed.summary()}) is not None
    for name, tensor in plain.summary().items():
        assert torch.equal(mixed.summary()[name], tensor), name


def test_beside_validation_images_novelty_is_their_share_that_is_less_unusual(
    with_known: Novelty, directions: Tensor
) -> None:
    known, unknown = clusters(directions[:3], 100, seed=5), clusters(directions[3:], 50, seed=2)
    shares = with_known(known, known[:, :3]).sort()[0]
    assert shares.tolist() == pytest.approx((torch.arange(1, 301) / 301).tolist(), abs=1e-3)
    new = clusters(directions[:3], 300, seed=6)
    assert with_known(new, new[:, :3]).mean() == pytest.approx(0.5, abs=0.05)
    assert with_known(unknown, unknown[:, :3]).min() > 0.99
    assert with_known(unknown, unknown[:, :3]).max() <= 1


def test_of_images_as_far_away_the_one_that_no_class_is_likely_for_is_more_novel(
    with_known: Novelty, novelty: Novelty, directions: Tensor
) -> None:
    vector = clusters(directions[:1], 1, seed=7)
    levels = torch.linspace(6, -4, 21)
    shares = with_known(vector.repeat(21, 1), levels[:, None].repeat(1, 3))
    assert (shares.diff() > 0).all()
    assert 0 <= shares.min() < 0.9 < 0.999 < shares.max() <= 1
    assert len(set(novelty(vector.repeat(21, 1), levels[:, None].repeat(1, 3)).tolist())) == 1


@pytest.mark.parametrize("number", [19, 60])
def test_few_validation_images_or_such_that_do_not_vary_leave_it_to_training_images(
    novelty: Novelty, directions: Tensor, number: int
) -> None:
    train = clusters(directions[:3], 200, seed=0)
    known = clusters(directions[:3], 20, seed=5)[:number] if number < 20 else train[:1].repeat(number, 1)
    fitted = Novelty.fit(train, torch.arange(600), (known, known[:, :3]))
    assert fitted is not None
    assert fitted.summary().keys() == {"centre", "images", "distances", "keys"}
    vectors = clusters(directions, 5, seed=4)
    assert torch.equal(fitted(vectors, vectors), novelty(vectors, vectors))


def test_of_very_many_validation_images_a_thousand_scores_say_the_same(directions: Tensor) -> None:
    train, known = clusters(directions[:3], 20, seed=0), clusters(directions[:3], 2000, seed=5)
    fitted = Novelty.fit(train, torch.arange(60), (known, known[:, :3]))
    assert fitted is not None
    assert fitted.scores is not None
    assert len(fitted.scores) == MOST_SCORES
    shares = fitted(known, known[:, :3]).sort()[0]
    assert shares.tolist() == pytest.approx((torch.arange(1, 6001) / 6001).tolist(), abs=2e-3)


def test_the_nearest_training_images_are_named_by_their_keys(directions: Tensor) -> None:
    train = clusters(directions[:3], 20, seed=0)
    fitted = Novelty.fit(train, 1000 + torch.arange(60))
    assert fitted is not None
    distances, keys = fitted.nearest(train[[7, 41]], 3)
    assert keys[:, 0].tolist() == [1007, 1041]
    assert distances[:, 0].tolist() == pytest.approx([0, 0], abs=1e-3)
    assert (distances.diff() >= 0).all()
    assert set(keys[0].tolist()) <= set(range(1000, 1020))


def test_a_summary_comes_back_from_a_checkpoint_in_half_precision(
    novelty: Novelty, with_known: Novelty, directions: Tensor
) -> None:
    kept = novelty.summary()
    assert kept["images"].dtype == torch.float16
    vectors = clusters(directions, 5, seed=4)
    back = Novelty.of({"novelty": kept})
    assert back is not None
    assert torch.equal(back(vectors, vectors), novelty(vectors, vectors))
    again = Novelty.of({"novelty": with_known.summary()})
    assert again is not None
    assert torch.equal(again(vectors, vectors), with_known(vectors, vectors))
    assert Novelty.of({}) is Novelty.of({"novelty": None}) is None


@pytest.mark.parametrize("width", [16, 512, 1280, 100_000])
def test_a_summary_takes_at_most_eight_megabytes(width: int) -> None:
    images = most_images(width)
    taken = images * (2 * width + 4 + 8) + 4 * width + 4 * (MOST_SCORES + 2)
    assert 0.9 * MOST_BYTES < taken <= MOST_BYTES == 8_000_000


def test_thinning_out_keeps_as_many_of_each_class_whatever_the_order() -> None:
    rng = np.random.default_rng(0)
    labels = torch.tensor([0] * 500 + [1] * 40 + [2] * 10)
    keys = torch.from_numpy(rng.integers(0, 2**62, 550))
    kept = thin_out(labels, keys, 90)
    assert torch.bincount(labels[kept]).tolist() == [40, 40, 10]
    order = torch.from_numpy(rng.permutation(550))
    assert set(keys[order][thin_out(labels[order], keys[order], 90)].tolist()) == set(keys[kept].tolist())
    assert thin_out(labels, keys, 1000).tolist() == list(range(550))


def test_too_few_images_or_figures_that_are_none_give_no_summary() -> None:
    assert Novelty.fit(torch.eye(5), torch.arange(5)) is None
    assert Novelty.fit(torch.full((9, 4), torch.nan), torch.arange(9)) is None
    assert Novelty.fit(torch.eye(6), torch.arange(6)) is not None


def test_another_models_summary_is_refused_in_a_sentence(novelty: Novelty) -> None:
    with pytest.raises(InputError, match="is another model's"):
        novelty(torch.zeros(2, 9), torch.zeros(2, 3))


@pytest.mark.parametrize(
    "change",
    [
        {"images": torch.zeros(600, 7).half()},
        {"images": torch.zeros(600, 8)},
        {"distances": torch.zeros(3)},
        {"centre": torch.full((8,), torch.nan)},
        {"keys": torch.zeros(600)},
        {"more": torch.zeros(1)},
        {"scale": torch.ones(2)},
        {"scale": torch.ones(3), "scores": torch.ones(30)},
        {"scale": torch.ones(2), "scores": torch.ones(1)},
        {"scale": torch.ones(2), "scores": torch.full((30,), torch.nan)},
    ],
)
def test_a_damaged_summary_is_refused_in_a_sentence(novelty: Novelty, change: dict[str, Tensor]) -> None:
    with pytest.raises(InputError, match="summary of its training images is damaged"):
        Novelty.of({"novelty": novelty.summary() | change})
