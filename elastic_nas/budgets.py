"""Budgets: upper limits with units, how people write them, and the costs that they limit."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import ceil, floor, isfinite, log10
from typing import TYPE_CHECKING

from elastic_nas.errors import ConfigError, InfeasibleBudget
from elastic_nas.genotype import Dims, smallest
from elastic_nas.strict import shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64] | NDArray[np.int64]
    Cost = Callable[[NDArray[np.int64]], Values]

Limit = str | float | None
"""A budget: text with a unit (``5ms``, ``2M``, ``4MB``), or a number in ms, ones or bytes."""

DURATIONS_MS = {"us": 1e-3, "\u03bcs": 1e-3, "ms": 1.0, "s": 1e3}
COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
SIZES = {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9}
MOST = 1e300
_AMOUNT = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([^\W\d_]*)", re.ASCII)


def parse_duration(text: str) -> float:
    """Milliseconds of a duration with its unit: ``5ms``, ``0.005s``, ``800us``.

    Raises:
        ConfigError: It is no positive finite number with one of these units.
    """
    return _parse(text, DURATIONS_MS, "a duration", "with a unit us, ms or s, such as 5ms")


def parse_count(text: str) -> float:
    """The number that ``2M``, ``1.5G``, ``250k`` or ``1200000`` says (B is the same as G).

    Raises:
        ConfigError: It is no positive finite number, alone or followed by k, M, G or B.
    """
    return _parse(text, COUNTS, "a count", "perhaps with k, M or G, such as 2M")


def parse_size(text: str) -> float:
    """Bytes of ``4MB``, ``500kB`` or ``4000000``; 1 MB is 1,000,000 bytes.

    Raises:
        ConfigError: It is no positive finite number, alone or followed by B, kB, MB or GB.
    """
    return _parse(text, SIZES, "a size", "perhaps with B, kB, MB or GB, such as 4MB")


def _parse(text: str, units: dict[str, float], what: str, form: str) -> float:
    match = _AMOUNT.fullmatch(text.strip().casefold().replace("\u03bcs", "us"))
    if match is None or match[2] not in units:
        raise ConfigError(f"{text!r} is not {what}: write a positive number {form}.")
    value = float(match[1]) * units[match[2]]
    if not (isfinite(value) and value > 0):
        raise ConfigError(f"{what} must be positive and finite, got {text!r}; write it {form}.")
    return value


def format_duration(ms: float) -> str:
    """Milliseconds to four digits, ``4.321 ms``; seconds from 1000 ms."""
    return f"{ms / 1e3:.4g} s" if ms >= 1e3 else f"{ms:.4g} ms"


def format_count(count: float) -> str:
    """A count to four digits, ``217.6 M``."""
    return _scaled(count, ((1e9, " G"), (1e6, " M"), (1e3, " k")), "")


def format_size(size_bytes: float) -> str:
    """A size to four digits, ``4.321 MB``; 1 MB is 1,000,000 bytes."""
    return _scaled(size_bytes, ((1e9, " GB"), (1e6, " MB"), (1e3, " kB")), " B")


def _scaled(value: float, units: tuple[tuple[float, str], ...], bare: str) -> str:
    for factor, name in units:
        if value >= factor:
            return f"{value / factor:.4g}{name}"
    return f"{value:.4g}{bare}"


@dataclass(frozen=True)
class Budgets:
    """Upper limits that a child must keep, all of them; None: no limit.

    Attributes:
        latency_ms: Milliseconds, held against the latency *bound*, not the prediction.
        params: Number of learned numbers.
        macs: Multiply-accumulates at batch 1.
        size_bytes: Bytes of the file in the device's precision.
        memory_bytes: Bytes of the activations that a child needs at one time.

    Raises:
        ConfigError: A limit is not positive and finite.
    """

    latency_ms: float | None = None
    params: float | None = None
    macs: float | None = None
    size_bytes: float | None = None
    memory_bytes: float | None = None

    def __post_init__(self) -> None:
        for name, limit in asdict(self).items():
            if limit is not None and not _is_limit(limit):
                raise ConfigError(
                    f"the budget {name} must be positive and finite, got {shown(limit)}."
                )

    def __str__(self) -> str:
        """``latency <= 5 ms, params <= 2 M``, or ``no budget``."""
        texts = (f"{kind.noun} <= {kind.show(limit)}" for kind, limit in self.limits())
        return ", ".join(texts) or "no budget"

    @staticmethod
    def of(
        latency: "Limit" = None,
        params: "Limit" = None,
        macs: "Limit" = None,
        size: "Limit" = None,
        memory: "Limit" = None,
    ) -> "Budgets":
        """Budgets from text with units, or from numbers in milliseconds, ones and bytes.

        Raises:
            ConfigError: A limit is not positive and finite, or its text cannot be read.
        """
        return Budgets(
            latency_ms=parse_duration(latency) if isinstance(latency, str) else latency,
            params=parse_count(params) if isinstance(params, str) else params,
            macs=parse_count(macs) if isinstance(macs, str) else macs,
            size_bytes=parse_size(size) if isinstance(size, str) else size,
            memory_bytes=parse_size(memory) if isinstance(memory, str) else memory,
        )

    def limits(self) -> "list[tuple[Limited, float]]":
        """The limits that are set, each with what it limits."""
        values = ((kind, getattr(self, kind.budget)) for kind in LIMITED)
        return [(kind, limit) for kind, limit in values if limit is not None]


def _is_limit(limit: object) -> bool:
    """Whether it is a number that can limit anything: no bool, NaN, infinity or 10**400."""
    number = isinstance(limit, int | float) and not isinstance(limit, bool)
    return number and 0 < limit < MOST  # type: ignore[operator]


@dataclass(frozen=True)
class Limited:
    """One quantity that can be limited: its names here and there, and its text form."""

    budget: str
    cost: str
    noun: str
    option: str
    show: Callable[[float], str]


LIMITED = (
    Limited("latency_ms", "bound_ms", "latency", "--latency", format_duration),
    Limited("params", "params", "parameters", "--params", format_count),
    Limited("macs", "macs", "multiply-accumulates", "--macs", format_count),
    Limited("size_bytes", "size_bytes", "size", "--size", format_size),
    Limited("memory_bytes", "memory_bytes", "peak memory", "--memory", format_size),
)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What children cost, counted or modelled: each maps genotypes (n, genes) to values (n,).

    Attributes:
        predicted_ms: Predicted latency on the device, milliseconds.
        bound_ms: Upper bound of the latency, milliseconds.
        params: Number of learned numbers.
        macs: Multiply-accumulates at batch 1.
        size_bytes: Bytes of the file in the device's precision.
        memory_bytes: Bytes of the activations that a child needs at one time, in that precision.
    """

    predicted_ms: "Cost"
    bound_ms: "Cost"
    params: "Cost"
    macs: "Cost"
    size_bytes: "Cost"
    memory_bytes: "Cost"

    def of(self, kind: Limited, genotypes: "NDArray[np.int64]") -> "Values":
        """The cost that `kind` limits, for genotypes (n, genes): (n,)."""
        cost: Cost = getattr(self, kind.cost)
        return cost(genotypes)


