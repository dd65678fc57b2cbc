"""From a trained run to a verified file: what is checked, what is said, what is refused."""

import json
from dataclasses import replace

import fake_latency
import numpy as np
import onnx
import pytest

from elastic_nas import delivery, pipeline, verification
from elastic_nas.budgets import Budgets
from elastic_nas.data.dataset import load_dataset
from elastic_nas.data.preprocess import Preprocess
from elastic_nas.errors import ExportMismatch, InfeasibleBudget, RunFolderError
from elastic_nas.export.onnx_file import compare, logits_of
from elastic_nas.files import writing
from elastic_nas.intervals import wilson
from elastic_nas.latency.devices import load_device
from elastic_nas.latency.table import LatencyTable
from elastic_nas.machine import environment
from elastic_nas.measure import Timing
from elastic_nas.network import Network
from elastic_nas.run_file import parse_run
from elastic_nas.runs import RunFolder
from elastic_nas.targets import runtime_of

DEVICE = "local-ort-1t"


def table_of_this_machine(network: Network) -> LatencyTable:
    """Made-up figures under this machine's own provenance, so that files are timed here."""
    table = fake_latency.table(network)
    runtime = runtime_of(load_device(DEVICE))
    table.device.update({**environment(), "name": DEVICE})
    table.runtime.update(runtime.describe())
    return table


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    """A short training on digits, searched on made-up latencies."""
    folder = tmp_path_factory.mktemp("run")
    train = {"steps": 8, "batch_size": 64, "augment": {"strong": "none"}, "threads": 1}
    run = pipeline.train(parse_run({"space": "tiny:size=8", "train": train}), folder)
    table_of_this_machine(run.network).write(run.table(DEVICE))
    pipeline.search(run, DEVICE, Budgets(), evaluations=8)
    return run


def timed(monkeypatch, *measured_ms: float | str) -> None:
    """Let the stop-watch answer with these figures, the last one for ever; a text refuses."""
    answers = list(measured_ms)

    def measure(runs, protocol, owns_threads=False):
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        ms, refused = (answer, "") if isinstance(answer, float) else (float("nan"), answer)
        return {"child": Timing(ms, ms, ms, ms, 9.0, 30, 0.9, [ms], refused)}

    monkeypatch.setattr(delivery, "measure", measure)


@pytest.fixture
def exported(run, tmp_path, monkeypatch):
    """The best child of the whole run, and its manifest."""
    timed(monkeypatch, 0.1)
    budgets = Budgets(latency_ms=1e4)
    return tmp_path / "child", delivery.export(
        run, tmp_path / "child", device_name=DEVICE, budgets=budgets
    )


def test_the_file_is_the_child_and_is_scored_on_the_test_split(run, exported):
    folder, manifest = exported
    data = load_dataset("digits")
    preprocess = Preprocess.from_description(manifest["preprocess"])
    assert preprocess == data.preprocess
    pixels = data.test.deployed(preprocess, manifest["resolution"])
    right = logits_of((folder / "child.onnx").read_bytes(), pixels).argmax(1) == data.test.labels
    accuracy = manifest["accuracy"]
    assert accuracy["top1"] == pytest.approx(right.mean())
    assert (accuracy["split"], accuracy["n"]) == ("test", len(data.test))
    assert accuracy["interval_95"] == pytest.approx(list(wilson(int(right.sum()), len(right))))
    assert manifest["parity"]["images"] == 64
    assert manifest["parity"]["top1_agreement"] == 1
    assert manifest["parity"]["max_difference"] <= 1e-4
    assert manifest["size_bytes"] == (folder / "child.onnx").stat().st_size


def test_the_best_child_within_the_budget_is_chosen(run, exported):
    _, manifest = exported
    answers, _ = pipeline.query(run, DEVICE, Budgets(latency_ms=1e4))
    best = answers[0].plain()
    assert manifest["genotype"] == best["genotype"]
    assert manifest["settings"] == best["settings"]
    assert manifest["search_validation"] == {"accuracy": best["accuracy"], "n": best["n"]}
    latency = manifest["latency"]
    assert latency["predicted_ms"] == pytest.approx(best["predicted_ms"])
    assert latency["bound_ms"] == pytest.approx(best["bound_ms"])
    assert latency["measured_ms"] == 0.1
    assert latency["passed_over"] == []


