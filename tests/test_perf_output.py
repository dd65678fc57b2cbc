"""What benchmark programs print becomes a kit's result; the scripts are run with stand-ins."""

import json
import os
import re
import subprocess

import pytest
from small_kit import BOARD, NETWORK, unpacked, written

from elastic_nas.errors import TableError
from elastic_nas.kit_figures import digest
from elastic_nas.latency.kit_result import is_result, read_result
from elastic_nas.latency.kit_table import table_from
from elastic_nas.latency.perf_output import UNFILTERED
from elastic_nas.latency.table import LatencyTable

OLD_PERF_TEST = """\
models,0.00521,1024,50,0
models,0.00519,1024,50,1

Min Latency is 0.0049sec
Max Latency is 0.0073sec
P50 Latency is 0.00521sec
P90 Latency is 5.9e-03sec
P95 Latency is 0.0061sec
"""
NEW_PERF_TEST = """\
Session creation time cost: 0.0419 s
Total inference requests: 50
Average inference time cost: 5.3 ms
Runs:50
Min Latency: 0.0049 s
Max Latency: 0.0073 s
P50 Latency: 0.00521 s
P90 Latency: 5.9e-03 s
"""
BENCHMARK_MODEL = """\
INFO: Running benchmark for at least 3 iterations and at least 0.5 seconds
INFO: count=9 first=9000 curr=5100 min=5000 max=9000 avg=5600.5 std=15
INFO: Running benchmark for at least 50 iterations and at least 1 seconds
INFO: count=50 first=5300 curr=5210 min=4900 max=7300 avg=5.3e+03 std=25 {rest}
INFO: Inference timings in us: Init: 5579, First inference: 9000, Warmup (avg): 5600, \
Inference (avg): 5.3e+03
"""


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit")
    return unpacked(written(folder / "kit.zip"), folder / "kit")


def printed(kit, program, text, tmp_path, **environment):
    """What a script prints where the program prints this text."""
    fake = tmp_path / "program"
    fake.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    fake.chmod(0o755)
    known = {"PATH": os.environ["PATH"], "PROGRAM": str(fake), "VERSION": "1.22.0", **environment}
    ended = subprocess.run(
        ["sh", str(kit / "bare" / f"{program}.sh")],
        env=known,
        capture_output=True,
        text=True,
        check=False,
    )
    path = tmp_path / "output.txt"
    path.write_text(ended.stdout)
    return path, ended


