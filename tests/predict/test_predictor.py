import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kth_lightning import Predictor
from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.split_file import read_split
from kth_lightning.predict.predictor import Prediction


@pytest.fixture(scope="module")
def predictor(tiny_run: RunFolder) -> Predictor:
    return Predictor(tiny_run.best_checkpoint, device="cpu")


@pytest.fixture(scope="module")
def files(images: Path) -> list[Path]:
    return sorted(images.rglob("*.png"))


def same(one: Prediction, other: Prediction) -> bool:
    """Compare to rounding, which depends on the size of the batch."""
    pairs = zip(one.top_k, other.top_k, strict=True)
    return all(a[0] == b[0] and a[1] == pytest.approx(b[1], abs=1e-6) for a, b in pairs) and one.error == other.error


def test_test_images_get_the_probabilities_that_the_run_wrote(
    predictor: Predictor, tiny_run: RunFolder, images: Path
) -> None:
    written = tiny_run.read_predictions()
    predictions = predictor([images / path for path in written.paths], top_k=3)
    for row, prediction in zip(written.probabilities, predictions, strict=True):
        probabilities = dict(prediction.top_k)
        assert [probabilities[name] for name in written.class_names] == pytest.approx(row, abs=1e-5)
        assert prediction.label == written.class_names[row.argmax()]
        assert (prediction.label, prediction.probability) == prediction.top_k[0]
        assert prediction.error is None


def test_an_image_is_the_same_as_file_pil_image_array_and_tensor(predictor: Predictor, files: list[Path]) -> None:
    image = Image.open(files[30]).convert("RGB")
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    inputs = [str(files[30]), files[30], Image.open(files[30]), image, array, tensor]
    predictions = predictor(inputs)
    assert all(same(prediction, predictions[0]) for prediction in predictions)
    assert predictor(array) == predictor([array])[0]


def test_grey_transparent_and_turned_images_are_read_as_from_files(predictor: Predictor, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)
    turned = Image.fromarray(noise[..., :3])
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, image in (
        ("grey", Image.fromarray(noise[..., 0])),
        ("alpha", Image.fromarray(noise)),
        ("turned", turned),
    ):
        file = tmp_path / f"{name}.png"
        image.save(file, exif=exif if name == "turned" else None)
        assert predictor(Image.open(file)) == predictor(file)
    assert predictor(noise[..., 0]) == predictor(noise[..., :1]) == predictor(tmp_path / "grey.png")
    assert predictor(noise) == predictor(tmp_path / "alpha.png")
    assert predictor(turned) != predictor(tmp_path / "turned.png")


def test_bad_images_say_why_and_the_others_go_on(predictor: Predictor, files: list[Path], tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "half.png").write_bytes(files[0].read_bytes()[:2000])
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    bad = [tmp_path / name for name in ("bomb.png", "dot.png", "text.jpg", "half.png", "none.png")]
    bad += [tmp_path, np.zeros((40, 40, 3)), np.zeros((40, 40, 7), dtype=np.uint8), Image.open(tmp_path / "half.png")]
    predictions = predictor([files[0], *bad, tmp_path / "moving.gif", files[0]], batch_size=4)
    reasons = ["too large", "too small: 1x1", "unreadable", "truncated", "No such file", "directory", "float64", "", ""]
    for prediction, reason in zip(predictions[1:-2], reasons, strict=True):
        assert prediction.label is None
        assert prediction.top_k == ()
        assert reason in (prediction.error or "none")
        assert "\n" not in prediction.error
    assert same(predictions[0], predictor(files[0]))
    assert same(predictions[-1], predictor(files[0]))
    assert same(predictions[-2], predictor(frames[0]))


def test_several_devices_keep_the_order(predictor: Predictor, tiny_run: RunFolder, files: list[Path]) -> None:
    both = Predictor(tiny_run.best_checkpoint, device=[torch.device("cpu"), torch.device("cpu")])
    pairs = zip(predictor(files, batch_size=7), both(files, batch_size=7), strict=True)
    assert all(same(one, other) for one, other in pairs)


def test_images_are_taken_only_as_fast_as_predictions(predictor: Predictor, files: list[Path]) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield files[0]

    stream = predictor.stream(endless(), batch_size=4)
    for given in range(1, 41):
        next(stream)
        assert taken <= given + 4 * 6


def test_calibrated_probabilities_are_those_of_divided_logits(
    tiny_run: RunFolder, files: list[Path], tmp_path: Path, change_checkpoint: Callable[..., Path]
) -> None:
    warm = change_checkpoint(tiny_run.best_checkpoint, tmp_path / "warm.ckpt", temperature=2.5)
    for as_trained, calibrated in zip(Predictor(warm)(files), Predictor(warm, calibrated=True)(files), strict=True):
        plain = np.array([value for _, value in as_trained.top_k]) ** (1 / 2.5)
        assert [value for _, value in calibrated.top_k] == pytest.approx(plain / plain.sum(), abs=1e-5)
    cold = change_checkpoint(tiny_run.best_checkpoint, tmp_path / "cold.ckpt", temperature=1.0)
    with pytest.warns(UserWarning, match="no fitted temperature"):
        Predictor(cold, calibrated=True)


def test_what_was_never_seen_is_novel_and_what_was_trained_on_is_not(
    predictor: Predictor, tiny_run: RunFolder, images: Path
) -> None:
    split = read_split(tiny_run.splits)
    seen = predictor([images / row.path for row in split if row.part == "train"])
    shares = [prediction.novelty for prediction in seen]
    assert None not in shares
    assert np.mean(shares) < 0.5
    assert np.ptp(shares) > 0.5
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    assert predictor(stripes).novelty > 0.95


def test_a_checkpoint_without_a_summary_tells_no_novelty(
    tiny_run: RunFolder, files: list[Path], tmp_path: Path
) -> None:
    content = torch.load(tiny_run.best_checkpoint, weights_only=True)
    assert content["novelty"]["images"].dtype == torch.float16
    del content["novelty"]
    torch.save(content, tmp_path / "old.ckpt")
    prediction = Predictor(tmp_path / "old.ckpt", "cpu")(files[0])
    assert prediction.novelty is None
    assert prediction.label is not None


def test_top_k_is_bounded_by_the_classes_and_not_less_than_one(predictor: Predictor, files: list[Path]) -> None:
    assert len(predictor(files[0], top_k=1).top_k) == 1
    assert len(predictor(files[0], top_k=99).top_k) == 3
    with pytest.raises(InputError, match="top_k"):
        predictor(files[0], top_k=0)
    assert predictor([]) == []


def test_importing_the_package_is_quick_since_torch_waits_until_the_predictor_is_named() -> None:
    code = "import kth_lightning, sys; assert 'torch' not in sys.modules; kth_lightning.Nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("has no attribute 'Nothing'")
