"""Somebody's exported folder: what is vouched for was recomputed, and nothing of it runs."""

import json
from pathlib import Path

import fake_latency
import numpy as np
import onnx
import pytest
from small_run import DEVICE, cli, done, facts, refused

from elastic_nas import targets
from elastic_nas.export.manifest import KNOWN, MOST_BYTES
from elastic_nas.files import sha256_of, user_folder
from elastic_nas.network import Network
from elastic_nas.scoring import score


@pytest.fixture(scope="module")
def exported(made_run, tmp_path_factory) -> Path:
    """A folder that `export` wrote; not to be changed."""
    folder = tmp_path_factory.mktemp("exported") / "child"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ELASTIC_NAS_HOME", str(folder.parent / "home"))
        done("export", made_run, "--genotype", "smallest", "--out", folder)
    return folder


@pytest.fixture
def child(exported, tmp_path) -> Path:
    """A copy that a test may forge."""
    folder = tmp_path / "child"
    for path in exported.rglob("*"):
        if path.is_file():
            place = folder / path.relative_to(exported)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    return folder


def claims(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def forge(folder: Path, *, everywhere: bool = True, **changes: object) -> None:
    """Change the manifest, and with it the file's own metadata and hash, as a stranger could."""
    manifest = {**claims(folder), **changes}
    if everywhere:
        model = onnx.load(folder / "child.onnx")
        names = {"resolution": "image_size"}
        for prop in model.metadata_props:
            for key, value in changes.items():
                if prop.key == names.get(key, key):
                    prop.value = value if type(value) is str else json.dumps(value)
        onnx.save(model, folder / "child.onnx")
        manifest["sha256"]["child.onnx"] = sha256_of(folder / "child.onnx")
        manifest.setdefault("size_bytes", 0)
        if "size_bytes" not in changes:
            manifest["size_bytes"] = (folder / "child.onnx").stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))


def without_images(folder: Path, **changes: object) -> None:
    """Take the lists of images away, which came later than the rest."""
    manifest = {**claims(folder), **changes}
    del manifest["images"]
    for name in KNOWN:
        (folder / name).unlink()
        del manifest["sha256"][name]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def figures(report: dict) -> dict[str, str]:
    return {row["name"]: row["status"] for row in report["figures"]}


def test_each_figure_is_told_as_it_is_known(child):
    report = facts("verify", child)
    known = figures(report)
    for name in ("hashes", "parity", "size_bytes", "macs", "params", "settings", "resolution",
                 "classes", "genotype", "weights", "normalisation (mean)"):  # fmt: skip
        assert known[name] == "recomputed here", name
    for name in ("accuracy", "space", "created", "oldest_runtime", "labels"):
        assert known[name] == "agrees with the file", name
    for name in ("weights_sha256", "seed", "test_sha256"):
        assert known[name] == "claimed", name
    assert report["verified"] is True
    text = done("verify", child)
    assert "recomputed here" in text
    assert "claimed" in text


FORGERIES = [
    ("macs", lambda m: m["macs"] // 2, "macs: the manifest says"),
    ("params", lambda m: m["params"] + 1, "params: the manifest says"),
    ("size_bytes", lambda m: 1, "size_bytes: the manifest says 1, the file has"),
    ("genotype", lambda m: m["genotype"].replace("0", "1"), "genotype: the file's graph has"),
    ("settings", lambda m: {**m["settings"], "depth": [9]}, "settings: the manifest says"),
    ("space", lambda m: "tiny:size=16", "genotype: the file's graph has"),
    ("preprocess", lambda m: {**m["preprocess"], "mean": [0.5] * 3}, "preprocess.mean"),
    ("accuracy", lambda m: {**m["accuracy"], "top1": 0.99}, "is no whole number of"),
    ("accuracy", lambda m: {**m["accuracy"], "interval_95": [0.9, 1.0]}, "recomputed from top-1"),
    ("parity", lambda m: {**m["parity"], "max_difference": 0.5}, "no such file is exported"),
    ("parity", lambda m: {**m["parity"], "images": 65}, "parity.images: the manifest says 65"),
]


@pytest.mark.parametrize(("key", "value", "said"), FORGERIES)
def test_what_is_forged_everywhere_is_found_where_it_can_be_recomputed(child, key, value, said):
    forge(child, **{key: value(claims(child))})
    assert said in refused("verify", child)


@pytest.mark.parametrize(
    "key", ["task", "data", "created", "oldest_runtime", "accuracy", "latency", "version"]
)
def test_what_the_file_itself_contradicts(child, key):
    changed = {"accuracy": {"top1": 1.0, "split": "test", "n": 4, "interval_95": [0.510109, 1.0]},
               "latency": {**claims(child)["latency"], "note": "x"},
               "created": "2030-01-01T00:00:00Z"}.get(key, "other")  # fmt: skip
    forge(child, everywhere=False, **{key: changed})
    message = refused("verify", child)
    assert key in message
    assert "the file" in message


def test_one_message_names_all_that_disagrees(child):
    forge(child, macs=1, params=2, data="other", everywhere=False)
    message = refused("verify", child)
    assert all(name in message for name in ("macs", "params", "data"))


LATENCY = {"device": DEVICE, "predicted_ms": 1.0, "bound_ms": 1.1, "measured_ms": 1.05, "note": ""}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bound_ms": 0.5}, "predicted_ms 1.0 ms is above bound_ms 0.5 ms"),
        ({"measured_ms": 2.0}, "measured_ms 2.0 ms is above bound_ms 1.1 ms"),
        ({"measured_ms": -1.0}, "see 'latency.measured_ms'"),
        ({"predicted_ms": True}, "see 'latency.predicted_ms'"),
        ({"bound_ms": 10**18}, "see 'latency.bound_ms'"),
        ({"passed_over": ["a", "b"]}, "are no durations"),
        ({"passed_over": ["1 ms"] * 6}, "see 'latency.passed_over'"),
        ({"device": None}, "latencies of no device"),
        ({"device": "../evil.yaml"}, "see 'latency.device'"),
        ({"device": "evil.yaml"}, "is a file, not a name"),
    ],
)
def test_latencies_that_cannot_be(child, changes, said):
    forge(child, latency={**LATENCY, **changes})
    assert said in refused("verify", child)