def violations(
    costs: Costs, budgets: Budgets, genotypes: "NDArray[np.int64]"
) -> "NDArray[np.float64]":
    """Summed relative overrun of all budgets, for genotypes (n, genes): (n,); 0 keeps them all."""
    import numpy as np

    total = np.zeros(len(genotypes))
    for kind, limit in budgets.limits():
        total += np.maximum(costs.of(kind, genotypes) / limit - 1, 0)
    return total


def check_feasible(dims: Dims, costs: Costs, budgets: Budgets) -> None:
    """Hold the smallest child against each budget.

    Raises:
        InfeasibleBudget: The smallest child breaks one.
    """
    import numpy as np

    genotypes = np.array([smallest(dims)])
    for kind, limit in budgets.limits():
        value = float(costs.of(kind, genotypes)[0])
        if value > limit:
            has = "is bounded at" if kind.cost == "bound_ms" else "has"
            raise InfeasibleBudget(
                f"no child keeps {kind.noun} <= {kind.show(limit)}: the smallest child {has} "
                f"{kind.show(value)}.\nRaise {kind.option} to {kind.show(_up(value))} or more, or "
                "choose a space with smaller children."
            )


def _up(value: float) -> float:
    """`value` rounded up to three digits, so that what a message advises is enough."""
    unit = 10.0 ** (floor(log10(value)) - 2)
    return ceil(value / unit) * unit
