from matplotlib.figure import Figure

from kth_lightning.report.curve_chart import curve_figure


def labels(figure: Figure) -> list[str]:
    figure.draw_without_rendering()
    low, high = figure.axes[1].get_ylim()
    ticks = zip(figure.axes[1].get_yticks(), figure.axes[1].get_yticklabels(), strict=True)
    return [label.get_text() for value, label in ticks if low <= value <= high]


def test_a_cross_entropy_that_spans_less_than_a_power_of_ten_has_several_labels() -> None:
    sizes, rows = [], []
    for images, loss in ((4, 2.95), (8, 1.7), (16, 1.3), (32, 0.98)):
        value = {"value": loss, "low": loss * 0.95, "high": loss * 1.05}
        sizes.append({"images": images, "acc": {"value": 0.5, "low": 0.4, "high": 0.6}, "loss": value})
        rows.append({"images_a_class": images, "acc": 0.5, "loss": loss})
    assert labels(curve_figure({"sizes": sizes, "acc": None, "loss": None}, rows)) == ["1", "2", "3"]
