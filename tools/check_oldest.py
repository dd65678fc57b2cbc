"""Load and run what we write on the oldest ONNX Runtime that we promise; see `elastic_nas.oldest`.

    python tools/check_oldest.py .venv-oldest

makes files with this interpreter (children of every space, their int8 forms, the models of a kit),
runs them here, and then again in an environment of its own, which is made where it is missing. It
needs a Python that old release has wheels for (1.16.3: Python 3.8 to 3.11); the environment's is
`PYTHON_OLDEST`, by default python3.11. Exits with 1 if a file does not load, or answers otherwise.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

import numpy as np
import onnxruntime

from elastic_nas import oldest, plugins
from elastic_nas.genotype import sample
from elastic_nas.latency.micromodels import block_model, child_model, null_model
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
worst, failed = 0.0, []
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
            if "int8" not in path.name:
                worst = max(worst, difference)
    except Exception as error:
        failed.append("%s: %s" % (path.name, str(error)[:200]))
files = len(list(Path(sys.argv[1]).glob("*.onnx")))
print("onnxruntime %s, Python %d.%d: %d files, %d failures; largest difference of fp32 %.1e"
      % (onnxruntime.__version__, *sys.version_info[:2], files, len(failed), worst))
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


def environment(folder: Path) -> Path:
    """The interpreter of an environment that has that release alone."""
    python = folder / "bin" / "python"
    wanted = f"onnxruntime=={oldest.ONNXRUNTIME}"
    if not (folder / wanted).exists():
        maker = os.environ.get("PYTHON_OLDEST", "python3.11")
        subprocess.run([maker, "-m", "venv", "--clear", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet", wanted, "numpy<2"]
        subprocess.run(install, check=True)
        (folder / wanted).touch()
    return python


def main() -> int:
    """Check, print one line, and tell whether all was well."""
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    python = environment(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        words = [python, "-c", THERE, folder, oldest.ONNXRUNTIME, str(TOLERANCE)]
        plain = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        return subprocess.run(words, check=False, env=plain).returncode


if __name__ == "__main__":
    sys.exit(main())
