"""What waits for the model: rows of many clients, taken in turn, a pass at a time."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

_serial = count()


@dataclass(eq=False)
class Waiting:
    """Rows of one request.

    Attributes:
        client: whose they are; clients take turns.
        group: rows of one group can share a pass.
        costs: positions that each row takes.
        about: what the caller keeps with it.
        next: the first row that no pass has taken.
        left: rows that are not answered yet.
    """

    client: str
    group: Hashable
    costs: Sequence[int]
    about: Any = None
    next: int = 0
    left: int = field(init=False)
    serial: int = field(default_factory=lambda: next(_serial))

    def __post_init__(self) -> None:
        self.left = len(self.costs)

    @property
    def waiting(self) -> int:
        """Rows that no pass has taken."""
        return len(self.costs) - self.next


Rows = list[tuple[Waiting, range]]  # rows of a pass


class FairQueue:
    """A bounded queue in which clients take turns, by positions and not by requests.

    A pass is of one group: that of the oldest rows of the client whose turn it is. The other clients' rows of this
    group come along, each client's share alike.

    Args:
        most_rows: rows that may wait. Where several clients wait, each may have its share of this even if others had
            filled the queue before.
        quantum: positions that a client may put into a pass before it is the next one's turn.
    """

    def __init__(self, most_rows: int, quantum: int = 512) -> None:
        self.most_rows, self.quantum = most_rows, quantum
        self.rows = self.positions = 0
        self._clients: OrderedDict[str, dict[Hashable, deque[Waiting]]] = OrderedDict()
        self._held: dict[str, int] = {}

    def has_room(self, client: str, rows: int) -> bool:
        """Whether so many more rows of a client may wait."""
        if self.rows + rows <= self.most_rows:
            return True
        share = self.most_rows // len({*self._held, client})
        return self._held.get(client, 0) + rows <= share

    def add(self, work: Waiting) -> None:
        """Let rows wait; the caller has asked `has_room`."""
        self._clients.setdefault(work.client, {}).setdefault(work.group, deque()).append(work)
        self._held[work.client] = self._held.get(work.client, 0) + work.waiting
        self.rows += work.waiting
        self.positions += sum(work.costs[work.next :])

    def drop(self, work: Waiting) -> None:
        """Take rows out that nobody waits for any longer; those of a pass that runs are not here."""
        queue = self._clients.get(work.client, {}).get(work.group)
        if queue is not None and work in queue:
            queue.remove(work)
            self._took(work, work.next, len(work.costs))
            work.next = len(work.costs)
            self._tidy(work.client, work.group)

    @property
    def lead(self) -> Hashable | None:
        """The group of the next pass; None where no rows wait."""
        if not self._clients:
            return None
        groups = next(iter(self._clients.values()))
        return min(groups, key=lambda one: groups[one][0].serial)

    def take(self, budget: int) -> Rows:
        """Rows of the next pass, of `budget` positions at most (at least one row); none where none wait."""
        if not self._clients:
            return []
        lead, group = next(iter(self._clients)), self.lead
        assert group is not None
        taken: dict[Waiting, range] = {}
        turns = deque(client for client, own in self._clients.items() if group in own)
        while turns and budget > 0:
            client = turns.popleft()
            spent = self._quantum(client, group, min(self.quantum, budget), taken, first=not taken)
            budget -= spent
            if spent and group in self._clients.get(client, {}):
                turns.append(client)
        if lead in self._clients:
            self._clients.move_to_end(lead)
        return list(taken.items())

    def _quantum(self, client: str, group: Hashable, most: int, taken: dict[Waiting, range], *, first: bool) -> int:
        """Take a client's next rows of a group, of so many positions at most; how many they are."""
        spent, queue = 0, self._clients[client][group]
        while queue and (spent < most or first):
            work = queue[0]
            begin = work.next
            for cost in work.costs[begin:]:
                if spent + cost > most and not first:
                    break
                spent, first = spent + cost, False
                work.next += 1
            if work.next > begin:
                taken[work] = range(taken[work].start if work in taken else begin, work.next)
                self._took(work, begin, work.next)
            if work.waiting:
                break
            queue.popleft()
        self._tidy(client, group)
        return spent

    def _took(self, work: Waiting, begin: int, end: int) -> None:
        self.rows -= end - begin
        self.positions -= sum(work.costs[begin:end])
        self._held[work.client] -= end - begin

    def _tidy(self, client: str, group: Hashable) -> None:
        groups = self._clients[client]
        if not groups[group]:
            del groups[group]
        if not groups:
            del self._clients[client], self._held[client]

    def __iter__(self) -> Iterator[Waiting]:
        for groups in self._clients.values():
            for queue in groups.values():
                yield from queue
