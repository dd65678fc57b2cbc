"""What a recheck found: how each figure is known, and what disagrees."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elastic_nas.errors import ExportMismatch

RECOMPUTED, AGREES, CLAIMED = "recomputed here", "agrees with the file", "claimed"


@dataclass
class Findings:
    """What was found of a manifest's figures.

    Attributes:
        rows: By name: value, how it is known, and what must be said of it.
        faults: What disagrees or cannot be, both sides named.
    """

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def tell(self, name: str, value: Any, status: str, note: str = "") -> None:
        """Record a figure, unless it is known better already."""
        order = (CLAIMED, AGREES, RECOMPUTED)
        known = self.rows.get(name, {"status": CLAIMED, "note": ""})
        if order.index(status) >= order.index(known["status"]):
            row = {"value": value, "status": status, "note": note or known["note"]}
            self.rows[name] = row

    def hold(self, name: str, claimed: Any, found: Any, where: str) -> None:
        """Record a figure as recomputed, or as a fault."""
        if claimed == found:
            self.tell(name, claimed, RECOMPUTED)
        else:
            self.differ(name, claimed, f"{where} {short(found)}")

    def differ(self, name: str, claimed: Any, found: str) -> None:
        """Record that a figure disagrees with what was found."""
        self.faults.append(f"{name}: the manifest says {short(claimed)}, {found}")

    def settle(self, folder: Path) -> None:
        """Refuse the folder if anything disagrees.

        Raises:
            ExportMismatch: It does; the message names all of it.
        """
        if not self.faults:
            return
        raise ExportMismatch(
            f"{folder} is not verified. {'; '.join(self.faults)}. Do not rely on it: export again, "
            "or ask whoever gave it to you."
        )


def differing(claimed: Any, found: Any) -> str:
    """The parts in which two values differ, as the end of a sentence."""
    if not isinstance(claimed, dict) or not isinstance(found, dict):
        return f": the manifest says {short(claimed)}, the file's metadata {short(found)}"
    keys = [key for key in {**claimed, **found} if claimed.get(key) != found.get(key)]
    parts = [f"{k} {short(claimed.get(k))} and {short(found.get(k))}" for k in keys[:4]]
    return f": the manifest and the file's metadata say {', '.join(parts)}"


def short(value: Any) -> str:
    """A value in a message: of a long one the middle is left out."""
    text = f"{value:,}" if type(value) is int else str(value)
    return text if len(text) <= 120 else f"{text[:57]} ... {text[-57:]}"
