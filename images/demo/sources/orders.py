"""What happens in the shop, as pure functions: every order follows from the seed and its own number.

Times are simulated and whole seconds. An order is placed every twelve simulated minutes and takes hours to
days to arrive; how fast that passes in reality is not decided here.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

START = datetime(2024, 1, 1, tzinfo=UTC)
"""When the simulated shop opens."""

GAP_S = 720
"""Simulated seconds from one order to the next, on average."""

CUSTOMERS = 1500
"""Customers have the numbers of those in TPC-H of scale 0.01, 1 to 1500."""

STATUSES = ("NEW", "INTRANSIT", "DELIVERED")
"""What an order goes through."""


class Branch(NamedTuple):
    """A branch; its parcels are on the way for ``hours`` on average, and ``share`` of all orders are its."""

    branch_id: int
    name: str
    city: str
    region: str
    hours: int
    share: int


BRANCHES = (
    Branch(1, "Harbour", "Hamburg", "North", 18, 14),
    Branch(2, "Old Town", "Bremen", "North", 22, 6),
    Branch(3, "Fjord", "Kiel", "North", 30, 4),
    Branch(4, "Museum Island", "Berlin", "East", 16, 16),
    Branch(5, "Market", "Leipzig", "East", 24, 7),
    Branch(6, "Riverside", "Dresden", "East", 28, 6),
    Branch(7, "Cathedral", "Cologne", "West", 17, 12),
    Branch(8, "Coal Yard", "Essen", "West", 21, 8),
    Branch(9, "Bankside", "Frankfurt", "West", 15, 10),
    Branch(10, "Alpine", "Munich", "South", 20, 11),
    Branch(11, "Vineyard", "Stuttgart", "South", 26, 5),
    Branch(12, "Lakeside", "Constance", "South", 40, 1),
)
_SHARES = [sum(branch.share for branch in BRANCHES[: n + 1]) for n in range(len(BRANCHES))]


class Order(NamedTuple):
    """An order with all its future; ``times`` are those of :data:`STATUSES`."""

    order_id: int
    branch_id: int
    customer_id: int
    amount: Decimal
    times: tuple[datetime, datetime, datetime]


def order(seed: int, number: int) -> Order:
    """Order ``number``, 1 or more, of the shop with this seed."""
    # Seeded by text Python's generator is the same on every machine, and random() in every version. Nothing
    # but products of its results follows: no function whose last digit is a library's affair.
    chance = random.Random(f"{seed}/{number}").random  # noqa: S311 - it is a simulation
    placed = START + timedelta(seconds=(number - 1) * GAP_S + int(chance() * GAP_S))
    branch = BRANCHES[bisect_right(_SHARES, int(chance() * _SHARES[-1]))]
    customer = 1 + int(chance() * CUSTOMERS)
    part = chance()
    cents = 499 + int(50_000 * part * part * part)
    sent = placed + timedelta(seconds=3600 + int(chance() * 11 * 3600))
    arrived = sent + timedelta(seconds=int(branch.hours * 3600 * (0.5 + chance())))
    return Order(number, branch.branch_id, customer, Decimal(cents) / 100, (placed, sent, arrived))


class Change(NamedTuple):
    """An order reaches a status: ``stage`` is its place in :data:`STATUSES`. Changes sort as they happen."""

    at: datetime
    order_id: int
    stage: int

    @property
    def status(self) -> str:
        """Its name."""
        return STATUSES[self.stage]


@dataclass(frozen=True)
class Era:
    """From which order on a seed counts."""

    first_order: int
    seed: int


class Course:
    """All changes from some point on, in their order.

    The point is given by what is known of the past: the ``open_orders`` with their stages, and the number of
    the next order. So the course goes on the same after any interruption. No order comes after ``last``.
    """

    def __init__(
        self, eras: Sequence[Era], next_order: int, last: int, open_orders: Iterable[tuple[int, int]] = ()
    ) -> None:
        self._eras = sorted(eras, key=lambda era: era.first_order)
        self._last = last
        self.next_order = next_order
        self._coming = [self._change(number, stage + 1) for number, stage in open_orders]
        if next_order <= last:
            self._coming.append(self._change(next_order, 0))
        heapq.heapify(self._coming)

    def order(self, number: int) -> Order:
        """Order ``number``, by the seed that counts for it."""
        place = bisect_right(self._eras, number, key=lambda era: era.first_order) - 1
        return order(self._eras[place].seed, number)

    def next_at(self) -> datetime | None:
        """When the next change happens; None when none does any more."""
        return self._coming[0].at if self._coming else None

    def take(self, until: datetime, most: int) -> list[Change]:
        """The next changes up to a time, no more than ``most``; they are past then."""
        taken: list[Change] = []
        while self._coming and self._coming[0].at <= until and len(taken) < most:
            change = heapq.heappop(self._coming)
            taken.append(change)
            if change.stage == 0:
                self.next_order = change.order_id + 1
                if self.next_order <= self._last:
                    heapq.heappush(self._coming, self._change(self.next_order, 0))
            if change.stage + 1 < len(STATUSES):
                heapq.heappush(self._coming, self._change(change.order_id, change.stage + 1))
        return taken

    def _change(self, number: int, stage: int) -> Change:
        return Change(self.order(number).times[stage], number, stage)
