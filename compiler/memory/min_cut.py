"""A minimum cut of a network with capacities, by Dinic's algorithm.

E. A. Dinic, "Algorithm for solution of a problem of maximum flow in a network with power estimation", 1970.
"""

from __future__ import annotations

from collections import deque

SOURCE, SINK = 0, 1
UNLIMITED = 1 << 62


class Network:
    """Vertices are numbers from `vertex`; 0 is the source and 1 the sink. Arcs in pairs: i and i ^ 1 are opposite."""

    def __init__(self) -> None:
        self._arcs: list[list[int]] = [[], []]  # of each vertex
        self._heads: list[int] = []
        self._rest: list[int] = []  # capacity that the flow leaves

    def vertex(self) -> int:
        self._arcs.append([])
        return len(self._arcs) - 1

    def connect(self, tail: int, head: int, capacity: int = UNLIMITED) -> None:
        for start, end, rest in ((tail, head, capacity), (head, tail, 0)):
            self._arcs[start].append(len(self._heads))
            self._heads.append(end)
            self._rest.append(rest)

    def sink_side(self) -> set[int]:
        """The vertices behind the minimum cut that lies nearest to the sink."""
        while levels := self._levels():
            nexts = [0] * len(self._arcs)
            while self._augment(levels, nexts):
                pass
        side, queue = {SINK}, deque([SINK])
        while queue:
            for arc in self._arcs[queue.popleft()]:
                tail = self._heads[arc]
                if self._rest[arc ^ 1] and tail not in side:
                    side.add(tail)
                    queue.append(tail)
        return side

    def _levels(self) -> list[int]:
        """Distances from the source over arcs with capacity left; none where the sink is out of reach."""
        levels = [-1] * len(self._arcs)
        levels[SOURCE] = 0
        queue = deque([SOURCE])
        while queue:
            vertex = queue.popleft()
            for arc in self._arcs[vertex]:
                head = self._heads[arc]
                if self._rest[arc] and levels[head] < 0:
                    levels[head] = levels[vertex] + 1
                    queue.append(head)
        return levels if levels[SINK] >= 0 else []

    def _augment(self, levels: list[int], nexts: list[int]) -> bool:
        """Send flow along one shortest path; `nexts` remembers the arcs of each vertex that lead nowhere."""
        path: list[int] = []
        vertex = SOURCE
        while vertex != SINK:
            arcs = self._arcs[vertex]
            while nexts[vertex] < len(arcs):
                arc = arcs[nexts[vertex]]
                if self._rest[arc] and levels[self._heads[arc]] == levels[vertex] + 1:
                    path.append(arc)
                    vertex = self._heads[arc]
                    break
                nexts[vertex] += 1
            else:
                if not path:
                    return False
                vertex = self._heads[path.pop() ^ 1]
                nexts[vertex] += 1
        flow = min(self._rest[arc] for arc in path)
        for arc in path:
            self._rest[arc] -= flow
            self._rest[arc ^ 1] += flow
        return True
