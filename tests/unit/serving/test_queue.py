"""Rows wait in a bounded queue and clients take turns."""

from random import Random

import pytest

from tpv.serving.queue import FairQueue, Waiting


def added(queue, client, costs, group="g"):
    work = Waiting(client, group, costs)
    queue.add(work)
    return work


def drained(queue, budget):
    passes = []
    while rows := queue.take(budget):
        passes.append(rows)
    return passes


def test_rows_of_one_client_keep_their_order_and_their_budget():
    queue = FairQueue(100)
    works = [added(queue, "a", [10] * 5) for _ in range(3)]
    passes = drained(queue, 40)
    assert [[(works.index(work), list(rows)) for work, rows in one] for one in passes] == [
        [(0, [0, 1, 2, 3])],
        [(0, [4]), (1, [0, 1, 2])],
        [(1, [3, 4]), (2, [0, 1])],
        [(2, [2, 3, 4])],
    ]
    assert (queue.rows, queue.positions, list(queue)) == (0, 0, [])


def test_a_row_larger_than_the_budget_goes_alone():
    queue = FairQueue(100)
    work = added(queue, "a", [1000, 1000])
    assert [rows for _, rows in queue.take(10)] == [range(1)]
    assert [rows for _, rows in queue.take(10)] == [range(1, 2)]
    assert work.waiting == 0


def test_a_small_client_is_not_behind_a_large_one():
    queue = FairQueue(10_000, quantum=20)
    added(queue, "large", [10] * 5000)
    queue.take(200)
    small = added(queue, "small", [10] * 3)
    (own,) = [rows for work, rows in queue.take(200) if work is small]
    assert list(own) == [0, 1, 2]


def test_clients_with_much_to_do_share_a_pass_alike():
    queue = FairQueue(100_000, quantum=20)
    works = {client: [added(queue, client, [10] * 100) for _ in range(10)] for client in "abc"}
    rows = queue.take(600)
    taken = {client: sum(len(part) for work, part in rows if work in works[client]) for client in "abc"}
    assert taken == {"a": 20, "b": 20, "c": 20}


def test_groups_do_not_mix_and_none_starves():
    queue = FairQueue(100_000, quantum=20)
    added(queue, "a", [10] * 1000, group="x")
    other = added(queue, "b", [10], group="y")
    later = added(queue, "a", [10], group="z")
    seen = []
    for _ in range(3):
        rows = queue.take(100)
        assert len({work.group for work, _ in rows}) == 1
        seen += [work for work, _ in rows]
    assert other in seen
    assert later not in seen  # a client's own requests stay in order


def test_a_full_queue_has_room_for_those_who_have_not_had_their_share():
    queue = FairQueue(100)
    added(queue, "a", [1] * 90)
    assert queue.has_room("a", 10)
    assert not queue.has_room("a", 11)
    added(queue, "a", [1] * 10)
    assert queue.has_room("b", 50)
    assert not queue.has_room("b", 51)
    added(queue, "b", [1] * 50)
    assert not queue.has_room("a", 1)
    assert queue.has_room("c", 33)
    assert not FairQueue(10).has_room("a", 11)


def test_dropped_rows_leave():
    queue = FairQueue(100)
    first, second = added(queue, "a", [5] * 10), added(queue, "a", [7] * 10)
    queue.take(20)
    queue.drop(first)
    assert (queue.rows, queue.positions) == (10, 70)
    queue.drop(first)
    (((work, rows),)) = queue.take(1000)
    assert (work, list(rows)) == (second, list(range(10)))
    queue.drop(second)
    assert (queue.rows, queue.positions) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_every_row_is_taken_exactly_once_whatever_happens(seed):
    rng = Random(seed)
    queue, works, taken = FairQueue(10_000, quantum=rng.choice([1, 30, 512])), [], {}
    for _ in range(300):
        action = rng.random()
        if action < 0.5:
            costs = [rng.randint(1, 60) for _ in range(rng.randint(1, 9))]
            works.append(added(queue, rng.choice("abcd"), costs, rng.choice("xyz")))
        elif action < 0.6 and works:
            queue.drop(rng.choice(works))
        else:
            for work, rows in queue.take(rng.randint(1, 400)):
                taken.setdefault(work, []).extend(rows)
    waiting = list(queue)
    assert queue.rows == sum(work.waiting for work in waiting)
    assert queue.positions == sum(sum(work.costs[work.next :]) for work in waiting)
    for rows in drained(queue, 100):
        for work, part in rows:
            taken.setdefault(work, []).extend(part)
    for work in works:
        assert taken.get(work, []) == list(range(len(taken.get(work, []))))
    assert sum(map(len, taken.values())) <= sum(len(work.costs) for work in works)
    assert (queue.rows, queue.positions, list(queue)) == (0, 0, [])
