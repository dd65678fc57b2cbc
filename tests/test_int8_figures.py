"""For an int8 device both forms are scored: the fp32 file, and the form whose latency is told."""

import json

import numpy as np
import onnx
import pytest
from small_run import cli, done, facts, table_of_here

from elastic_nas.data.dataset import load_dataset
from elastic_nas.export.onnx_file import logits_of
from elastic_nas.files import sha256_of
from elastic_nas.latency.devices import load_device
from elastic_nas.runs import RunFolder
from elastic_nas.runtimes._quantise import AT_ONCE, ranges_of
from elastic_nas.scoring import SEEN_BY_INT8, score
from elastic_nas.targets import runtime_of
from elastic_nas.training.evaluation import some

DEVICE = "local-ort-int8-1t"


@pytest.fixture
def child(run, tmp_path, stopped_clock):
    """An export for an int8 device of this machine."""
    folder, runtime = RunFolder(run), runtime_of(load_device(DEVICE))
    table = table_of_here(folder.network)
    table.device["name"] = DEVICE
    table.runtime.update(runtime.describe())
    table.precision = "int8"
    table.write(folder.table(DEVICE))
    words = ("export", run, "--device", DEVICE, "--genotype", "largest", "--out", tmp_path / "int8")
    return tmp_path / "int8", facts(*words), words


def test_the_form_that_was_timed_is_scored_and_named(child):
    folder, manifest, words = child
    int8, data = manifest["int8"], load_dataset("digits")
    model = (folder / "child.onnx").read_bytes()
    size = manifest["resolution"]
    seen = some(data.train, SEEN_BY_INT8).deployed(data.preprocess, size).astype(np.float32)
    runtime = runtime_of(load_device(DEVICE))
    form = runtime.convert(model, (3, size, size), seen)
    x = data.test.deployed(data.preprocess, size)
    right = runtime.run_converted(form, x.astype(np.float32)).argmax(1) == data.test.labels
    assert int8["top1"] == pytest.approx(right.mean())
    assert (int8["n"], int8["calibration_images"]) == (len(right), SEEN_BY_INT8)
    fp32 = logits_of(model, x).argmax(1) == data.test.labels
    assert manifest["accuracy"]["top1"] == pytest.approx(fp32.mean())
    stored = {p.key: p.value for p in onnx.load(folder / "child.onnx").metadata_props}
    assert json.loads(stored["int8"]) == int8
    told = " ".join(done(*words).split())
    assert "of the fp32 file child.onnx" in told
    assert "of its int8 form, whose latency this is" in told
    assert "not written" in told


def test_verify_recomputes_both(child):
    folder, manifest, _ = child
    report = facts("verify", folder, "--data", "digits")
    known = {row["name"]: row["status"] for row in report["figures"]}
    assert known["accuracy"] == known["int8"] == "recomputed here"
    n = manifest["int8"]["n"]
    better = np.arange(n) < round(manifest["int8"]["top1"] * n) + 40
    forged = {**manifest["int8"], **score(better)}
    model = onnx.load(folder / "child.onnx")
    next(p for p in model.metadata_props if p.key == "int8").value = json.dumps(forged)
    onnx.save(model, folder / "child.onnx")
    manifest = {**manifest, "int8": forged, "size_bytes": (folder / "child.onnx").stat().st_size}
    manifest["sha256"]["child.onnx"] = sha256_of(folder / "child.onnx")
    del manifest["folder"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert cli("verify", folder).exit_code == 0  # it is claimed consistently
    assert "int8: the manifest says" in cli("verify", folder, "--data", "digits").stderr


def test_ranges_of_many_images_are_those_of_all_at_once(child):
    folder, _, _ = child
    model, images = (folder / "child.onnx").read_bytes(), load_dataset("digits").train
    x = images.subset(range(2 * AT_ONCE + 3)).deployed(load_dataset("digits").preprocess, 8)
    x = x.astype(np.float32)
    parts = [ranges_of(model, x[start : start + 1]) for start in range(len(x))]
    for name, (low, high) in ranges_of(model, x).items():
        assert low == pytest.approx(min(part[name][0] for part in parts), rel=1e-5, abs=1e-5)
        assert high == pytest.approx(max(part[name][1] for part in parts), rel=1e-5, abs=1e-5)
