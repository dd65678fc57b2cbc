"""Commands about latency tables; `app.py` registers them."""

import json
from pathlib import Path
from typing import Annotated

import typer

from elastic_nas.cli import texts
from elastic_nas.cli.options import Classes, Json, SpaceName, TableFile, Trust
from elastic_nas.cli.tables import show
from elastic_nas.errors import ConfigError

Device = Annotated[str, typer.Argument(metavar="DEVICE", help="Such as local-ort-1t.")]


def profile(  # noqa: PLR0913  one parameter an option
    device: Device,
    *,
    space: SpaceName = None,
    run: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Or of this run's; the table goes there.")
    ] = None,
    classes: Classes = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write it.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether the table still holds; seconds.")
    ] = False,
    table: TableFile = None,
    import_: Annotated[
        Path | None,
        typer.Option(
            "--import",
            metavar="FILE",
            help="Measure nothing; take a kit's result.json, another table, or a YAML or CSV file.",
        ),
    ] = None,
    expand: Annotated[
        str | None,
        typer.Option(metavar="WORD", help="What it means in the imported: channels or ratio."),
    ] = None,
    children: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Whole children to fit the imported on: genotype, ms."),
    ] = None,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Measure this machine: a latency table for a space, with its error and its bound.

    Entries that the table has are kept, so that an interrupted profile goes on. --check times nine
    children again and exits with 1 where the table no longer holds.
    """
    from elastic_nas import profiling
    from elastic_nas.runs import open_run

    if check and (import_ or out or classes):
        raise ConfigError(
            "--check measures what the table has: leave out --import, --out, --classes."
        )
    if table is not None and not check:
        raise ConfigError("--table belongs to --check; name the table to write with --out FILE.")
    if import_ is None and (expand or children):
        raise ConfigError("--expand and --children belong to --import FILE.")
    opened = None if run is None else open_run(run)
    if check:
        found = profiling.check(device, run=opened, space=space, table=table)
        show(json.dumps(found, indent=1) if as_json else texts.check_table(found))
        raise typer.Exit(0 if found["holds"] else 1)
    scope = profiling.Scope(opened, space, classes, out)
    if import_ is None:
        path, report = profiling.profile(device, scope)
    else:
        from elastic_nas.importing import import_file

        path, report = import_file(import_, device, scope, expand=expand, children=children)
    show(texts.report_text(report))
    show(f"table: {path}")


def kit(
    *,
    device: Annotated[str, typer.Option(metavar="NAME", help="The device; see: list devices.")],
    space: Annotated[str, typer.Option(metavar="SPACE", help="Such as bignas.")],
    classes: Classes = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="What to write.")] = Path("kit.zip"),
    trust: Trust = False,
) -> None:
    """A zip that measures another device: it needs Python, numpy and onnxruntime there.

    On the device: python run.py. Then here: elastic-nas profile DEVICE --import result.json.
    """
    from elastic_nas import profiling

    show(texts.kit_text(profiling.make_kit(device, space, out, classes=classes)))
