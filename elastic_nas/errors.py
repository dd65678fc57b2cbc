"""Everything this package raises on purpose.

ElasticNasError
├── ConfigError            a run file, an option or a budget says something we cannot do
├── UnknownName            no space, device, strategy, task, folder or run of that name
├── UntrustedCode          a file that this user did not name would run a Python file
├── GenotypeError          a genotype of the wrong length, out of range, or unreadable
├── DataError              images that cannot be read, split or learned from
│   └── DamagedImage       one image that cannot be read
├── TableError             a latency table that cannot be trusted
│   └── MissingEntries     the table lacks blocks of this child
├── InfeasibleBudget       no child of the space meets the budget
├── MeasurementRefused     the machine is too busy for an honest figure
│   └── SpeedMoved         its speed is too far from that of the figures to stand beside
├── MissingExtra           a runtime whose package is not installed
├── TrainingDiverged       the loss is no number any more
├── CheckpointError        a checkpoint that is damaged, foreign or unsafe
│   └── DamagedCheckpoint  nothing of it can be used; an earlier one may be sound
├── RunFolderError         a run folder that is locked, incomplete or not writable
└── ExportMismatch         the exported file does not compute what the child computes
"""

from collections.abc import Sequence

MOST_CHARACTERS = 2000
"""Of a message: what a person reads, whatever names and contents it quotes."""


def printable(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text that any terminal shows as it stands: no control characters, not too long.

    Names and contents of files from outside are quoted in messages; escape sequences among them
    could move the cursor, and halves of characters end a program that prints them. Newlines stay.

    Args:
        text: Any text.
        most: Characters; of a longer one the middle is left out.
    """
    if len(text) > most:
        half = (most - 5) // 2
        text = f"{text[:half]} ... {text[-half:]}"
    if text.isprintable():
        return text
    shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    return shown if len(shown) <= most else f"{shown[: most - 4]} ..."


class ElasticNasError(Exception):
    """Base of all errors that a user can cause; the message says what to do, and is printable."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(ElasticNasError):
    """A run file, an option or a budget says something we cannot do."""


class UnknownName(ElasticNasError):
    """No space, device, strategy, task, folder or run of that name."""


class UntrustedCode(ElasticNasError):
    """A file that this user did not name, such as somebody's run, would run a Python file."""


class GenotypeError(ElasticNasError):
    """A genotype of the wrong length, out of range, or unreadable."""


class DataError(ElasticNasError):
    """Images that cannot be read, split or learned from."""


class DamagedImage(DataError):
    """One image that cannot be read; others beside it may be sound.

    Args:
        name: What it is called in messages.
        reason: Why it cannot be read.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot read the image {name!r}: {reason}. Delete or replace it.")
        self.told = f"{name!r}: {reason}"


class TableError(ElasticNasError):
    """A latency table that cannot be trusted."""


class MissingEntries(TableError):
    """The latency table lacks blocks of this child."""


class InfeasibleBudget(ElasticNasError):
    """No child of the space meets the budget."""


class MeasurementRefused(ElasticNasError):
    """The machine is too busy for an honest figure."""


class MissingExtra(ElasticNasError):
    """A runtime whose package is not installed; the message names the extra that brings it."""


class SpeedMoved(MeasurementRefused):
    """The machine's speed is too far from that of the figures that new ones would stand beside."""


class CheckpointError(ElasticNasError):
    """A checkpoint that is damaged, foreign or unsafe."""


class DamagedCheckpoint(CheckpointError):
    """Nothing of a checkpoint can be used; an earlier one may be sound.

    Args:
        finding: What is wrong with which file.
        advice: What to do where there is no other.
    """

    def __init__(self, finding: str, advice: str) -> None:
        super().__init__(f"{finding} {advice}")
        self.finding = finding


class RunFolderError(ElasticNasError):
    """A run folder that is locked, incomplete or not writable."""


class ExportMismatch(ElasticNasError):
    """The exported file does not compute what the child computes."""


class TrainingDiverged(ElasticNasError):
    """The loss is no number any more."""


def some(names: Sequence[str], most: int = 3) -> str:
    """``'a', 'b', 'c', and 4 more``: the first names, then how many more there are."""
    more = [f"and {len(names) - most:,} more"] if len(names) > most else []
    return ", ".join([*map(repr, names[:most]), *more])
