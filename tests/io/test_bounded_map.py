from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from threading import Event

from kth_lightning.io.bounded_map import bounded_map


def test_results_come_in_order_and_no_more_than_asked_for_are_waiting() -> None:
    with ThreadPoolExecutor(4) as pool:
        started: list[int] = []

        def submit(item: int) -> Future[int]:
            started.append(item)
            return pool.submit(lambda: item * item)

        results = bounded_map(submit, count(), 8)
        for item in range(100):
            assert next(results) == item * item
            assert len(started) == item + 8


def test_fewer_items_than_may_wait_give_all_their_results() -> None:
    with ThreadPoolExecutor(2) as pool:
        assert list(bounded_map(lambda item: pool.submit(abs, item), [-1, -2, -3], 8)) == [1, 2, 3]


def test_what_was_not_begun_is_given_up_when_nobody_takes_the_results() -> None:
    gate, begun = Event(), []
    with ThreadPoolExecutor(1) as pool:

        def work(item: int) -> None:
            begun.append(item)
            if item:
                gate.wait()

        results = bounded_map(lambda item: pool.submit(work, item), range(100), 8)
        next(results)
        results.close()
        gate.set()
    assert len(begun) <= 2
