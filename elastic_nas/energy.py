"""Energy counters where the platform has them; nothing is estimated where it has none.

A counter tells what the whole processor or graphics card took, whoever used it: power at rest is
in every figure and is not subtracted.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class EnergyCounter:
    """A counter of energy that only grows.

    Attributes:
        joules: What it stands at; `OSError` or `ValueError` where it can no longer be read.
        rule: What is counted, for the record.
    """

    joules: Callable[[], float]
    rule: str


def counter(root: Path = POWERCAP, *, gpu: bool = False) -> EnergyCounter | None:
    """This machine's counter; None where there is none, or no right to read it.

    Args:
        root: Where Linux lists the processor's counters (RAPL); most systems let only the
            administrator read them. See https://docs.kernel.org/power/powercap/powercap.html.
        gpu: Count what an NVIDIA graphics card took instead, the first that CUDA may use; needs
            the package nvidia-ml-py.
    """
    return _graphics_card() if gpu else _processor(root)


def millijoules_a_run(
    run: Callable[[], object], counter: EnergyCounter, seconds: float = 0.5
) -> float | None:
    """What one run of a function takes, power at rest included.

    Counters move in steps, of a millisecond (RAPL) or a tenth of a second (NVML). So the function
    is repeated from one step, for `seconds` or more, to another.

    Args:
        run: The function, warmed up.
        counter: Of what runs it.
        seconds: Least length of the measurement.

    Returns:
        Millijoules; None where the counter stood still or could not be read.
    """
    try:
        first = _run_to_step(run, counter, seconds)
        runs, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            run()
            runs += 1
        last = _run_to_step(run, counter, seconds)
    except (OSError, ValueError):
        return None
    if first is None or last is None:
        return None
    return 1e3 * (last[1] - first[1]) / (runs + last[0])


def _run_to_step(
    run: Callable[[], object], counter: EnergyCounter, patience_s: float
) -> tuple[int, float] | None:
    """Runs until the counter moved, and what it then stood at; None where it stood still."""
    before, runs, end = counter.joules(), 0, time.monotonic() + patience_s
    while time.monotonic() < end:
        run()
        runs += 1
        now = counter.joules()
        if now != before:
            return runs, now
    return None


@dataclass
class _Package:
    """One processor's counter in microjoules, which starts again at 0 when it is full."""

    file: Path
    full_uj: int
    last_uj: int
    total_uj: int = field(default=0)

    def joules(self) -> float:
        """Joules since this object was made; read it more often than the counter fills up."""
        now_uj = _number(self.file)
        passed = now_uj - self.last_uj
        self.total_uj += passed if passed >= 0 else passed + self.full_uj
        self.last_uj = now_uj
        return self.total_uj / 1e6


def _processor(root: Path) -> EnergyCounter | None:
    """All processors together; their parts and the whole platform (psys) would count twice."""
    try:
        packages = [
            _Package(
                folder / "energy_uj",
                _number(folder / "max_energy_range_uj"),
                _number(folder / "energy_uj"),
            )
            for folder in sorted(root.glob("intel-rapl:*"))
            if (folder / "name").read_text(encoding="ascii").startswith("package")
        ]
    except (OSError, ValueError):
        return None
    if not packages:
        return None
    return EnergyCounter(
        joules=lambda: sum(package.joules() for package in packages),
        rule=f"RAPL, {len(packages)} processor package(s), power at rest included",
    )


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))


def _graphics_card() -> EnergyCounter | None:
    try:
        nvml = import_module("pynvml")
        nvml.nvmlInit()
        card = _first_card(nvml)
        nvml.nvmlDeviceGetTotalEnergyConsumption(card)
    except Exception:  # no package, no driver, no card, or one without a counter
        return None

    def joules() -> float:
        try:
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(card)) / 1e3
        except nvml.NVMLError as error:
            raise OSError(f"the graphics card's counter cannot be read: {error}") from error

    return EnergyCounter(joules, "NVML, one graphics card, power at rest included")


def _first_card(nvml: Any) -> Any:
    """The card that CUDA calls 0."""
    name = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if name.isdigit():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    return nvml.nvmlDeviceGetHandleByUUID(name)