def test_metadata_travels_in_the_file(exported):
    folder, manifest = exported
    model = onnx.load(folder / "child.onnx")
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(metadata["names"]) == {str(i): str(i) for i in range(10)}
    assert json.loads(metadata["settings"]) == manifest["settings"]
    assert json.loads(metadata["preprocess"]) == manifest["preprocess"]
    assert metadata["genotype"] == manifest["genotype"]
    assert json.loads(metadata["latency"])["measured_ms"] == 0.1
    assert [node.op_type for node in model.graph.node[:2]] == ["Mul", "Add"]  # normalisation
    assert (folder / "labels.txt").read_text().split() == [str(i) for i in range(10)]
    assert sorted(p.name for p in folder.iterdir()) == [
        "child.onnx", "labels.txt", "manifest.json", "test_data",
    ]  # fmt: skip


def test_a_child_over_the_budget_when_measured_gives_way_to_the_next(
    run, tmp_path, monkeypatch, capsys
):
    answers, _ = pipeline.query(run, DEVICE, Budgets(latency_ms=1e4))
    timed(monkeypatch, 2e4, 0.1)
    manifest = delivery.export(
        run, tmp_path / "child", device_name=DEVICE, budgets=Budgets(latency_ms=1e4)
    )
    successor = next(a for a in answers[1:] if a.bound_ms < answers[0].bound_ms)
    assert manifest["genotype"] == successor.plain()["genotype"]
    assert len(manifest["latency"]["passed_over"]) == 1
    assert "trying the next child on the front" in capsys.readouterr().err


def test_no_child_that_keeps_the_budget_when_measured_is_an_error(run, tmp_path, monkeypatch):
    timed(monkeypatch, 2e4)
    with pytest.raises(InfeasibleBudget, match="when measured here"):
        delivery.export(
            run, tmp_path / "child", device_name=DEVICE, budgets=Budgets(latency_ms=1e4)
        )
    assert not (tmp_path / "child").exists()


def test_a_child_that_takes_longer_than_its_bound_is_promised_no_less(run, tmp_path, monkeypatch):
    timed(monkeypatch, 0.5)
    manifest = delivery.export(
        run, tmp_path / "child", device_name=DEVICE, budgets=Budgets(latency_ms=1e4)
    )
    latency = manifest["latency"]
    assert latency["bound_ms"] == latency["measured_ms"] == 0.5
    assert "the bound was raised to what was measured" in latency["note"]
    verification.verify(tmp_path / "child")
    timed(monkeypatch, 0.6)  # a fifth more, on the very machine
    assert "above its bound" in verification.verify(tmp_path / "child")["latency"]["note"]
    timed(monkeypatch, 1.6)
    with pytest.raises(ExportMismatch, match="measured again on the very machine"):
        verification.verify(tmp_path / "child")


def test_two_exports_into_one_folder_are_not_made_at_once(run, tmp_path):
    with writing(tmp_path / "child"), pytest.raises(RunFolderError, match="being written by"):
        delivery.export(run, tmp_path / "child", genotype="smallest")
    assert not (tmp_path / "child").exists()


def test_a_busy_machine_is_a_warning(run, tmp_path, monkeypatch, capsys):
    timed(monkeypatch, "the machine is busy")
    manifest = delivery.export(
        run, tmp_path / "child", device_name=DEVICE, budgets=Budgets(latency_ms=1e4)
    )
    assert manifest["latency"]["measured_ms"] is None
    assert "the machine is busy" in manifest["latency"]["note"]
    assert "close other programs" in capsys.readouterr().err


def test_elsewhere_nothing_is_measured(run, tmp_path):
    table = LatencyTable.read(run.table(DEVICE))
    table.device["cpu"] = "another CPU"
    table.write(tmp_path / "table.json")
    manifest = delivery.export(
        run,
        tmp_path / "child",
        device_name=DEVICE,
        budgets=Budgets(latency_ms=1e4),
        table=tmp_path / "table.json",
    )
    assert manifest["latency"]["measured_ms"] is None
    assert f"not measured on {DEVICE}" in manifest["latency"]["note"]
    assert any("stale" in note for note in manifest["latency"]["notes"])


def test_a_child_that_was_never_searched_can_be_exported(run, tmp_path):
    genotype = ",".join("0" for _ in run.network.dims)
    manifest = delivery.export(run, tmp_path / "child", genotype=genotype)
    assert manifest["genotype"] == genotype
    assert manifest["latency"]["device"] is None


