"""The command line: what people type, and what they are told.

`main` is its door. It hears signals before it imports anything that takes time, and whatever comes
out behind it ends in one message and a status.
"""


def main() -> None:
    """Run the command line, and exit.

    The status is 0, 1 (an error), 2 (wrong usage), 70 (a fault of this program) or 130
    (interrupted).
    """
    import atexit
    import os
    import sys

    from elastic_nas.cli import signals

    signals.end_at_once("interrupted.")
    atexit.register(signals.end_by_itself)  # what is registered first is called last
    # Python processes that this one starts do not look for modules in the current folder.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    sys.exit(_status())


def _status() -> int | str | None:
    """The exit status of the whole program."""
    from elastic_nas.cli import signals, streams

    try:
        streams.prepare()
        from elastic_nas.cli.app import app

        app()
        status: int | str | None = 0
    except SystemExit as end:
        status = end.code
    except KeyboardInterrupt:
        status = signals.INTERRUPTED
    except Exception as error:
        from elastic_nas.cli.faults import tell

        status = tell(error)
    signals.end_at_once()
    return status if streams.flush() else status or 1
