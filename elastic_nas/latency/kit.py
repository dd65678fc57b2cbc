"""The portable kit: a zip that measures a device on which this package is not installed.

There `run.py` needs Python, numpy and onnxruntime, or the scripts in ``bare/`` nothing but a
benchmark program; the fit happens here, from what they leave (`kit_result`).
"""

import io
import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np

from elastic_nas.errors import ConfigError
from elastic_nas.files import PACKAGE, write_atomic
from elastic_nas.kit_check import PLAN_SCHEMA
from elastic_nas.kit_figures import digest, import_command
from elastic_nas.latency.devices import Device, device_names, known_devices
from elastic_nas.latency.kit_model import checked_plan
from elastic_nas.latency.kit_texts import bare_script, blocks_csv, children_csv, readme
from elastic_nas.latency.kit_weights import SharedWeights
from elastic_nas.latency.micromodels import block_model, child_model, null_model
from elastic_nas.latency.plan import Draw, Plan, guessed_ms, plan_for
from elastic_nas.latency.profile import CHILD_SECONDS, MAX_ROUNDS, for_children
from elastic_nas.measure import Protocol
from elastic_nas.oldest import ONNXRUNTIME
from elastic_nas.progress import track
from elastic_nas.runtimes._runtime import INPUT_SEED

if TYPE_CHECKING:
    from elastic_nas.network import Network

CARRIED = (
    *("measure.py", "machine.py", "kit_figures.py", "kit_device.py"),
    *("kit_check.py", "kit_files.py", "kit_measuring.py"),
)
"""Files of this package that `run.py` imports."""
NEEDS = {"numpy": "1.21", "onnxruntime": ONNXRUNTIME}
"""NumPy's bound is that of the oldest ONNX Runtime."""
CPU = "CPUExecutionProvider"
WEIGHTS = "weights.bin"
DATE = (1980, 1, 1, 0, 0, 0)
"""Of every file in the zip, so that equal kits are equal bytes."""


def write_kit(
    network: "Network", device: Device, runtime: Any, out: Path, draw: Draw
) -> dict[str, Any]:
    """Write the kit that measures `device` for all children of `network`.

    Args:
        network: Whose children shall be predicted.
        device: The profile of a device that this machine need not be.
        runtime: The device's runtime; it converts the models here.
        out: The zip.
        draw: How many whole children to measure, and which.

    Returns:
        ``kit``, ``device``, ``space``, ``command`` (that imports the result), ``models``,
        ``bytes``, ``unpacked_bytes`` and ``measure``.

    Raises:
        ConfigError: The profile stands for any machine, or its runtime cannot be carried.
        RunFolderError: The file cannot be written.
    """
    _check_carried(device, runtime)
    kit = _Kit(network, runtime, draw.seed)
    plan = plan_for(network, draw)
    content = kit.plan(plan, device, draw)
    content["files"] = {f"models/{WEIGHTS}": kit.add_weights()}
    content["sha256"] = digest(content)
    checked_plan(content)  # as whoever reads it will
    kit.add("plan.json", json.dumps(content, allow_nan=False).encode())
    for name in CARRIED:
        kit.add(f"elastic_nas/{name}", (PACKAGE / name).read_bytes())
    kit.add("elastic_nas/__init__.py", b"")
    kit.add("run.py", (PACKAGE / "kit_run.py").read_bytes())
    kit.add("README.txt", readme(content).encode())
    for program in ("onnxruntime", "litert"):
        kit.add(f"bare/{program}.sh", bare_script(program, content).encode())
    kit.add("by_hand/blocks.csv", blocks_csv(content["blocks"]).encode())
    kit.add("by_hand/children.csv", children_csv(content["children"]).encode())
    zipped = kit.finish()
    write_atomic(out, zipped)
    return {
        "kit": str(out),
        "device": device.name,
        "space": network.space_name,
        "command": import_command(content),
        "models": kit.models,
        "bytes": len(zipped),
        "unpacked_bytes": kit.unpacked,
        "measure": device.measure,
    }


def _named(device: Device) -> str:
    """How the device is named in commands here: by its name, or by its profile's file."""
    return device.name if device.name in device_names() else device.place or device.name


def _check_carried(device: Device, runtime: Any) -> None:
    """Refuse what a kit cannot measure."""
    if device.generic:
        why = (
            f"{device.name} stands for whatever machine this is: measure it here, with elastic-nas "
            f"profile {device.name} --space SPACE."
        )
    elif runtime.name != "onnxruntime":
        why = f"{device.name} runs {runtime.name}, but kits run onnxruntime."
    else:
        return
    named = [known for known in known_devices().values() if isinstance(known, Device)]
    able = [d.name for d in named if d.runtime.startswith("onnxruntime") and not d.generic]
    raise ConfigError(
        f"{why}\nA kit can be made for {', '.join(able)}, or for a profile of your own: see "
        "docs/kit.md."
    )