def test_a_mismatch_is_an_error_and_leaves_no_file(run, tmp_path, monkeypatch):
    def off_by_a_little(child, x):
        return onnx_file_child_logits(child, x) + np.float32(0.1)

    onnx_file_child_logits = delivery.child_logits
    monkeypatch.setattr(delivery, "child_logits", off_by_a_little)
    with pytest.raises(ExportMismatch, match="differs from the child"):
        delivery.export(run, tmp_path / "child", genotype=",".join("0" * len(run.network.dims)))
    assert list(tmp_path.iterdir()) == []


def test_compare_refuses_what_it_must():
    expected = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    assert compare(expected, expected + np.float32(1e-5), "x")["top1_agreement"] == 1
    for got in (
        expected + np.float32(1e-3),
        np.full_like(expected, np.nan),
        expected[:1],
    ):
        with pytest.raises(ExportMismatch):
            compare(expected, got, "x")
    close = np.array([[1.0, 1.0 - 1e-6]], np.float32)
    with pytest.raises(ExportMismatch, match="agreement"):
        compare(close, close[:, ::-1].copy(), "x")


def test_verify_rechecks_outputs_and_latency(exported, monkeypatch):
    folder, _ = exported
    timed(monkeypatch, 0.11)
    report = verification.verify(folder)
    assert report["parity"]["top1_agreement"] == 1
    assert report["latency"]["measured_ms"] == 0.11
    assert report["latency"]["note"] == ""


def test_verify_finds_another_function_in_the_file(exported):
    folder, manifest = exported
    model = onnx.load(folder / "child.onnx")
    weight = next(w for w in model.graph.initializer if w.name == "classifier.linear.bias")
    values = onnx.numpy_helper.to_array(weight) + np.float32(0.5)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, folder / "child.onnx")
    with pytest.raises(ExportMismatch, match="was changed"):
        verification.verify(folder)
    manifest["sha256"]["child.onnx"] = delivery.sha256_of(folder / "child.onnx")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportMismatch, match="differs from the child"):
        verification.verify(folder)


def test_verify_on_another_machine_measures_only_when_asked(exported, monkeypatch):
    folder, _ = exported
    here = verification.this_machine(load_device(DEVICE))
    monkeypatch.setattr(verification, "this_machine", lambda _: {**here, "cpu": "another CPU"})
    timed(monkeypatch, 0.11)
    latency = verification.verify(folder)["latency"]
    assert latency["measured_ms"] is None
    assert "not measured on" in latency["note"]
    asked = verification.verify(folder, DEVICE)["latency"]
    assert asked["measured_ms"] == 0.11
    assert "another machine" in asked["note"]


def test_export_adds_the_child_to_the_picture(run, exported):
    shown = json.loads(run.exported(DEVICE).read_text())
    assert [entry["measured_ms"] for entry in shown["children"].values()][-1] == 0.1
    for kind in ("png", "svg"):
        assert run.front(DEVICE).with_suffix(f".{kind}").stat().st_size > 5000


def test_a_second_device_reuses_the_history(run, tmp_path, monkeypatch):
    before = run.history.read_text()
    table = LatencyTable.read(run.table(DEVICE))
    table.device["name"] = "local-ort-2t"
    table.runtime["threads"] = 2
    table.write(tmp_path / "two.json")
    front = pipeline.search(
        run, "local-ort-2t", Budgets(), evaluations=8, table=tmp_path / "two.json"
    )
    assert front
    assert run.history.read_text() == before


def test_file_sizes_are_bounded(run, exported):
    _, manifest = exported
    answers, _ = pipeline.query(run, DEVICE, Budgets(latency_ms=1e4))
    assert manifest["size_bytes"] <= answers[0].size_bytes


def test_a_small_validation_split_does_not_shrink_the_parity_check(run, tmp_path, monkeypatch):
    data = load_dataset("digits")
    few = replace(data, validation=data.validation.subset(range(12)))
    monkeypatch.setattr("elastic_nas.data.dataset.load_dataset", lambda *_: few)
    monkeypatch.setattr("elastic_nas.training.belongs.check_belongs", lambda *_: None)
    manifest = delivery.export(
        run, tmp_path / "child", genotype=",".join("0" * len(run.network.dims))
    )
    assert manifest["parity"]["images"] == 64
