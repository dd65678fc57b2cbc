"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(metavar="DIR", help="A run folder, as train makes it.")]
Device = Annotated[
    str,
    typer.Option(metavar="NAME", help="A hardware profile's name or file; see: list devices."),
]
Latency = Annotated[str | None, typer.Option(metavar="TIME", help="Budget, such as 5ms or 0.005s.")]
Params = Annotated[str | None, typer.Option(metavar="N", help="Budget on parameters: 2M.")]
Macs = Annotated[str | None, typer.Option(metavar="N", help="Budget on MACs: 300M.")]
Size = Annotated[str | None, typer.Option(metavar="BYTES", help="Budget on the file: 4MB.")]
Memory = Annotated[
    str | None, typer.Option(metavar="BYTES", help="Budget on peak activations: 2MB.")
]
TableFile = Annotated[
    Path | None, typer.Option("--table", metavar="FILE", help="A latency table to use.")
]
Level = Annotated[
    float, typer.Option(metavar="SHARE", help="Of random children that keep the bound.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Classes = Annotated[int | None, typer.Option(metavar="N", help="Number of outputs.")]
Child = Annotated[
    str | None,
    typer.Option(
        metavar="CHILD",
        help="smallest, largest, a genotype such as 0,1,0, or a file SETTINGS.yaml.",
    ),
]
SpaceName = Annotated[
    str | None,
    typer.Option(
        metavar="SPACE",
        help="With options, such as tiny:size=32; or ./mine.py, a Python file, which is executed.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="A folder of class folders or tar shards, a data file, hf:NAME, digits."
    ),
]
Moved = Annotated[
    str | None,
    typer.Option("--data", metavar="DIR", help="Where the run's images lie now, if elsewhere."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a key of data. or search.; may be repeated."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key; may be repeated."),
]
Epochs = Annotated[
    int | None, typer.Option(metavar="N", help="Length: passes over the images, in all.")
]
Minutes = Annotated[float | None, typer.Option(metavar="N", help="Length: minutes, in all.")]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Run the Python files that a folder or a profile names; remembered."
    ),
]
"""Taken by `endings.guarded`, which lets the command run within `trusted.trusting`."""
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")]
Evaluations = Annotated[int | None, typer.Option(metavar="N", help="Children to know in the end.")]
Strategy = Annotated[
    str | None, typer.Option(metavar="NAME", help="Such as evolution; see: list strategies.")
]
