"""The command line: a thin door. Parse, call one function, print; imports stand per command."""

import json
from collections.abc import Callable
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any

import typer

from elastic_nas import facts
from elastic_nas._version import __version__
from elastic_nas.budgets import Budgets
from elastic_nas.cli import latency as latency_commands
from elastic_nas.cli import texts, training
from elastic_nas.cli.endings import Group, guarded
from elastic_nas.cli.options import (
    Changes,
    Child,
    Classes,
    Device,
    Evaluations,
    Json,
    Latency,
    Level,
    Macs,
    Memory,
    Moved,
    Params,
    Run,
    Settings,
    Size,
    Strategy,
    TableFile,
    Trust,
)
from elastic_nas.cli.tables import show
from elastic_nas.errors import ConfigError
from elastic_nas.latency.bound import LEVEL

app = typer.Typer(
    name="elastic-nas",
    cls=Group,
    help="Train one supernet, then ask it for the best child that runs within a latency budget on "
    "your device, as a verified ONNX file.\n\nStart with: elastic-nas demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command."""
    name = function.__name__.rstrip("_").replace("_", "-")
    # Given in full: click cuts what it takes from the description itself after 45 characters.
    summary = " ".join(cleandoc(function.__doc__ or "").split("\n\n")[0].split())
    return app.command(name, short_help=summary)(guarded(function))


def _show(facts: Any, as_text: Callable[[Any], str], as_json: bool) -> None:
    """Print facts for a program or for a person."""
    show(json.dumps(facts, indent=1) if as_json else as_text(facts))


@command
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to leave everything.")] = Path(
        "elastic-nas-demo"
    ),
) -> None:
    """Train on handwritten digits, profile this machine, search, export three children.

    Takes a few minutes on a laptop CPU and needs no network. Interrupted, the same command goes on.
    """
    from elastic_nas.cli.demo import run_demo

    show(run_demo(out))


command(training.train)
command(training.train_child)
command(training.import_ofa)


command(latency_commands.profile)
command(latency_commands.kit)


@command
def search(  # noqa: PLR0913  one parameter an option
    *,
    run: Run,
    device: Device,
    latency: Latency = None,
    params: Params = None,
    macs: Macs = None,
    size: Size = None,
    memory: Memory = None,
    evaluations: Evaluations = None,
    strategy: Strategy = None,
    data: Moved = None,
    settings: Changes = None,
    table: TableFile = None,
    trust: Trust = False,
) -> None:
    """Evaluate children within the budgets; without one, over the whole range of latencies.

    Accuracies do not depend on the device: what is known already is reused. Interrupted, the same
    command goes on.
    """
    from elastic_nas import pipeline
    from elastic_nas.runs import open_run

    front = pipeline.search(
        open_run(run),
        device,
        Budgets.of(latency, params, macs, size, memory),
        evaluations=evaluations,
        strategy=strategy,
        table=table,
        changes=facts.changes(data, settings),
    )
    show(texts.front_table(front, device))
    show(f"picture: {run / 'fronts' / f'{Path(device).stem}.png'}")


@command
def query(  # noqa: PLR0913  one parameter an option
    *,
    run: Run,
    device: Device,
    latency: Latency = None,
    params: Params = None,
    macs: Macs = None,
    size: Size = None,
    memory: Memory = None,
    table: TableFile = None,
    level: Level = LEVEL,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """The best evaluated child whose latency bound and counts keep all budgets."""
    from elastic_nas import pipeline
    from elastic_nas.runs import open_run

    budgets = Budgets.of(latency, params, macs, size, memory)
    answers, target = pipeline.query(open_run(run), device, budgets, table=table, level=level)
    found = {
        **answers[0].plain(),
        "device": target.device.name,
        "table": str(target.table_path),
        "children_within_budgets": len(answers),
    }
    _show(found, lambda _: texts.answer_table(answers[0], target, budgets), as_json)


@command
def export(  # noqa: PLR0913  one parameter an option
    *,
    run: Run,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="The device of the budget.")
    ] = None,
    latency: Latency = None,
    params: Params = None,
    macs: Macs = None,
    size: Size = None,
    memory: Memory = None,
    genotype: Annotated[
        str | None, typer.Option(metavar="G", help="This very child, such as 0,1,0.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="What to write; default: in DIR.")
    ] = None,
    data: Moved = None,
    settings: Changes = None,
    table: TableFile = None,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Write the best child within the budgets as one ONNX file, compared, scored and timed."""
    from elastic_nas import delivery
    from elastic_nas.runs import open_run

    budgets = Budgets.of(latency, params, macs, size, memory)
    if genotype is None and (device is None or not budgets.limits()):
        raise ConfigError(
            "export needs --device and a budget such as --latency 5ms, or --genotype."
        )
    opened = open_run(run)
    folder = out or run / "exported" / facts.folder_name(budgets, genotype)
    manifest = delivery.export(
        opened,
        folder,
        device_name=device,
        budgets=budgets,
        genotype=genotype,
        table=table,
        changes=facts.changes(data, settings),
    )
    _show({"folder": str(folder), **manifest}, texts.export_table, as_json)


@command
def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What export wrote.")],
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Time it as this device.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Recompute the accuracy on these test images."),
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Recheck an exported folder, and tell what was recomputed and what is only claimed.

    Hashes, outputs for stored real images, MACs, sizes and what the genotype must cost are
    recomputed; latency where this machine is the device; accuracy with --data. What disagrees or
    cannot be is an error.
    """
    from elastic_nas.verification import verify

    _show(verify(folder, device, data, settings), texts.verify_table, as_json)


@command
def describe(
    space: Annotated[str, typer.Argument(metavar="SPACE", help="Such as bignas, tiny:size=32.")],
    child: Child = None,
    classes: Classes = None,
    as_json: Json = False,
) -> None:
    """A space (dims, number of children, ends), or one child: MACs, parameters, blocks.

    Counted for 3 input channels and, unless told otherwise, 1000 classes.
    """
    found = facts.describe(space, child, classes)
    _show(found, texts.describe_table, as_json)


@command
def predict(
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="See: list devices.")],
    space: Annotated[str, typer.Argument(metavar="SPACE", help="See: list spaces.")],
    child: Child = "largest",
    classes: Classes = None,
    table: TableFile = None,
    level: Level = LEVEL,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Predicted latency of a child on a device, and its bound, in milliseconds."""
    found = facts.predict(device, space, child or "largest", classes, table, level)
    _show(found, texts.predict_table, as_json)


@command
def trust(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Python files that you have read.")
    ],
) -> None:
    """Let Python files run from now on that a folder or a hardware profile from outside names.

    They are remembered by what is in them: a file that is changed asks again.
    """
    from elastic_nas.trusted import trust

    for file in files:
        show(f"trusted: {file} (SHA-256 {trust(file)})")


@command
def list_(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="spaces, strategies, devices, runtimes or tasks.")
    ],
    run: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Show the tables of this run, too.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List spaces, strategies, tasks, runtimes, or devices by what can be done with them."""
    found = facts.listing(kind, run)
    _show(found, texts.listing_table, as_json)


def _version(wanted: bool) -> None:
    if wanted:
        show(f"elastic-nas {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command."""
