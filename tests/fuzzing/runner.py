"""Tries damaged files in processes of their own, with limits of time and memory, and counts.

A case is known by seed, kind and number: the same three give the same file again.
"""

import contextlib
import faulthandler
import json
import os
import re
import resource
import select
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from fuzzing.kinds import ALLOWED, Kind, check_text

CPU_S = 10.0
"""Of computing, after which a case counts as hanging, however busy the machine is."""
WAIT_S = 60.0
"""In all, as of a reader that waits for what never comes."""
MEMORY_BYTES = 1 << 30
"""Of address space that a process may take beyond what it has when it begins."""
RESIDENT_BYTES = 512 << 20
"""Of memory that one case may really take."""
BATCH = 100
"""Cases of one process."""
FAULTS = ("traceback", "hang", "death", "memory", "acceptance", "rejection")
"""The last is of a valid file."""
VALID = -1
"""The number of the case that is not damaged."""


class HangError(BaseException):
    """A case took too long; no reader may catch it."""


@dataclass(frozen=True)
class Finding:
    """A case that went wrong."""

    kind: str
    fault: str
    number: int
    done: str
    said: str


@dataclass
class Counts:
    """What became of the cases of one kind."""

    cases: int = 0
    refused: int = 0
    accepted: int = 0
    unchanged: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def count(self, fault: str) -> int:
        """Findings of a fault."""
        return Counter(finding.fault for finding in self.findings)[fault]


def grouped(findings: Iterable[Finding]) -> list[str]:
    """Findings as text, those that say the same in one line."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for f in findings:
        groups.setdefault((f.kind, f.fault, re.sub(r"[0-9]+", "0", f.said[-160:])), []).append(f)
    return [
        f"{len(group):5} x {f.kind}: {f.fault} (case {f.number}: {f.done[:160]})\n        {f.said}"
        for group in groups.values()
        for f in group[:1]
    ]


def case_of(kind: Kind, seed: int, number: int) -> tuple[bytes, str, bool]:
    """The damaged file of a case, what was done to it, and whether it is sealed."""
    if number == VALID:
        return kind.content, "nothing", False
    return kind.damaged(Random(f"{seed} {kind.name} {number}"))


def fuzz(kind: Kind, seed: int, numbers: Iterable[int], until: float, keep: Path | None) -> Counts:
    """Try cases of a kind.

    Args:
        kind: What is damaged.
        seed: Of the damage.
        numbers: Of the cases; the valid file comes before them.
        until: When to stop, by `time.monotonic`.
        keep: Where to leave the files that went wrong.
    """
    counts, waiting = Counts(), [VALID, *numbers]
    started = time.monotonic()
    while waiting and time.monotonic() < until:
        batch, waiting = waiting[:BATCH], waiting[BATCH:]
        done = _tried(kind, seed, batch, until, counts)
        waiting = [*batch[done:], *waiting] if time.monotonic() < until else []
    counts.seconds = time.monotonic() - started
    for finding in counts.findings if keep else ():
        content, _, _ = case_of(kind, seed, finding.number)
        path = Path(keep) / f"{kind.name.replace(' ', '_')}-{finding.fault}-{finding.number}"
        path.write_bytes(content)
    return counts


def _tried(kind: Kind, seed: int, numbers: list[int], until: float, counts: Counts) -> int:
    """Try cases in one process of their own; returns how many ended."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that the parent has
        child = os.fork()
    if child == 0:
        os.close(reading)
        _work(kind, seed, numbers, until, writing)
    os.close(writing)
    ended, left = 0, b""
    try:
        while True:
            ready, _, _ = select.select([reading], [], [], 2 * WAIT_S)
            part = os.read(reading, 1 << 16) if ready else b""
            *lines, left = (left + part).split(b"\n")
            for line in lines:
                _count(kind, json.loads(line), counts)
                ended += 1
            if not part:
                break
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    finished = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
    if not finished and ended < len(numbers):
        what = "hang" if not ready else "death"
        _, done, _ = case_of(kind, seed, numbers[ended])
        _count(kind, [numbers[ended], what, done, f"status {status}"], counts)
        ended += 1
    return ended


def _count(kind: Kind, line: list[Any], counts: Counts) -> None:
    number, outcome, done, said = line
    counts.cases += 1
    if outcome in FAULTS:
        counts.findings.append(Finding(kind.name, outcome, number, done, said))
    else:
        setattr(counts, outcome, getattr(counts, outcome) + 1)


def _work(kind: Kind, seed: int, numbers: list[int], until: float, writing: int) -> None:
    """In the child: try the cases, and tell what became of each in one line."""
    status = 1
    try:
        faulthandler.disable()  # what pytest installs tells of deaths that are meant to be counted
        _limit_memory()
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        signal.signal(signal.SIGALRM, _hangs)
        signal.signal(signal.SIGPROF, _hangs)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            os.environ["ELASTIC_NAS_HOME"] = f"{folder}/home"
            os.chdir(folder)
            for number in numbers:
                if time.monotonic() > until:
                    break
                content, done, sealed = case_of(kind, seed, number)
                same = number != VALID and content == kind.content
                outcome, said = "unchanged", ""
                if not same:
                    outcome, said = attempt(kind, content, sealed, Path(folder))
                if number == VALID and outcome == "refused":
                    outcome = "rejection"
                line = json.dumps([number, outcome, done, said]) + "\n"
                os.write(writing, line.encode())
        status = 0
    finally:
        os._exit(status)


def _limit_memory() -> None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _hangs(*_: object) -> None:
    raise HangError


def attempt(kind: Kind, content: bytes, sealed: bool, folder: Path) -> tuple[str, str]:
    """Read one content; what became of it, and what there is to say about that."""
    _limit_time(CPU_S, WAIT_S)
    before = _memory("VmRSS", reset=True)
    try:
        result = kind.read(content, folder)
    except ALLOWED as error:
        taken = _memory("VmHWM") - before
        return ("memory", f"{taken >> 20} MB") if taken > RESIDENT_BYTES else _refused(error)
    except HangError:
        return "hang", _where(limit=40)
    except MemoryError:
        return "memory", _where()
    except BaseException:
        return "traceback", _where()
    finally:
        _limit_time(0, 0)
    if (taken := _memory("VmHWM") - before) > RESIDENT_BYTES:
        return "memory", f"{taken >> 20} MB"
    try:
        wrong = kind.judge(content, result, sealed)
    except Exception:
        wrong = f"cannot be judged: {_where()}"
    return ("acceptance", wrong[:500]) if wrong else ("accepted", "")


def _limit_time(computing: float, waiting: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, computing)
    signal.setitimer(signal.ITIMER_REAL, waiting)


def _memory(line: str, *, reset: bool = False) -> int:
    """Bytes of memory of this process, or the most it had since the last reset; 0 where untold."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        return 1024 * int(Path("/proc/self/status").read_text().split(f"{line}:")[1].split()[0])
    return 0


def _refused(error: BaseException) -> tuple[str, str]:
    try:
        check_text(str(error))
    except AssertionError as wrong:
        return "traceback", f"message: {wrong}: {str(error)[:200]!r}"
    return "refused", str(error)[:300]


def _where(limit: int = 3) -> str:
    """The last calls and the error, in one line."""
    lines = traceback.format_exc().strip().splitlines()
    calls = [line.strip() for line in lines if line.startswith("  File")]
    short = [call.rpartition("/")[2].replace('"', "") for call in calls[-limit:]]
    return f"{lines[-1][:200]} | {' < '.join(reversed(short))}"[:600]
