"""What a kit needs of the machine it lies on: libraries, memory, sole use, and models that run.

Standard library only but for what it loads, in the syntax of Python 3.8: the portable kit carries
this file verbatim.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import tempfile
from typing import Any, Callable, Iterator  # noqa: UP035

from elastic_nas.kit_files import KitError, check_file, inside
from elastic_nas.machine import environment

DEFAULT_MEMORY = 2000000000
CHANGING = ("load", "freq_khz", "thermal_c", "governor", "stolen_ticks")


def state() -> dict[str, Any]:
    """What may change about the machine while it measures."""
    facts = environment()
    return {key: facts[key] for key in CHANGING if key in facts}


def record(visit: dict[str, Any], seconds: float) -> None:
    """Note the machine's state `seconds` after ``visit["before"]``."""
    before, visit["after"] = visit["before"], state()
    visit["seconds"] = seconds
    if "stolen_ticks" in before and "stolen_ticks" in visit["after"] and seconds > 0:
        ticks = seconds * os.sysconf("SC_CLK_TCK") * (os.cpu_count() or 1)
        stolen = visit["after"]["stolen_ticks"] - before["stolen_ticks"]
        visit["stolen_share"] = min(max(stolen / ticks, 0.0), 1.0)


def libraries(needs: dict[str, str]) -> dict[str, str]:
    """Versions of the libraries that are needed.

    Raises:
        KitError: One is missing, broken or too old, or they do not go together.
    """
    found = {}
    for name, least in needs.items():
        advice = f"python -m pip install --upgrade '{name}>={least}'"
        try:
            found[name] = str(importlib.import_module(name).__version__)
        except Exception as error:  # a broken library fails in any way
            raise KitError(f"{name} cannot be imported ({str(error)[:300]}): {advice}") from error
        if _numbers(found[name]) < _numbers(least):
            raise KitError(f"{name} {found[name]} is too old, {least} is needed: {advice}")
    if _numbers(found.get("onnxruntime", "1.19")) < [1, 19] and _numbers(found["numpy"]) >= [2]:
        raise KitError(
            f"onnxruntime {found['onnxruntime']} does not run with numpy {found['numpy']}: "
            "python -m pip install 'numpy<2'"
        )
    return found


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:3] if part.isdigit()]


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep other kits of this user from measuring at the same time; a killed one keeps none.

    Raises:
        KitError: Another one is at it.
    """
    path = os.path.join(tempfile.gettempdir(), f"elastic-nas-kit-{os.getuid()}.lock")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "r+", encoding="ascii", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise KitError(
                f"process {file.read(20)} is measuring a kit on this machine, and two would "
                "disturb each other: wait for it, or stop it. What it has measured is kept."
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def load(model: dict[str, Any], plan: dict[str, Any], folder: str) -> Callable[[], object]:
    """A function that runs the model once on a fixed random input.

    Raises:
        KitError: The file is altered, or onnxruntime refuses it or runs it elsewhere.
    """
    import numpy
    import onnxruntime

    path, provider = inside(folder, model["file"]), plan["runtime"]["provider"]
    check_file(path, model["sha256"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = plan["runtime"]["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for key, value in plan["session"].items():
        options.add_session_config_entry(key, value)
    try:
        chosen = {"providers": [provider], "enable_fallback": 0}
        session = onnxruntime.InferenceSession(path, options, **chosen)
        if session.get_providers()[0] != provider:
            raise KitError(f"it would run on {session.get_providers()[0]}, not on {provider}")
        rng, shape = numpy.random.default_rng(plan["input_seed"]), (1, *model["input_shape"])
        x = rng.uniform(0, 255, shape) if shape[1] == 3 else rng.standard_normal(shape)
        feed = {session.get_inputs()[0].name: x.astype(numpy.float32)}
        session.run(None, feed)
    except Exception as error:  # its exceptions share no base class
        what = f"{model['file']}, {json.dumps(model['is'])}"
        raise KitError(f"onnxruntime does not run {what}: {str(error)[:1000]}") from error
    return lambda: session.run(None, feed)


def available_memory() -> int:
    """Bytes that may be used without swapping."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return 1024 * int(file.read().split("MemAvailable:")[1].split()[0])
    except (OSError, IndexError, ValueError):
        return DEFAULT_MEMORY
