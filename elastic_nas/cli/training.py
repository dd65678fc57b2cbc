"""Commands that make a run; `app.py` registers them."""

from pathlib import Path
from typing import Annotated

import typer

from elastic_nas import facts
from elastic_nas.cli import texts
from elastic_nas.cli.options import (
    Data,
    Epochs,
    Minutes,
    Moved,
    Resume,
    Run,
    Settings,
    SpaceName,
    Trust,
)
from elastic_nas.cli.tables import show
from elastic_nas.errors import ConfigError


def train(  # noqa: PLR0913  one parameter an option
    *,
    run_file: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN.yaml",
            help="A run file, or a recipe: digits, small_data, cifar ...",
        ),
    ] = None,
    data: Data = None,
    space: SpaceName = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run folder; default: runs/NAME.")
    ] = None,
    settings: Settings = None,
    epochs: Epochs = None,
    minutes: Minutes = None,
    init: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR2", help="A run whose weights to begin with; see docs/training.md."
        ),
    ] = None,
    resume: Resume = False,
    trust: Trust = False,
) -> None:
    """Train a supernet from a run file, or from a folder of images with --data DIR.

    Writes the full run file into the run folder. Ctrl-C leaves a checkpoint; --resume goes on.
    """
    from elastic_nas import pipeline

    if resume and init is not None:
        raise ConfigError("a training that goes on has its weights; leave --init or --resume out.")
    given = {"data": data, "space": space, "train.epochs": epochs, "train.minutes": minutes}
    given["train.init"] = None if init is None else str(init)
    changes = [*(settings or []), *facts.overrides(given)]
    config, folder = facts.train_config(run_file, data, out, changes, resume=resume)
    pipeline.train(config, folder, resume=resume)
    show(texts.after_training(folder))


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
    show(texts.after_training(out, "imported"))


def train_child(  # noqa: PLR0913  one parameter an option
    *,
    run: Run,
    genotype: Annotated[
        str, typer.Option(metavar="G", help="smallest, largest or a genotype such as 0,1,0.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR2", help="The run folder to make.")],
    data: Moved = None,
    origin: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="ORIGIN",
            help="scratch; or inherited: on from the supernet, at a tenth of its learning rate.",
        ),
    ] = "scratch",
    settings: Settings = None,
    epochs: Epochs = None,
    minutes: Minutes = None,
    resume: Resume = False,
    trust: Trust = False,
) -> None:
    """Train one child of a run alone, with the run's images and recipe.

    DIR2 is exported and verified like any run. Without a length it trains as long as the run did.
    """
    from elastic_nas import alone
    from elastic_nas.runs import open_run

    given = {"data": data, "train.epochs": epochs, "train.minutes": minutes}
    changes = [*(settings or []), *facts.overrides(given)]
    alone.train_child(open_run(run), genotype, out, origin=origin, changes=changes, resume=resume)
    show(texts.after_training_alone(out))