def test_numbers_that_cannot_be_are_refused_by_value(child):
    for key, value in (("classes", 0), ("resolution", 8.0), ("created", "now"), ("extra", 1),
                       ("created", "9999-99-99T99:99:99Z"),
                       ("genotype", "a"), ("seed", -1), ("weights_sha256", "x")):  # fmt: skip
        before = (child / "manifest.json").read_text()
        forge(child, everywhere=False, **{key: value})
        assert f"see '{key}'" in refused("verify", child)
        (child / "manifest.json").write_text(before)
    (child / "manifest.json").write_bytes(b" " * (MOST_BYTES + 1))
    assert "larger than" in refused("verify", child)


def test_a_device_and_a_space_in_a_manifest_run_no_code(child, monkeypatch):
    proof, code, profile = (child.parent / name for name in ("ran", "evil.py", "evil.yaml"))
    code.write_text(f"open({str(proof)!r}, 'w')\n")
    profile.write_text(
        f"name: evil\ndescription: x\nruntime: {code}\nthreads: 1\nprecision: fp32\ngeneric: true\n"
    )
    monkeypatch.chdir(child.parent)
    for device in (str(profile), "evil.yaml"):
        forge(child, latency={**LATENCY, "device": device})
        refused("verify", child)
    forge(child, latency={**LATENCY, "device": None, **dict.fromkeys(
        ("predicted_ms", "bound_ms", "measured_ms"))}, space=str(code))  # fmt: skip
    report = facts("verify", child)
    assert figures(report)["params"] == "claimed"
    assert not proof.exists()


def test_the_bound_is_held_against_its_table(child, monkeypatch):
    manifest = claims(child)
    network = Network(manifest["space"], manifest["classes"])
    path = user_folder() / "latency_tables" / f"{DEVICE}.json"
    table = fake_latency.table(network)
    table.write(path)
    target = targets.open_target(network, DEVICE, table=path)
    genotype = np.array([tuple(map(int, manifest["genotype"].split(",")))])
    latency = {
        **LATENCY,
        "predicted_ms": float(target.predictor.predict_ms(genotype)[0]),
        "bound_ms": float(target.predictor.bound_ms(genotype)[0]),
        "measured_ms": None,
        "table_sha256": sha256_of(path),
        "speed": 1.0,
    }
    forge(child, latency=latency)
    known = figures(facts("verify", child))
    assert known["predicted_ms"] == known["bound_ms"] == "recomputed here"
    forge(child, latency={**latency, "predicted_ms": latency["predicted_ms"] * 0.9})
    assert "predicted_ms: the manifest says" in refused("verify", child)
    forge(child, latency={**latency, "bound_ms": latency["predicted_ms"] * 1.0001})
    assert "bound_ms: the manifest says" in refused("verify", child)
    hundredth = {key: latency[key] / 100 for key in ("predicted_ms", "bound_ms")}
    forge(child, latency={**latency, **hundredth, "speed": 0.01})
    assert "speed: the manifest says 0.01 times" in refused("verify", child)


def test_accuracy_is_recomputed_on_named_images(child):
    report = facts("verify", child, "--data", "digits")
    assert figures(report)["accuracy"] == "recomputed here"
    assert report["accuracy"]["same_images"] is True
    n = claims(child)["accuracy"]["n"]
    right = round(claims(child)["accuracy"]["top1"] * n)
    low, high = score(np.arange(n) < right + 2)["interval_95"]
    forged = {"top1": (right + 2) / n, "split": "test", "n": n, "interval_95": [low, high]}
    forge(child, accuracy=forged)
    assert "accuracy: the manifest says" in refused("verify", child, "--data", "digits")
    forge(child, test_sha256="0" * 64)
    assert "test_sha256: the manifest says" in refused("verify", child)
    without_images(child, test_sha256="0" * 64)
    other = facts("verify", child, "--data", "digits")  # of other images: within the intervals
    assert other["accuracy"]["same_images"] is False
    assert figures(other)["accuracy"] == "agrees with the file"
    low, high = score(np.arange(n) < n - 1)["interval_95"]
    forge(child, accuracy={**forged, "top1": (n - 1) / n, "interval_95": [low, high]})
    assert "95 % interval" in refused("verify", child, "--data", "digits")


def test_other_classes_are_no_data_for_it(child, tmp_path):
    assert cli("verify", child, "--data", str(tmp_path / "none")).exit_code == 1


def test_a_manifest_of_version_0_1_0_is_verified(child):
    without_images(child)
    manifest = claims(child)
    for key in ("seed", "statistics", "test_sha256"):
        del manifest[key]
    (child / "manifest.json").write_text(json.dumps(manifest))
    report = facts("verify", child, "--data", "digits")
    assert report["accuracy"]["same_images"] is False
    notes = {row["name"]: row["note"] for row in report["figures"]}
    assert "lacks seed, statistics, test_sha256" in notes["version"]
