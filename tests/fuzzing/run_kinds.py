"""Files of a run: its run file, records, history, checkpoint; settings, profiles, data files."""

import json
import math
import shutil
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

from elastic_nas.files import sha256_of
from elastic_nas.latency.devices import load_device
from elastic_nas.latency.measured import Measured, read_measured
from elastic_nas.latency.speed import Speed
from elastic_nas.latency.speed_file import read_speed, speed_file, write_speed
from elastic_nas.run_file import dump_run, parse_run, read_run_file
from elastic_nas.runs import RunFolder
from elastic_nas.search.history import read_history
from elastic_nas.settings import from_settings, to_settings
from elastic_nas.training import loop
from elastic_nas.training.curves import Curves
from elastic_nas.yaml_file import dump_yaml, parse_yaml, read_yaml
from fuzzing.kinds import Kind, check_text, command, damaged_fields, nothing_wrong, same
from fuzzing.seeds import DEVICE, NETWORK, Seeds


def written(folder: Path, name: str, content: bytes) -> Path:
    """A content as a file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- run files and other settings ----------------------------------------------------------------


def _says(config: Any, said: Any, where: str = "") -> str:
    """Where a model differs from what a file says; what the file leaves out is not compared."""
    if isinstance(config, dict) and isinstance(said, dict):
        for key, item in said.items():
            if key not in config:
                return f"{where}/{key} is unknown"
            if wrong := _says(config[key], item, f"{where}/{key}"):
                return wrong
        return ""
    if isinstance(config, float) and not math.isfinite(config):
        return f"{where} is {config}"
    return same(config, said, where)


def run_file(seeds: Seeds) -> Kind:
    def judge(content: bytes, result: Any, sealed: bool) -> str:
        said = parse_yaml(content.decode("utf-8-sig"))
        if isinstance(said.get("data"), str):  # a source alone
            said["data"] = {"source": said["data"]}
        return _says(result, said)

    def read(content: bytes, folder: Path) -> Any:
        return read_run_file(written(folder, "run.yaml", content)).model_dump()

    config = parse_run({"data": "digits", "space": "tiny:size=8", "train": {"steps": 6}})
    return Kind("run file", dump_run(config).encode(), read, judge, "yaml")


def override(seeds: Seeds) -> Kind:
    def read(content: bytes, folder: Path) -> Any:
        text = content.decode(errors="surrogateescape")
        return text, parse_run({"data": "digits"}, text.split("\0")[:1]).model_dump()

    def judge(content: bytes, result: Any, sealed: bool) -> str:
        text, found = result
        key, _, value = text.split("\0")[0].partition("=")
        for part in key.split("."):
            found = found[part]
        said = parse_yaml(value)
        found = found["source"] if key == "data" and isinstance(said, str) else found
        return same(found, said, key)

    def fields(content: bytes, rng: Random) -> tuple[bytes, str]:
        key = rng.choice(
            [
                "train.batch_size",
                "train.learning_rate",
                "seed",
                "data",
                "space",
                "train.augment.strong",
                "search.evaluations",
                "train.minutes",
                "train",
                "statistics",
                "train.init",
                "",
                "train.",
            ]
        )
        text, done = damaged_fields({key: rng.choice([32, 0.5, "x", True, [1]])}, rng)
        return f"{key}={text.partition(': ')[2][:-1]}".encode(errors="surrogatepass"), done

    return Kind("--set", b"train.batch_size=32", read, judge, fields=fields)


def settings(seeds: Seeds) -> Kind:
    value = to_settings(NETWORK.dims, NETWORK.largest)

    def read(content: bytes, folder: Path) -> Any:
        settings = read_yaml(written(folder, "settings.yaml", content))
        return to_settings(NETWORK.dims, from_settings(NETWORK.dims, settings))

    def judge(content: bytes, result: Any, sealed: bool) -> str:
        return same(result, parse_yaml(content.decode("utf-8-sig")))

    return Kind("settings", dump_yaml(value).encode(), read, judge, "yaml")


PROFILE = """name: board
description: A board.
runtime: onnxruntime_cpu
threads: 1
precision: fp32
generic: false
cpu: {arch: x86_64, name: EPYC, flags: [avx2]}
provider: CPUExecutionProvider
measure: by hand
limits: {memory_kb: 512, flash_kb: 2048}
"""


def profile(seeds: Seeds) -> Kind:
    def read(content: bytes, folder: Path) -> Any:
        device = load_device(str(written(folder, "board.yaml", content)))
        return {key: getattr(device, key) for key in parse_yaml(PROFILE)}

    def judge(content: bytes, result: Any, sealed: bool) -> str:
        said = parse_yaml(content.decode("utf-8-sig"))
        rest = {"provider": "", "measure": "", "scheme": "", "cpu": {}, "limits": {}}
        found = {key: dict(item) if hasattr(item, "keys") else item for key, item in result.items()}
        said = {**rest, **said}
        said.pop("scheme")
        return same(found, said)

    return Kind("hardware profile", PROFILE.encode(), read, judge, "yaml")


def plugin(seeds: Seeds) -> Kind:
    text = b"""from dataclasses import dataclass
