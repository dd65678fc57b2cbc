"""The command `import-ofa`; `cli.py` registers it."""

from pathlib import Path
from typing import Annotated

import typer

from elastic_nas import texts


def import_ofa(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Such as ofa_mbv3_d234_e346_k357_w1.0.")
    ],
    data: Annotated[
        str, typer.Option(metavar="DIR", help="A folder of the checkpoint's class folders.")
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="The run folder to make.")],
) -> None:
    """Make a run of a published Once-for-All supernet (MobileNetV3), ready to be searched.

    The images calibrate, search and test its children. Nothing in FILE is executed.
    """
    from elastic_nas import import_ofa

    import_ofa.import_ofa(file, data, out)
    typer.echo(texts.after_training(out, "imported"))
