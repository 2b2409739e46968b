from collections import Counter

import pytest

from vmm.data.order import MixtureOrder, ShardOrder, StepPlan, derive_seed


@pytest.mark.parametrize("window", [1, 2, 16])
def test_a_pass_visits_every_sample_once(window):
    counts = [5, 1, 0, 9, 3]
    order = ShardOrder(counts, seed=3, window=window)
    places = [order.locate(0, position) for position in range(len(order))]
    assert sorted(places) == [(s, i) for s, n in enumerate(counts) for i in range(n)]


def test_positions_can_be_asked_for_in_any_sequence():
    order, other = (ShardOrder([7] * 9, seed=1, window=2) for _ in range(2))
    straight = {(p, i): order.locate(p, i) for p in range(3) for i in range(63)}
    for key in sorted(straight, key=lambda key: derive_seed(key)):
        assert other.locate(*key) == straight[key]


def test_passes_and_seeds_differ():
    def sequence(seed, pass_number):
        order = ShardOrder([10] * 4, seed, window=2)
        return tuple(order.locate(pass_number, i) for i in range(40))

    assert len({sequence(s, p) for s in range(3) for p in range(3)}) == 9


def test_shards_come_in_another_order_in_every_pass():
    def shards(seed, pass_number):
        order = ShardOrder([1] * 12, seed, window=1)
        return tuple(order.locate(pass_number, i)[0] for i in range(12))

    assert len({shards(s, p) for s in range(3) for p in range(3)}) == 9


def test_neighbours_come_from_one_window_of_shards():
    order = ShardOrder([10] * 8, seed=0, window=2)
    blocks = [{order.locate(0, i)[0] for i in range(k, k + 20)} for k in range(0, 80, 20)]
    assert all(len(block) == 2 for block in blocks)
    assert set.union(*blocks) == set(range(8))


@pytest.mark.parametrize("position", [-1, 3])
def test_positions_outside_are_refused(position):
    with pytest.raises(IndexError):
        ShardOrder([3], 0).locate(0, position)


@pytest.mark.parametrize("block", [1, 3, 16, 4096])
@pytest.mark.parametrize(
    ("sizes", "weights"), [([5], [1.0]), ([7, 30], [1.0, 0.5]), ([3, 1, 40], [2.5, 1.0, 0.1])]
)
def test_every_corpus_takes_its_turns_in_order(sizes, weights, block):
    order = MixtureOrder(sizes, weights, seed=1, block=block)
    turns = [max(1, round(size * weight)) for size, weight in zip(sizes, weights, strict=True)]
    assert len(order) == sum(turns)
    passes = 7
    drawn = [order.locate(position) for position in range(passes * len(order))]
    for corpus, size in enumerate(sizes):
        own = [p * size + place for c, p, place in drawn if c == corpus]
        assert own == list(range(passes * turns[corpus]))
    for number in range(passes):
        part = drawn[number * len(order) : (number + 1) * len(order)]
        assert Counter(corpus for corpus, _, _ in part) == dict(enumerate(turns))


def test_corpora_are_spread_over_the_pass_and_shuffled():
    sizes = [30_000, 10_000]
    order, other = (MixtureOrder(sizes, [1.0, 2.0], seed=s, block=1000) for s in (0, 1))
    drawn = [order.locate(position)[0] for position in range(50_000)]
    for first in range(0, 50_000, 5000):  # 2 in 5 are of the second corpus, everywhere
        assert abs(sum(drawn[first : first + 5000]) - 2000) <= 2
    assert [other.locate(p)[0] for p in range(1000)] != drawn[:1000]
    second = [order.locate(position)[0] for position in range(50_000, 51_000)]
    assert second != drawn[:1000]


def test_mixtures_can_be_asked_in_any_sequence():
    order, other = (MixtureOrder([70, 30], [1.0, 0.5], seed=3, block=8) for _ in range(2))
    straight = [order.locate(position) for position in range(300)]
    for position in sorted(range(300), key=derive_seed):
        assert other.locate(position) == straight[position]


def test_every_round_holds_every_batch_once():
    plan = StepPlan({"video": 7, "image": 3}, seed=0)
    for number in range(4):
        steps = [plan.at(step) for step in range(number * 10, number * 10 + 10)]
        assert Counter(media for media, _ in steps) == {"video": 7, "image": 3}
        for media, count in (("video", 7), ("image", 3)):
            # In order, so that a reader walks through the data.
            first = number * count
            assert [k for m, k in steps if m == media] == list(range(first, first + count))


def test_rounds_are_shuffled_differently_and_reproducibly():
    plan = StepPlan({"video": 7, "image": 5}, seed=0)
    rounds = [tuple(plan.at(n * 12 + i)[0] for i in range(12)) for n in range(6)]
    assert len(set(rounds)) == 6
    again = StepPlan({"video": 7, "image": 5}, seed=0)
    assert tuple(again.at(4 * 12 + i)[0] for i in range(12)) == rounds[4]
    other = StepPlan({"video": 7, "image": 5}, seed=1)
    assert tuple(other.at(i)[0] for i in range(12)) != rounds[0]


def test_the_order_does_not_change_between_versions():
    # A change would silently reorder the data of every run that is continued.
    assert derive_seed("a") == 3136151050186550259
    order = ShardOrder([4, 4], seed=0)
    places = [order.locate(0, i) for i in range(8)]
    assert places == [(1, 1), (0, 0), (0, 3), (0, 1), (1, 3), (1, 0), (0, 2), (1, 2)]
    mixture = MixtureOrder([4, 4], [1.0, 0.5], seed=0)
    assert [mixture.locate(i) for i in range(6)] == [
        (0, 0, 0),
        (0, 0, 1),
        (1, 0, 0),
        (0, 0, 2),
        (0, 0, 3),
        (1, 0, 1),
    ]


@pytest.mark.parametrize(("sizes", "weights"), [([7], [1]), ([5, 9, 2], [1, 0.5, 4])])
def test_what_was_taken_of_each_corpus_is_counted_without_going_through_it(sizes, weights):
    order = MixtureOrder(sizes, weights, seed=3, block=6)
    found = [0] * len(sizes)
    for position in range(3 * len(order)):
        assert order.taken(position) == found
        found[order.locate(position)[0]] += 1


def test_the_batches_of_each_media_type_are_counted_without_going_through_them():
    plan = StepPlan({"video": 5, "image": 3}, seed=1)
    found = {"video": 0, "image": 0}
    for step in range(30):
        assert plan.before(step) == found
        found[plan.at(step)[0]] += 1
