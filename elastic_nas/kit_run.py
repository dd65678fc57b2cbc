"""Times the models of a kit on the machine it lies on: ``python run.py``.

A kit carries this file as ``run.py``, with the package's stop-watch beside it. It needs numpy,
onnxruntime and Python 3.8, keeps what it has after every round, and uploads nothing.
"""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED, UNEXPECTED = 130, 70


def stop(*_: object) -> None:
    """End at once, with one line: what was measured is kept after every round.

    Nothing is to be undone, and libraries that are being imported or run cannot swallow this.
    """
    os.write(2, b"stopped; the same command goes on from here.\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)

try:
    import argparse
    import math
    import tempfile
    import traceback

    from elastic_nas.kit_check import PLAN_SCHEMA, problem_of_plan
    from elastic_nas.kit_device import alone, libraries
    from elastic_nas.kit_files import KitError, check_file, inside, read_json
    from elastic_nas.kit_measuring import Measuring, OutOfTimeError, say, summary
except ImportError as reason:
    sys.exit(f"error: this machine cannot be timed ({reason}): run.py needs Linux or macOS.")
except (SyntaxError, ValueError) as reason:
    sys.exit(f"error: the kit is damaged ({reason}): unpack it again. It needs Python 3.8.")

HERE = os.path.dirname(os.path.abspath(__file__))
AGAIN = "unpack the kit again"


def run(seconds: float, out: str) -> None:
    """Measure the kit in this file's folder.

    Raises:
        KitError: It cannot be measured here.
        OutOfTimeError: It is not finished; what was measured is kept.
    """
    path = os.path.join(HERE, "plan.json")
    plan = read_json(path, PLAN_SCHEMA, AGAIN)
    problem = problem_of_plan(plan)
    if problem:
        raise KitError(f"{path} is damaged, {problem}: {AGAIN}.")
    versions = libraries(plan["needs"])
    with alone():
        for name, sha256 in plan["files"].items():
            check_file(inside(HERE, name), sha256)
        measuring = Measuring(plan, HERE, out, seconds)
        measuring.start(versions)
        say(f"{measuring.left()} visits to models to go; stop at any time, it goes on from there")
        try:
            measuring.measure_all()
        except OutOfTimeError as error:
            few = "" if measuring.done else ", too few for one round"
            left = f"{measuring.left()} visits to models are left. The same command goes on."
            raise OutOfTimeError(f"{error}{few}; {left}") from error
        measuring.save()
        print(summary(measuring), flush=True)


def seconds_of(text: str) -> float:
    """The number of seconds that a text spells.

    Raises:
        argparse.ArgumentTypeError: It is no number of 0 or more.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number of seconds, such as 600")
    return seconds


def main() -> int:
    """Parse the command, and say what went wrong in one line."""
    parser = argparse.ArgumentParser(description="Time this kit's models on this machine.")
    parser.add_argument(
        "--max-seconds", type=seconds_of, default=math.inf, help="stop after so long"
    )
    parser.add_argument("--out", default="result.json", help="where the result is kept")
    arguments = parser.parse_args()
    try:
        run(arguments.max_seconds, arguments.out)
    except OutOfTimeError as error:
        say(str(error))
    except (KitError, OSError) as error:
        say(f"error: {error}")
        return 1
    except Exception as error:  # a defect of the kit's, or a machine nobody thought of
        say(unexpected(error))
        return UNEXPECTED
    return 0


def unexpected(error: Exception) -> str:
    """What to say of an error that nobody thought of; its traceback is left in a file."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    what = f"error: {type(error).__name__}, which this kit does not expect"
    for folder in (HERE, os.getcwd(), tempfile.gettempdir()):
        path = os.path.join(folder, "run-error.txt")
        try:
            with open(path, "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except OSError:
            continue
        return f"{what}: send {path} to whoever made the kit. What was measured is kept."
    return f"{what}, and no file can be written that tells more. What was measured is kept."


if __name__ == "__main__":
    sys.exit(main())