from elastic_nas.spaces import tiny

@dataclass(frozen=True)
class Space(tiny.Space):
    size: int = 16
    name = 'mine'
"""

    def read(content: bytes, folder: Path) -> Any:
        path = written(folder, "mine.py", content)
        return command("describe", f"{path}:size=8", "--child", "smallest", "--classes", 10)

    return Kind("plugin", text, read, nothing_wrong, share=0.5)


# --- the record of a run -------------------------------------------------------------------------


def _copy(seeds: Seeds, folder: Path) -> Path:
    """A copy of the run, made once a process; what a case changes is put back by the next."""
    run = folder / "run"
    if not run.exists():
        shutil.copytree(seeds.run, run, ignore=shutil.ignore_patterns("*.png", "*.svg"))
    return run


def _read_in_run(seeds: Seeds, name: str, reader: Any) -> Any:
    def read(content: bytes, folder: Path) -> Any:
        run = _copy(seeds, folder)
        before = (run / name).read_bytes()
        (run / name).write_bytes(content)
        try:
            return reader(run)
        finally:
            (run / name).write_bytes(before)

    return read


def _query(run: Path) -> Any:
    return json.loads(command("query", run, "--device", DEVICE, "--latency", "5ms", "--json"))


def network_record(seeds: Seeds) -> Kind:
    def reader(run: Path) -> Any:
        opened = RunFolder(run)
        found = [opened.network, list(opened.labels)]
        _query(run)
        return found

    def judge(content: bytes, result: Any, sealed: bool) -> str:
        said, (network, labels) = json.loads(content.decode("utf-8-sig")), result
        found = {"space": network.space_name, "classes": network.classes, "labels": labels}
        same_network = "" if network.identity == said["identity"] else "another network"
        return same_network or same(found, {key: said[key] for key in found})

    content = (seeds.run / "network.json").read_bytes()
    return Kind("network.json", content, _read_in_run(seeds, "network.json", reader), judge, "json")


def ties(seeds: Seeds) -> Kind:
    content = (seeds.run / "ties.json").read_bytes()

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        return same(json.loads(changed.decode("utf-8-sig")), json.loads(content))

    return Kind("ties.json", content, _read_in_run(seeds, "ties.json", _query), judge, "json")


def history(seeds: Seeds) -> Kind:
    ties = json.loads((seeds.run / "ties.json").read_text())

    def reader(run: Path) -> Any:
        rows = read_history(run / "history.jsonl", ties, NETWORK.dims)
        return [(list(r.genotype), r.accuracy, r.n, r.seconds) for r in rows], _query(run)

    def judge(content: bytes, result: Any, sealed: bool) -> str:
        said: dict[str, Any] = {}
        for line in content.split(b"\n")[:-1]:
            row = json.loads(line)
            if row["ties"] == ties:
                genes = [int(gene) for gene in row["genotype"].split(",")]
                figures = (row["accuracy"], row["n"], row["seconds"])
                said.setdefault(row["genotype"], (genes, *figures))
        rows, answer = result
        for genes, *_ in rows:
            if NETWORK.canonical(tuple(genes)) != tuple(genes):
                return f"a genotype that is not canonical: {genes}"
        best = max(said.values(), key=lambda row: row[1])[1]
        return same(rows, list(said.values())) or (
            "" if answer["accuracy"] == best else "not the best"
        )

    content = (seeds.run / "history.jsonl").read_bytes()
    return Kind(
        "history.jsonl", content, _read_in_run(seeds, "history.jsonl", reader), judge, "lines"
    )


def measured(seeds: Seeds) -> Kind:
    genes = {NETWORK.largest: 0.5, NETWORK.smallest: 0.25}

    def read(content: bytes, folder: Path) -> Any:
        path = written(folder, "measured.json", content)
        return read_measured(path, "0" * 64, NETWORK.dims).ms

    def judge(content: bytes, result: Any, sealed: bool) -> str:
        said = json.loads(content.decode("utf-8-sig"))
        rows = {tuple(row["genotype"]): row["ms"] for row in said["children"]}
        return same(dict(result), rows if said["digest"] == "0" * 64 else {})

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        Measured("0" * 64, genes).write(Path(folder) / "m.json")
        content = (Path(folder) / "m.json").read_bytes()
    return Kind("measured.json", content, read, judge, "json")


def speed(seeds: Seeds) -> Kind:
    import os
    import tempfile
    from unittest.mock import patch

    def read(content: bytes, folder: Path) -> Any:
        path = speed_file("board", "0" * 64)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        found = read_speed("board", "0" * 64)
        return None if found is None else (found.factor, found.date, found.why)

    def judge(content: bytes, result: Any, sealed: bool) -> str:
        said = json.loads(content.decode("utf-8-sig"))
        return same(result, (said["factor"], said["date"], said["why"]))

    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, ELASTIC_NAS_HOME=folder):
        write_speed("board", "0" * 64, Speed(1.01, 0.99, 1.03, 9), "")
        content = speed_file("board", "0" * 64).read_bytes()
    return Kind("speed file", content, read, judge, "json")


def log(seeds: Seeds) -> Kind:
    def reader(run: Path) -> Any:
        with redirect_stderr(StringIO()) as said:
            Curves(run, 6, 10).draw(at_once=True)
        check_text(said.getvalue().replace("note: ", ""))

    content = (seeds.run / "log.jsonl").read_bytes()
    read = _read_in_run(seeds, "log.jsonl", reader)
    return Kind("log.jsonl", content, read, nothing_wrong, "lines", share=0.2)


def exported(seeds: Seeds) -> Kind:
    from elastic_nas.pictures import _exported as read_exported

    name = f"fronts/{DEVICE}.exported.json"
    weights = sha256_of(seeds.run / "supernet.safetensors")

    def reader(run: Path) -> Any:
        return read_exported(run / name, weights)

    def judge(content: bytes, result: Any, sealed: bool) -> str:
        if not result:
            return ""
        said = json.loads(content.decode("utf-8-sig"))["children"]
        return same({label: child.model_dump() for label, child in result.items()}, said)

    content = (seeds.run / name).read_bytes()
    return Kind("exported.json", content, _read_in_run(seeds, name, reader), judge, "json")


def resumed(seeds: Seeds) -> Kind:
    """A finished training is asked to go on with another run file."""
    tied = ("seed", "data", "statistics", "space")
    before = parse_yaml((seeds.run / "run.yaml").read_text())

    def reader(run: Path) -> Any:
        original, loop.train = loop.train, lambda *_, **__: None
        try:
            return command("train", "--resume", "--out", run)
        finally:
            loop.train = original
            for name in ("network.json", "run.yaml"):
                (run / name).write_bytes((seeds.run / name).read_bytes())

    def judge(content: bytes, result: Any, sealed: bool) -> str:
        said = {"statistics": "data", **parse_yaml(content.decode("utf-8-sig"))}
        return same(
            {key: said[key] for key in tied if key in said},
            {k: before[k] for k in tied if k in said},
        )

    content = (seeds.run / "run.yaml").read_bytes()
    return Kind(
        "run.yaml of a run",
        content,
        _read_in_run(seeds, "run.yaml", reader),
        judge,
        "yaml",
        share=0.1,
    )
