import itertools

import pytest

from kth_lightning.report.accuracy_time import Trained, time_figure


@pytest.mark.parametrize("seconds", [(0.01, 0.02), (5, 585), (3e6, 2e7)])
def test_time_axis_names_times_that_people_use(seconds: tuple[float, float]):
    models = [Trained("head", seconds[0], 0.9, 0.8, 0.95), Trained("finetune", seconds[1], 0.95, None, None)]
    figure = time_figure(models)
    assert [text.get_text() for text in figure.axes[0].texts] == ["head", "finetune"]
    ticks = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert len(ticks) <= 6
    assert all(tick.endswith((" s", " min", " h")) for tick in ticks)


def test_the_names_of_models_that_lie_close_do_not_overlap():
    near = [Trained(f"model {n}", 5 + n / 10, 0.98 + n / 200, 0.97, 0.99) for n in range(3)]
    figure = time_figure([*near, Trained("far", 700, 0.6, 0.5, 0.7)])
    figure.draw_without_rendering()
    names = {text.get_text(): text.get_window_extent() for text in figure.axes[0].texts}
    assert not any(one.overlaps(other) for one, other in itertools.combinations(names.values(), 2))
    assert names["model 0"].y0 < names["model 1"].y0 < names["model 2"].y0
