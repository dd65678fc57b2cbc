"""Damages every kind of file that is read, for as long as you like: tools/fuzz.py --minutes 60.

Prints a table of what became of the cases. A case that went wrong is told with its number, and made
again by --only KIND --seed S --case N; its file is left in --keep.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))


def main() -> int:
    """Fuzz, and print what was found; 1 if anything was."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="in all")
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    parser.add_argument(
        "--only", action="append", help="kinds whose name holds this; may be repeated"
    )
    parser.add_argument("--case", type=int, help="this one alone")
    parser.add_argument("--keep", type=Path, help="where to leave files that went wrong")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    from fuzzing.runner import FAULTS, Counts, case_of, fuzz, grouped
    from fuzzing.seeds import make_seeds
    from fuzzing.targets import KINDS

    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-seeds-") as folder:
        seeds = make_seeds(Path(folder))
        makers = [
            m
            for m in KINDS
            if not given.only or any(w.replace(" ", "_") in m.__name__ for w in given.only)
        ]
        seconds = 60 * given.minutes
        head = f"{'kind':24}{'cases':>8}{'ms':>6}{'refused':>9}{'accepted':>9}{'same':>6}"
        print(head + "".join(f"{fault:>12}" for fault in FAULTS), flush=True)
        total = Counts()
        for kind in (make(seeds) for make in makers):
            numbers = range(10**7) if given.case is None else [given.case]
            until = time.monotonic() + seconds / len(makers)
            counts = fuzz(kind, given.seed, numbers, until, given.keep)
            _row(kind.name, counts, FAULTS)
            if given.case is not None and given.keep:
                (given.keep / "case").write_bytes(case_of(kind, given.seed, given.case)[0])
            for name in ("cases", "refused", "accepted", "unchanged"):
                setattr(total, name, getattr(total, name) + getattr(counts, name))
            total.findings += counts.findings
            total.seconds += counts.seconds
        _row(f"{len(makers)} kinds", total, FAULTS)
        print("\n".join(grouped(total.findings)))
    return 1 if total.findings else 0


def _row(name: str, counts: object, faults: tuple[str, ...]) -> None:
    ms = 1e3 * counts.seconds / max(counts.cases, 1)
    figures = f"{counts.cases:8}{ms:6.0f}{counts.refused:9}{counts.accepted:9}{counts.unchanged:6}"  # type: ignore[attr-defined]
    print(f"{name:24}{figures}" + "".join(f"{counts.count(f):12}" for f in faults), flush=True)  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