class _Kit:
    """A zip in the making."""

    def __init__(self, network: "Network", runtime: Any, seed: int) -> None:
        self.network, self.runtime, self.seed = network, runtime, seed
        self.weights = SharedWeights(WEIGHTS)
        self.models = self.unpacked = 0
        self._bytes = io.BytesIO()
        self._zip = ZipFile(self._bytes, "w", ZIP_DEFLATED)

    def add(self, name: str, content: bytes) -> None:
        """Add a file."""
        with self._zip.open(_info(name), "w") as file:
            file.write(content)
        self.unpacked += len(content)

    def add_weights(self) -> str:
        """Add the shared weights; returns their hash."""
        known = sha256()
        with self._zip.open(_info(f"models/{WEIGHTS}"), "w", force_zip64=True) as file:
            for chunk in self.weights.chunks():
                file.write(chunk)
                known.update(chunk)
        self.unpacked += self.weights.size
        return known.hexdigest()

    def finish(self) -> bytes:
        """The zip."""
        self._zip.close()
        return self._bytes.getvalue()

    def plan(self, plan: Plan, device: Device, draw: Draw) -> dict[str, Any]:
        """Make all models; returns what there is to do with them."""
        pairs = [(g, "fit") for g in plan.fit] + [(g, "calibrate") for g in plan.calibrate]
        order = np.random.default_rng([draw.seed, 2]).permutation(len(pairs))
        with track("writing the kit's models", 1 + len(plan.blocks) + len(pairs)) as progress:
            blocks = [self._model("null", null_model(), (1,), {}, 0.0)]
            for number, spec in enumerate(plan.blocks):
                model = block_model(spec, self.seed)
                what = {"block": spec.key}
                blocks.append(
                    self._model(f"b{number}", model, spec.input_shape, what, guessed_ms(spec))
                )
                progress.advance()
            children = []
            for number, place in enumerate(order):
                children.append(self._child(f"c{number}", *pairs[place]))
                progress.advance()
        protocol = Protocol()
        return {
            "schema": PLAN_SCHEMA,
            "device": device.name,
            "profile": _named(device),
            "network": {
                "space": self.network.space_name,
                "classes": self.network.classes,
                "identity": self.network.identity,
            },
            "draw": asdict(draw),
            "precision": device.precision,
            "runtime": {k: v for k, v in self.runtime.describe().items() if k != "version"},
            "session": self._session(),
            "needs": NEEDS,
            "input_seed": INPUT_SEED,
            "protocol": {
                "blocks": asdict(protocol),
                "children": asdict(for_children(protocol, math.inf)),
            },
            "child_seconds": CHILD_SECONDS,
            "max_rounds": MAX_ROUNDS,
            "anchors": list(self._anchors(plan, children)),
            "blocks": blocks,
            "children": children,
        }

    def _session(self) -> dict[str, str]:
        """Entries of ONNX Runtime's session, those of the plugin."""
        entries = {"session.intra_op.allow_spinning": "0"}
        if self.runtime.provider != CPU:
            entries["session.disable_cpu_ep_fallback"] = "1"
        return entries

    def _child(self, name: str, genotype: Any, role: str) -> dict[str, Any]:
        blocks = self.network.blocks(genotype)
        model = child_model(self.network, genotype, self.seed)
        what = {"genotype": list(genotype), "role": role}
        return self._model(name, model, blocks[0].input_shape, what, sum(map(guessed_ms, blocks)))

    def _model(
        self, name: str, model: bytes, shape: tuple[int, ...], what: dict[str, Any], guess: float
    ) -> dict[str, Any]:
        """Add a model to the zip; returns its row of the plan."""
        shared, weight_bytes = self.weights.share(self.runtime.convert(model, shape))
        self.add(f"models/{name}.onnx", shared)
        self.models += 1
        return {
            "name": name,
            "file": f"models/{name}.onnx",
            "sha256": sha256(shared).hexdigest(),
            "input_shape": list(shape),
            "weight_bytes": weight_bytes,
            "guess_ms": round(guess, 4),
            "is": what,
        }

    def _anchors(self, plan: Plan, children: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        """Those of the fit children again, under names of their own."""
        by_genotype = {tuple(child["is"]["genotype"]): child for child in children}
        for number, genotype in enumerate(plan.anchors):
            what = {"genotype": list(genotype), "role": "anchor"}
            yield {**by_genotype[genotype], "name": f"a{number}", "is": what}


def _info(name: str) -> ZipInfo:
    info = ZipInfo(name, DATE)
    info.compress_type = ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info
