"""Which points are measured how often, in a full run and in a quick one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.serving.target import Variant
from benchmarks.serving.workload import Point, Sizes

MIXED, ONE, BASE_ONLY, MANY = (Point(mix, 32) for mix in ("mixed", "one", "base", "many"))
DRAWN = Point("mixed", 32, drawn=True)
BARS = (MIXED, ONE, BASE_ONLY)  # what most bars are about
FEWER = tuple(Point(mix, concurrency) for concurrency in (8, 1) for mix in ("base", "one", "mixed"))
REQUESTS_A_PLACE = 16  # at concurrency 1, 64 requests would take minutes on every server and show nothing new


@dataclass(frozen=True, slots=True)
class Plan:
    """``once``: points measured in the first round only."""

    sizes: Sizes
    points: tuple[Point, ...]
    once: tuple[Point, ...]
    rounds: int
    dtypes: tuple[str, ...] | None  # None: all, and the fastest of an engine's variants is found first
    serial_requests: int  # one after another takes minutes, and more of them show nothing new
    peer_points: tuple[Point, ...] | None = None  # None: all

    def rounds_of_points(self) -> Iterator[tuple[int, Point]]:
        """Round by round, so that a neighbour who comes and goes disturbs all alike."""
        for turn in range(self.rounds):
            for point in (*self.points, *(self.once if turn == 0 else ())):
                yield turn, point

    def only(self, names: Sequence[str]) -> Plan:
        """The plan with these of its points. Raises ValueError for a point it does not have."""
        known = {point.name for point in (*self.points, *self.once)}
        if unknown := set(names) - known:
            raise ValueError(f"no such points: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
        points, once = (tuple(point for point in some if point.name in names) for some in (self.points, self.once))
        return replace(self, points=points, once=once)

    def sizes_at(self, point: Point, *, serial: bool = False) -> Sizes:
        """What is asked at a point; ``serial``: of something that answers one request at a time."""
        most = self.serial_requests if serial else REQUESTS_A_PLACE * point.concurrency
        return replace(self.sizes, requests=min(self.sizes.requests, most))

    def is_asked(self, point: Point, *, peer: bool) -> bool:
        """Whether a point is measured on the service's peers too."""
        return not peer or self.peer_points is None or point in self.peer_points

    def is_tried(self, variant: Variant) -> bool:
        """Whether a variant takes part."""
        return self.dtypes is None or (variant.dtype in self.dtypes and not variant.note)


FULL = Plan(Sizes(), points=BARS, once=(DRAWN, MANY, *FEWER), rounds=3, dtypes=None, serial_requests=16)
QUICK = Plan(
    Sizes(requests=32, new_tokens=32),
    points=(MIXED, BASE_ONLY),
    once=(ONE,),
    rounds=1,
    dtypes=("float32",),
    serial_requests=4,
    peer_points=(MIXED, BASE_ONLY),
)