@pytest.mark.parametrize("text", [OLD_PERF_TEST, NEW_PERF_TEST])
def test_onnxruntime_perf_test(kit, tmp_path, text):
    path, ended = printed(kit, "onnxruntime", text, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert is_result(path)
    result = read_result(path)
    assert result.complete
    assert result.runtime["version"] == "1.22.0"
    assert result.runtime["provider"] == "CPUExecutionProvider"
    row = result.groups[0][1]
    figures = (row.timing.ms, row.timing.p10, row.timing.p90, row.timing.n, row.timing.accept)
    assert figures == pytest.approx((5.21, 4.9, 5.9, 150, 1.0))
    assert row.timing.round_ms == pytest.approx([5.21] * 3)
    table = table_from(result, NETWORK, BOARD)
    assert table.protocol["filter"] == UNFILTERED
    assert table.protocol["rounds"] == 3
    assert table.device["cores"] == os.cpu_count()
    assert table.provenance["date"].endswith("+00:00")
    assert [visit["stolen_share"] for visit in table.provenance["visits"]] == [None]


def test_a_table_of_such_an_output_can_be_read_again(kit, tmp_path):
    path, _ = printed(kit, "onnxruntime", OLD_PERF_TEST, tmp_path)
    fast = {"null": "0.0000040", "c0": "0.0300000"}
    sections = re.split(r"(?m)^(?=== model )", path.read_text())
    names = [section.removeprefix("== model ").partition("\n")[0] for section in sections]
    texts = [
        re.sub(r"(?<=Latency is )[0-9.e-]+(?=sec)", fast.get(name, "0.0010000"), section)
        for name, section in zip(names, sections, strict=True)
    ]
    path.write_text("".join(texts))
    table = table_from(read_result(path), NETWORK, BOARD)
    table.write(tmp_path / "table.json")
    assert LatencyTable.read(tmp_path / "table.json") == table


@pytest.mark.parametrize(
    ("rest", "middle", "high"),
    [("p5=4950 median=5200 p95=6900", 5.2, 6.9), ("", 5.3, 7.3)],
)
def test_litert_benchmark_model(kit, tmp_path, rest, middle, high):
    text = BENCHMARK_MODEL.format(rest=rest)
    path, _ = printed(kit, "litert", text, tmp_path)
    result = read_result(path)
    assert (result.runtime["name"], result.runtime["provider"]) == ("litert", "CPU")
    timing = result.groups[0][1].timing
    figures = (timing.ms, timing.p10, timing.p90, timing.n)
    assert figures == pytest.approx((middle, 4.9, high, 150))


def test_the_version_must_be_said(kit, tmp_path):
    path, ended = printed(kit, "onnxruntime", NEW_PERF_TEST, tmp_path, VERSION="")
    assert ended.returncode != 0
    assert "say the version of onnxruntime" in ended.stderr
    assert not is_result(path)


def test_a_program_that_fails_is_quoted(kit, tmp_path):
    path, _ = printed(kit, "onnxruntime", "cannot open shared object file", tmp_path)
    with pytest.raises(TableError, match=r"no figures of model .*cannot open shared object file"):
        read_result(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("== elastic-kit onnxruntime", "== elastic-kit ncnn", "comes from 'ncnn', not from"),
        ("== machine", "== engine", "lacks the plan or the machine"),
        ('"classes": 10', '"classes": 11', "its plan is damaged"),
        ("P50 Latency: 0.00521", "P50 Latency: 0.0", "rounds of .* cannot be"),
        ("P50 Latency: 0.00521", "P50 Latency: 1e400", "rounds of .* cannot be"),
        ("P50 Latency: 0.00521", "P50 Latency: 1.2.3", "there are no figures"),
        ("P50 Latency: 0.00521", "P50 Latency: -1", "there are no figures"),
        ("P50 Latency: 0.00521", "P50 Latency: " + "1" * 5000, "there are no figures"),
        ("P50 Latency", "P51 Latency", "there are no figures"),
        ("requests: 50", "requests: 0", "rounds of .* cannot be"),
        ("== model b0", "== model b999", "figures of 'b999', which its plan has not"),
        ("onnxruntime 1.22.0", "onnxruntime 1.\x1b[2J", "runtime.version"),
    ],
)
def test_damaged_output_is_one_clear_error(kit, tmp_path, old, new, message):
    path, _ = printed(kit, "onnxruntime", NEW_PERF_TEST, tmp_path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(TableError, match=message):
        read_result(path)


def replanned(path, *keys, to):
    """The plan in an output changed, with a hash that is right."""
    lines = path.read_text().split("\n")
    place = lines.index("== plan") + 1
    plan = json.loads(lines[place])
    inner = plan
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    lines[place] = json.dumps({**plan, "sha256": digest(plan)})
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("anchors",), None),
        (("runtime",), []),
        (("protocol",), {}),
        (("protocol", "blocks", "seed"), "7"),
        (("network",), 3),
        (("children", 0, "file"), 3),
        (("blocks", 0), "null"),
    ],
)
def test_a_plan_of_the_right_hash_that_cannot_be_is_one_error(kit, tmp_path, keys, value):
    path, _ = printed(kit, "onnxruntime", NEW_PERF_TEST, tmp_path)
    replanned(path, *keys, to=value)
    with pytest.raises(TableError, match="its plan cannot be"):
        read_result(path)


@pytest.mark.parametrize("program", ["onnxruntime", "litert"])
@pytest.mark.parametrize(
    "text",
    [
        "Inference timings in us count=1 min=" + "a" * 10_000_000,
        "Inference timings in us: " + "count=min=" * 1_000_000,
        "Min Latency: " * 1_000_000,
        "Min Latency: " + "1" * 10_000_000,
        "\0\xff" * 1000,
        "",
    ],
)
def test_what_no_program_prints_is_refused_at_once(kit, tmp_path, program, text):
    path, _ = printed(kit, program, "here", tmp_path)
    path.write_text(path.read_text().replace("here", text, 1))
    with pytest.raises(TableError, match="there are no figures"):
        read_result(path)


def test_a_phone_ends_its_lines_as_it_likes(kit, tmp_path):
    path, _ = printed(kit, "onnxruntime", NEW_PERF_TEST, tmp_path)
    known = read_result(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_result(path) == known


def test_a_script_that_was_stopped_is_unfinished(kit, tmp_path):
    path, _ = printed(kit, "onnxruntime", NEW_PERF_TEST, tmp_path)
    text = path.read_text()
    path.write_text(text[: text.rindex("== model")])
    result = read_result(path)
    assert not result.complete
    with pytest.raises(TableError, match="not finished"):
        table_from(result, NETWORK, BOARD)
