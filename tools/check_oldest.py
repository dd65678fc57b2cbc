"""Load and run what we write on the oldest ONNX Runtime that we promise; see `elastic_nas.oldest`.

    python tools/check_oldest.py .venv-oldest

makes files with this interpreter (children of every space, their int8 forms, blocks, whole kits),
runs them here, and then again in an environment of its own, which is made where it is missing. It
needs a Python that old release has wheels for (1.16.3: Python 3.8 to 3.11): `PYTHON_OLDEST`, else
python3.8, the oldest that a kit promises, where there is one, else python3.11. Exits with 1 if a
file does not load or answers otherwise, or a kit does not run.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from zipfile import ZipFile

import numpy as np
import onnxruntime

from elastic_nas import oldest, plugins
from elastic_nas.genotype import sample
from elastic_nas.latency.devices import Device
from elastic_nas.latency.kit import write_kit
from elastic_nas.latency.micromodels import block_model, child_model, null_model
from elastic_nas.latency.plan import Draw
from elastic_nas.network import Network
from elastic_nas.runtimes.onnxruntime_cpu import Runtime

CLASSES, CHILDREN, BLOCKS = 10, 2, 12
OPTIONS = {"tiny": "tiny:size=32", "compact": "compact:size=96"}
"""Spaces whose children are small enough to be checked whole; of the others, the smallest."""
TOLERANCE = 1e-4

THERE = """
import sys
from pathlib import Path
import numpy as np
import onnxruntime
assert onnxruntime.__version__ == sys.argv[2], onnxruntime.__version__
worst, failed = {"fp32": 0.0, "int8": 0.0}, []
onnxruntime.set_default_logger_severity(4)
for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
    cases = np.load(path.with_suffix(".npz"))
    limit = float(sys.argv[3]) if "int8" not in path.name else 0.05
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for n in ("1", "3"):
            got = session.run(None, {"input": cases["x" + n]})[0]
            scale = max(float(np.abs(cases["y" + n]).max()), 1e-6)
            difference = float(np.abs(got - cases["y" + n]).max()) / scale
            if not difference <= limit:
                failed.append("%s, batch %s: differs by %.1e" % (path.name, n, difference))
            kind = "int8" if "int8" in path.name else "fp32"
            worst[kind] = max(worst[kind], difference)
    except Exception as error:
        failed.append("%s: %s" % (path.name, str(error)[:200]))
files = len(list(Path(sys.argv[1]).glob("*.onnx")))
print("onnxruntime %s, Python %d.%d: %d files, %d failures; largest difference fp32 %.1e, int8 %.1e"
      % (onnxruntime.__version__, sys.version_info[0], sys.version_info[1], files, len(failed),
         worst["fp32"], worst["int8"]))
print("\\n".join(failed[:10]))
sys.exit(bool(failed) or not files)
"""


def models() -> dict[str, tuple[bytes, tuple[int, ...]]]:
    """By name: what an export and a kit hold, with the shape of its input."""
    made: dict[str, tuple[bytes, tuple[int, ...]]] = {"null": (null_model(), (1,))}
    int8 = Runtime(precision="int8")
    for space in plugins.available("spaces"):
        network = Network(OPTIONS.get(space, space), CLASSES)
        drawn = [sample(network.dims, Random(seed)) for seed in range(CHILDREN)]
        for number, genotype in enumerate([network.smallest, *(drawn if space in OPTIONS else [])]):
            size = network.resolution(genotype)
            model, name = child_model(network, genotype, number), f"{space}-{number}"
            made[name] = (model, (3, size, size))
            made[f"{name}-int8"] = (int8.convert(model, (3, size, size)), (3, size, size))
        specs = [spec for unit in network.units for spec in unit.specs()]
        for number, spec in enumerate(Random(0).sample(specs, min(BLOCKS, len(specs)))):
            made[f"{space}-block-{number}"] = (block_model(spec, 0), spec.input_shape)
    return made


def write(folder: Path) -> None:
    """Each model, with inputs of batches 1 and 3 and what it answers here."""
    for name, (model, shape) in models().items():
        (folder / f"{name}.onnx").write_bytes(model)
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        cases = {}
        for n in (1, 3):
            x = np.random.default_rng(n).uniform(0, 255 if len(shape) == 3 else 1, (n, *shape))
            cases[f"x{n}"] = x.astype(np.float32)
            cases[f"y{n}"] = session.run(None, {"input": cases[f"x{n}"]})[0]
        np.savez(folder / f"{name}.npz", **cases)


def kits(python: Path, folder: Path) -> bool:
    """Whether the kits of one child, in fp32 and int8, run to their end there."""
    sound = True
    for precision in ("fp32", "int8"):
        place = folder / f"kit-{precision}"
        device = Device("board", "", "onnxruntime_cpu", 1, precision, generic=False)
        network = Network("tiny:size=8@smallest", CLASSES)
        write_kit(network, device, Runtime(precision=precision), folder / "kit.zip", Draw(2, 2))
        with ZipFile(folder / "kit.zip") as packed:
            packed.extractall(place)
        ended = subprocess.run(
            [python, "run.py", "--max-seconds", "120"],
            cwd=place,
            env=PLAIN,
            capture_output=True,
            text=True,
            check=False,
        )
        result = place / "result.json"
        version = json.loads(result.read_text())["runtime"]["version"] if result.exists() else None
        if ended.returncode or version != oldest.ONNXRUNTIME:
            sound = False
            print(f"the {precision} kit ended with {ended.returncode}: {ended.stderr[-500:]}")
    print(f"kits in fp32 and int8 {'ran' if sound else 'did not run'}")
    return sound


PLAIN = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def interpreter() -> str:
    """The Python of the old environment."""
    for name in (os.environ.get("PYTHON_OLDEST"), "python3.8"):
        if name and shutil.which(name):
            works = subprocess.run([name, "-c", "import venv"], capture_output=True, check=False)
            if works.returncode == 0:
                return name
    return "python3.11"


def environment(folder: Path) -> Path:
    """The interpreter of an environment that has that release alone."""
    python = folder.absolute() / "bin" / "python"
    wanted = f"onnxruntime=={oldest.ONNXRUNTIME}"
    if not (folder / wanted).exists():
        subprocess.run([interpreter(), "-m", "venv", "--clear", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet", wanted, "numpy<2"]
        subprocess.run(install, check=True)
        (folder / wanted).touch()
    return python


def main() -> int:
    """Check, print two lines, and tell whether all was well."""
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    python = environment(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        words = [python, "-c", THERE, folder, oldest.ONNXRUNTIME, str(TOLERANCE)]
        ended = subprocess.run(words, check=False, env=PLAIN)
        return 0 if ended.returncode == 0 and kits(python, Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
