"""What is assumed of a machine on which no job has ended yet: speeds by the base's size and the kind of device.

A cold guess: a processor's speeds are near those in docs/performance.md and docs/results.md, a graphics processor's
were measured nowhere. The first job's own take their place.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.core.cores import num_cores
from app.core.records import BaseInfo
from app.services.admission import assumed_bytes
from app.services.work import ANSWERED, COMPARED, STAGES, TRAINED, Sort, Work, written_cost

FACTOR = 4.0  # up and down
_CORE_FLOPS = 60e9  # of a processor's core that reads and writes, a second
_CORE_LEARNING_FLOPS = 190e9  # that learns: larger products
_DEVICE_FLOPS = 20e12  # of a graphics processor
_COMPARISONS = 5000.0  # a second
_STAGE_SECONDS = 0.2
_START_SECONDS, _LOADED_BYTES = 8.0, 500e6  # of a process; of weights a second
_FILE_BYTES = 2  # of a parameter


@dataclass(frozen=True, slots=True)
class Assumed:
    """The base on this machine."""

    base: BaseInfo

    @property
    def text(self) -> str:
        """What is assumed, for people."""
        where = "a graphics processor" if self._device == "cuda" else f"{num_cores()} cores"
        return (
            f"where no such stage has ended yet, speeds follow from {self.base.num_parameters:,} parameters on {where} "
            f"and may be off {FACTOR:g} times up or down; the first job's own take their place"
        )

    def seconds(self, sort: Sort, work: Work) -> float:
        """Of one stage."""
        if sort.unit == STAGES:
            return _STAGE_SECONDS
        if sort.unit == COMPARED:
            return _STAGE_SECONDS + work.compared / _COMPARISONS
        if sort.unit == TRAINED:
            return _STAGE_SECONDS + 4 * self.base.num_parameters * work.trained / self._flops(_CORE_LEARNING_FLOPS)
        read = work.read + written_cost(self.base) * work.written
        twice = 2 if sort.unit == ANSWERED else 1  # answers are scored, too
        return _STAGE_SECONDS + twice * 2 * self.base.num_parameters * read / self._flops(_CORE_FLOPS)

    @property
    def start_seconds(self) -> float:
        return _START_SECONDS + self._weight_bytes / _LOADED_BYTES

    @property
    def peak_bytes(self) -> int:
        """Of the device on CUDA, else of the process: what a worker assumes before it takes the job."""
        return assumed_bytes(round(self._weight_bytes), device=self._device)

    @property
    def _device(self) -> str:
        return self.base.device.partition(":")[0]

    @property
    def _weight_bytes(self) -> float:
        return _FILE_BYTES * self.base.num_parameters

    def _flops(self, a_core: float) -> float:
        return _DEVICE_FLOPS if self._device == "cuda" else a_core * num_cores()
