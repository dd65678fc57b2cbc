"""The command line: what people type, and what they are told."""


def main() -> None:
    """Run the command line; exits with 0, 1 (an error), 2 (wrong usage) or 130 (interrupted)."""
    from elastic_nas.cli.app import app

    app()
