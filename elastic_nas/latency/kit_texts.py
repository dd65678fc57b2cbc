"""What a kit says to people, and its scripts and forms for devices without Python."""

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from elastic_nas.genotype import format_genotype
from elastic_nas.kit_figures import import_command

README = """\
This kit measures {device} with onnxruntime for elastic-nas, space {space}, {classes} classes.
It uploads nothing; all that it learns is in result.json, as text.

1. On the device, with Python 3.8 or newer:

   python -m pip install 'numpy>={numpy}' 'onnxruntime>={onnxruntime}'{provider}
   python run.py

   It keeps what it has after every round: stop it, or let the device fall asleep, and run the
   same command again. With --max-seconds 600 it stops by itself after ten minutes. Leave the
   device alone meanwhile; what was disturbed does not count.

2. Copy result.json to your computer, and there:

   {command}

Without Python on the device: see the first lines of bare/onnxruntime.sh and bare/litert.sh.

Where no program of these runs: time the models by any means, write the milliseconds into the two
forms in by_hand, and on your computer:

   {by_hand} --children by_hand/children.csv
"""

SCRIPT = """\
#!/bin/sh
# For devices without Python{needs}:
#   VERSION=1.22.0 PROGRAM=/path/to/{program} sh {name} > output.txt
# where VERSION is that of {runtime}. Then, on your computer:
#   {command}
# The program does not tell which of its samples were disturbed: keep the device quiet.
cd "$(dirname "$0")/.." || exit 1
echo "== elastic-kit {runtime} ${{VERSION:?say the version of {runtime}, as VERSION=1.22.0}}"
echo "== plan"
cat plan.json
echo
echo "== machine"
date -u +%Y-%m-%dT%H:%M:%S+00:00
uname -m
uname -sr
cat /proc/cpuinfo
for round in 1 2 3; do
for model in {models}; do
echo "== model $model"
"${{PROGRAM:-{program}}}" {options} </dev/null 2>&1
done
done
echo "== end"
"""

PROGRAMS = {
    "onnxruntime": (
        "onnxruntime_perf_test",
        "",
        "-I -m times -r 50 -e {provider} -x {threads} -y 1 -o 99 -s models/$model.onnx /dev/stdout",
    ),
    "litert": (
        "benchmark_model",
        ", once every models/NAME.onnx has been converted to models/NAME.tflite",
        "--graph=models/$model.tflite --num_threads={threads} --num_runs=50 --warmup_runs=3",
    ),
}
"""By runtime: the program, what it needs, and how it is called."""


def readme(plan: dict[str, Any]) -> str:
    """How to use the kit."""
    provider = plan["runtime"]["provider"]
    special = provider != "CPUExecutionProvider"
    return README.format(
        device=plan["device"],
        **{key: plan["network"][key] for key in ("space", "classes")},
        **plan["needs"],
        command=import_command(plan),
        by_hand=import_command(plan, "by_hand/blocks.csv"),
        provider=f"\n   (a build of onnxruntime with {provider})" if special else "",
    )


def bare_script(runtime: str, plan: dict[str, Any]) -> str:
    """The commands that time every model with a runtime's own benchmark program.

    Source: onnxruntime/test/perftest/README.md of github.com/microsoft/onnxruntime, and
    tensorflow/lite/tools/benchmark/README.md of github.com/tensorflow/tensorflow.
    """
    program, needs, options = PROGRAMS[runtime]
    provider = plan["runtime"]["provider"].removesuffix("ExecutionProvider").lower()
    anchors = [model["file"] for model in plan["anchors"]]
    files = [model["file"] for model in plan["blocks"] + plan["children"]]
    names = [file.removeprefix("models/").removesuffix(".onnx") for file in anchors + files]
    return SCRIPT.format(
        runtime=runtime,
        program=program,
        needs=needs,
        name=f"bare/{runtime}.sh",
        command=import_command(plan, "output.txt"),
        models=" ".join(dict.fromkeys(names)),
        options=options.format(provider=provider, threads=plan["runtime"]["threads"]),
    )


def blocks_csv(models: Iterable[Mapping[str, Any]]) -> str:
    """A form for what the blocks take, as `foreign.read_blocks` reads it."""
    rows = [{"file": m["file"], **m["is"]["block"]} for m in models if m["is"]]
    columns = dict.fromkeys(key for row in rows for key in row)
    return _form([*columns, "ms"], rows)


def children_csv(models: Iterable[Mapping[str, Any]]) -> str:
    """A form for what the children take, as `imports.import_table` reads it."""
    rows = [
        {
            "file": model["file"],
            "role": model["is"]["role"],
            "genotype": format_genotype(model["is"]["genotype"]),
        }
        for model in models
    ]
    return _form(["file", "role", "genotype", "ms"], rows)


def _form(columns: list[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
