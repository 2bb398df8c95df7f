"""Minimum cuts against all subsets of small networks."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.compiler.memory.min_cut import SINK, SOURCE, UNLIMITED, Network

VERTICES = 6
ARC = st.tuples(st.integers(0, VERTICES - 1), st.integers(0, VERTICES - 1), st.sampled_from([0, 1, 2, 5, UNLIMITED]))


def weight(arcs: list[tuple[int, int, int]], side: set[int]) -> int:
    return sum(capacity for tail, head, capacity in arcs if tail not in side and head in side)


@given(st.lists(ARC, max_size=14))
@settings(max_examples=200, deadline=None)
def test_the_cut_is_the_cheapest_and_of_those_the_nearest_to_the_sink(arcs: list[tuple[int, int, int]]) -> None:
    network = Network()
    for _ in range(VERTICES - 2):
        network.vertex()
    for arc in arcs:
        network.connect(*arc)
    inner = range(2, VERTICES)
    sides = [{SINK, *chosen} for size in range(VERTICES - 1) for chosen in combinations(inner, size)]
    least = min(weight(arcs, side) for side in sides)
    if least >= UNLIMITED:
        return  # no cut at all
    found = network.sink_side()
    assert SOURCE not in found
    assert weight(arcs, found) == least
    assert all(found <= side for side in sides if weight(arcs, side) == least)
