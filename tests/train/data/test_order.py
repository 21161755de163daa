from collections import Counter

import pytest

from diffgen.train.data.order import BatchOrder, Variation

GROUPS = [list(range(7)), list(range(7, 20)), [20]]


def batches(order, count, start=0):
    return [order.batch(number) for number in range(start, start + count)]


def test_every_turn_shows_each_picture_once_in_a_new_order():
    order = BatchOrder([range(12)], size=4, seed=3)
    turns = [
        [visit for _, visits in batches(order, 3, start=3 * e) for visit in visits]
        for e in range(3)
    ]
    for turn, visits in enumerate(turns):
        assert sorted(visits) == [(i, turn) for i in range(12)]
    assert turns[0] != [(i, 0) for i, _ in turns[1]]


@pytest.mark.parametrize("size", [1, 3, 8, 50])
def test_batches_have_one_group_and_every_picture_its_share(size):
    order = BatchOrder(GROUPS, size=size, seed=0)
    shown = Counter[int]()
    for group, visits in batches(order, 21):  # size epochs of 21 pictures each
        assert len(visits) == size
        assert {i for i, _ in visits} <= set(GROUPS[group])
        shown.update(i for i, _ in visits)
    assert shown == dict.fromkeys(range(21), size)


@pytest.mark.parametrize("start", [0, 1, 17, 400])
def test_any_batch_can_be_asked_of_first(start):
    expected = batches(BatchOrder(GROUPS, size=3, seed=5), 410)
    assert (
        batches(BatchOrder(GROUPS, size=3, seed=5), 10, start=start) == expected[start : start + 10]
    )


def test_the_seed_decides():
    one, other = (batches(BatchOrder(GROUPS, size=3, seed=s), 20) for s in (1, 2))
    assert one != other
    assert one == batches(BatchOrder(GROUPS, size=3, seed=1), 20)


def test_the_order_never_changes_between_versions():
    # Written down once: a checkpoint resumed by a later diffgen must go on in the same order.
    visits = BatchOrder([range(10)], size=10, seed=0).batch(0)[1]
    assert [i for i, _ in visits] == [6, 0, 5, 8, 4, 9, 3, 1, 2, 7]
    draw = Variation(random_crop=True).draw(0, 3, 1)
    assert (draw.caption, draw.x) == (0.417793100139746, 0.3968048561385201)


def test_variations_are_drawn_as_often_as_asked():
    vary = Variation(flip=True, random_crop=True, caption_dropout=0.25)
    draws = [vary.draw(0, i, turn) for i in range(100) for turn in range(20)]
    # Standard deviations of these means over 2000 draws are about 0.01; five of them are allowed.
    assert sum(d.dropped for d in draws) / 2000 == pytest.approx(0.25, abs=0.05)
    assert sum(d.flip for d in draws) / 2000 == pytest.approx(0.5, abs=0.056)
    assert sum(d.x for d in draws) / 2000 == pytest.approx(0.5, abs=0.033)
    assert len({d.caption for d in draws}) == 2000
    plain = [Variation().draw(0, i, 0) for i in range(50)]
    assert all((d.x, d.y, d.flip, d.dropped) == (0.5, 0.5, False, False) for d in plain)
