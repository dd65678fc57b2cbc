"""What machine this is, and what state it is in.

Standard library only, in the syntax of Python 3.8: the portable kit carries this file verbatim.
Everything is read as well as the system allows; what it does not tell is left out.
"""

from __future__ import annotations

import glob
import hashlib
import os
import platform
from typing import Any

KERNEL_FLAGS = ("sse", "ssse", "avx", "amx", "fma", "f16c", "asimd", "sve", "neon", "bf16", "i8mm")
"""Beginnings of the CPU flags by which libraries choose their kernels."""


def environment() -> dict[str, Any]:
    """The machine and its present state.

    Returns:
        Always ``arch``, ``cpu``, ``flags`` (those of vector instructions), ``cores`` and ``os``;
        where the system tells: ``memory_mb``, ``governor``, ``freq_khz`` and ``thermal_c`` (lists),
        ``load`` (1, 5, 15 minutes), ``cpu_limit`` (of the container: "quota period" in us) and
        ``stolen_ticks`` (by the hypervisor, since boot).
    """
    cores = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/"
    info = cpu_info(_read("/proc/cpuinfo"))
    facts = {
        "arch": platform.machine(),
        "cpu": cpu_name(info) or _sysctl("machdep.cpu.brand_string") or "unknown",
        "flags": vector_flags(info) or vector_flags({"flags": _sysctl("machdep.cpu.features")}),
        "cores": os.cpu_count() or 1,
        "os": platform.system() + " " + platform.release(),
        "memory_mb": _memory_mb(),
        "governor": " ".join(sorted(set(_read_all(cores + "scaling_governor")))),
        "freq_khz": _numbers(_read_all(cores + "scaling_cur_freq")),
        "thermal_c": [
            n / 1000 for n in _numbers(_read_all("/sys/class/thermal/thermal_zone*/temp"))
        ],
        "load": _load(),
        "cpu_limit": _cpu_limit(),
        "stolen_ticks": _stolen_ticks(),
    }
    always = ("arch", "cpu", "flags", "cores", "os")
    return {k: v for k, v in facts.items() if k in always or v not in ("", [], None)}


def signature(facts: dict[str, Any]) -> dict[str, Any]:
    """The part of an `environment` that must agree for a latency figure to hold elsewhere.

    Returns:
        ``arch``, ``cpu``, ``cores``, and ``flags`` as a hash.
    """
    flags = hashlib.sha256(" ".join(sorted(facts["flags"])).encode()).hexdigest()[:16]
    return {"arch": facts["arch"], "cpu": facts["cpu"], "cores": facts["cores"], "flags": flags}


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _read_all(pattern: str) -> list[str]:
    texts = [_read(path) for path in sorted(glob.glob(pattern))]
    return [text for text in texts if text]


def _numbers(texts: list[str]) -> list[int]:
    return [int(text) for text in texts if text.lstrip("-").isdigit()]


def cpu_info(text: str) -> dict[str, str]:
    """The first processor in the text of ``/proc/cpuinfo``."""
    lines = text.split("\n\n", 1)[0].splitlines()
    pairs = [line.partition(":") for line in lines]
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_name(info: dict[str, str]) -> str:
    """A name that tells models apart even where a hypervisor shortens the brand; or nothing."""
    if "model name" in info and "cpu family" in info:
        return "%s (family %s, model %s)" % tuple(  # noqa: UP031
            info.get(key, "?") for key in ("model name", "cpu family", "model")
        )
    if "CPU part" in info:
        return "implementer %s, part %s" % (  # noqa: UP031
            info.get("CPU implementer", "?"),
            info["CPU part"],
        )
    return ""


def vector_flags(info: dict[str, str]) -> list[str]:
    """The CPU flags by which libraries choose their kernels, in order."""
    flags = (info.get("flags") or info.get("Features") or "").split()
    return sorted(flag for flag in flags if flag.startswith(KERNEL_FLAGS))


def _load() -> list[float]:
    try:
        return [round(load, 2) for load in os.getloadavg()]
    except (AttributeError, OSError):  # Android
        return []


def _sysctl(name: str) -> str:
    """macOS's name for a fact; nothing elsewhere."""
    if platform.system() != "Darwin":
        return ""
    import subprocess

    done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
    return done.stdout.strip().lower() if name.endswith("features") else done.stdout.strip()


def _memory_mb() -> Any:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (ValueError, OSError):
        return None


def _cpu_limit() -> str:
    limit = _read("/sys/fs/cgroup/cpu.max")
    quota = _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
    return limit or (quota and quota + " " + _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


def _stolen_ticks() -> Any:
    fields = _read("/proc/stat").partition("\n")[0].split()
    return int(fields[8]) if len(fields) > 8 and fields[0] == "cpu" else None
