"""Everything a person can get wrong on the command line: one clear message, nothing harmed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_run import DEVICE, SPACE, cli, done, facts, refused, run_file, snapshot

from elastic_nas.network import Network

NETWORK = Network(SPACE, 10)
BUDGET = ("--device", DEVICE, "--latency", "5ms")


def test_names_that_do_not_exist_are_answered_with_near_ones(run, tmp_path):
    for words, said in (
        (("describe", "bignass"), "did you mean 'bignas'?"),
        (("describe", "TINY"), "did you mean 'tiny'?"),
        (("describe", "tiny:sise=32"), "did you mean 'size'? Options: size=16"),
        (("describe", "tiny:size"), "needs a value"),
        (("describe", "tiny:size=33"), "must be one of"),
        (("describe", "tiny:size=big"), "must be a whole number, got 'big'"),
        (("describe", "./nowhere.py"), "no file 'nowhere.py'"),
        (("describe", "tiny", "--child", "smalest"), "did you mean 'smallest'?"),
        (("describe", "tiny", "--child", "nowhere.yaml"), "cannot read nowhere.yaml"),
        (("describe", "tiny", "--classes", "0"), "classes must be 2 to"),
        (("list", "device"), "did you mean 'devices'?"),
        (("list", "devices", "--run", run.with_name("rum")), "did you mean 'run'?"),
        (("query", run, "--device", "local-ort1t"), "did you mean 'local-ort-1t'?"),
        (("query", run, "--device", "nowhere.yaml"), "no file 'nowhere.yaml'"),
        (("query", run.with_name("ran"), *BUDGET), "did you mean 'run'?"),
        (("query", tmp_path, *BUDGET), "holds no run"),
        (("query", run / "run.yaml", *BUDGET), "is a file, not a run folder"),
        (("search", run, "--device", DEVICE, "--strategy", "evolutoin"), "'evolution'?"),
        (("search", run, "--device", DEVICE, "--evaluations", "0"), "at least 1 evaluation"),
        (("profile", DEVICE), "needs --space NAME or --run DIR"),
        (("profile", "pi", "--space", SPACE), "no device called 'pi'"),
        (("export", run), "needs --device and a budget"),
        (("verify", run), "holds no manifest.json"),
        (("verify", run / "nowhere"), "is no folder"),
        (("train", "digit"), "did you mean 'digits'?"),
        (("train",), "nothing to train on"),
        (("train", "--data", tmp_path / "photos"), "no folder of images"),
        (("train", "digits", "--space", "tinny"), "did you mean 'tiny'?"),
        (("train", "digits", "--set", "search.strategy=anealing"), "no strategy called"),
        (("train", "--resume", "--out", tmp_path / "new"), "holds no run to resume"),
        (("train", "digits", "--epochs", "2", "--minutes", "1"), "give only one of"),
        (("train", "digits", "--epochs", "2", "--set", "train.steps=3"), "give only one of"),
    ):
        assert said in refused(*words), words
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert not Path("runs").exists()


# --- images -----------------------------------------------------------------------------------


def photos(root: Path, **counts: int) -> Path:
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (12, 12, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def test_folders_that_cannot_be_learned_from(tmp_path):
    (tmp_path / "empty").mkdir()
    photos(tmp_path / "one", cats=9)
    photos(tmp_path / "few", cats=9, dogs=1)
    broken = photos(tmp_path / "broken", cats=9, dogs=9)
    (broken / "dogs" / "3.png").write_bytes(b"no image")
    before = snapshot(tmp_path)
    for name, said in (
        ("empty", "empty"),
        ("one", "one"),
        ("few", "'dogs'"),
        ("broken", "3.png"),
    ):
        words = ("--data", tmp_path / name, "--set", "train.steps=1", "--out", tmp_path / "run")
        message = refused("train", *words)
        assert said in message
        assert str(tmp_path / name) in message or name == "folder"
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "run").exists()


def test_a_folder_with_odd_names_trains(tmp_path):
    data = photos(tmp_path / "Fotos \N{CAT FACE} " / ("a long name " * 9), Ä=9, 猫=9)
    file = run_file(tmp_path / "my file.yaml")
    done("train", file, "--data", data, "--out", tmp_path / "run", "--set", "train.steps=1")
    assert "nothing to do" in cli("train", "--resume", "--out", tmp_path / "run").stderr
    assert json.loads((tmp_path / "run" / "network.json").read_text())["labels"] == ["Ä", "猫"]


# --- run files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"train: {batch_sise: 3}", "unknown key 'train.batch_sise'; did you mean"),
        (b"data: a\nseed: 1\ndata: b\n", "'data' stands there twice, again in line 3"),
        (b"train: {batch_size: many}", "train.batch_size: must be a valid integer, got 'many'"),
        (b"train: {batch_size: 1}", "train.batch_size: must be greater than or equal to 2, got 1"),
        (b"train: {learning_rate: .nan}", "train.learning_rate: must be a finite number"),
        (b"train: {epochs: 1, steps: 2}", "train: give only one of epochs, minutes and steps."),
        (b"seed: '1'", "seed: must be a valid integer, got '1'"),
        (b"train: [1, 2", "is not valid YAML: expected ',' or ']'"),
        (b"seed: 2001-99-99", "seed: must be a valid integer, got '2001-99-99'"),
        (b"train: {sync_norm: yes}", "train.sync_norm: must be a valid boolean, got 'yes'"),
        (b"", "holds no settings"),
        (b"just words", "holds no settings"),
        (b"\x00\x01\x02", "is not valid YAML"),
        (b"\xff\xfe\xfd", "is no text file"),
        (b"a: &a [x, x]\nb: [*a, *a]", "aliases are not allowed"),
        (b"[" * 5000, "is not valid YAML"),
        (b"data: !!python/object/apply:os.system ['true']", "is not valid YAML"),
        (b"#" * 1_000_001, "is larger than"),
    ],
)
def test_run_files_that_cannot_be_used(tmp_path, content, said):
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    message = refused("train", file, "--out", tmp_path / "run")
    assert said in message
    assert "mine.yaml" in message
    assert not (tmp_path / "run").exists()


def test_a_folder_in_place_of_a_run_file(tmp_path):
    assert "it is a folder, not a file" in refused("train", tmp_path, "--out", tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed", "needs key=value"),
        ("sead=1", "unknown key 'sead'; did you mean 'seed'?"),
        ("train.batch_size.x=1", "'batch_size' is no section"),
        ("seed=[", "the value is not valid YAML"),
        ("train.device=cuda", "no CUDA GPU here"),
    ],
)
def test_settings_that_cannot_be_made(tmp_path, change, said, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    file = run_file(tmp_path / "run.yaml")
    assert said in refused("train", file, "--set", change, "--out", tmp_path / "run")


# --- latency tables ---------------------------------------------------------------------------


def spoil(path: Path, change) -> Path:
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.update(schema="other/1"), "its schema is not 'elastic-latency/2'"),
        (lambda t: t.pop("provenance"), "provenance"),
        (lambda t: t["provenance"].pop("date"), "provenance.date: it is missing"),
        (lambda t: t["blocks"][0].update(ms=-1.0), "must be greater than 0, got -1.0"),
        (lambda t: t["blocks"][0].update(ms=float("nan")), "NaN is not a number"),
        (lambda t: t["blocks"][0].update(ms=float("inf")), "Infinity is not a number"),
        (lambda t: t.update(precision="int8"), "precision int8, but local-ort-1t needs fp32"),
        (lambda t: t["device"].update(name="pi"), "measured for device pi"),
        (lambda t: t["runtime"].update(threads=2), "measured for number of threads 2"),
        (lambda t: t.update(blocks=t["blocks"][3:]), "elastic-nas profile local-ort-1t --space"),
        (lambda t: t.update(models={}), "no fitted model of tiny:size=8"),
    ],
)
def test_tables_that_cannot_be_used(run, tmp_path, change, said):
    path = spoil(run / "latency_tables" / f"{DEVICE}.json", change)
    for words in (
        ("predict", DEVICE, SPACE, "--classes", 10, "--table", path),
        ("query", run, *BUDGET, "--table", path),
        ("query", run, *BUDGET),
        ("search", run, "--device", DEVICE),
        ("export", run, *BUDGET, "--out", tmp_path / "child"),
    ):
        assert said in refused(*words)
    assert not (tmp_path / "child").exists()


def test_files_that_are_no_tables(run, tmp_path):
    path = run / "latency_tables" / f"{DEVICE}.json"
    path.write_text(path.read_text()[:2000])
    assert "is not valid JSON" in refused("query", run, *BUDGET)
    assert "is not valid JSON" in refused("profile", DEVICE, "--run", run)
    assert "there is no such file" in refused(
        "query", run, *BUDGET, "--table", tmp_path / "no.json"
    )
    message = refused("predict", "x86-epyc-avx512-ort-1t", SPACE, "--table", tmp_path)
    assert "there is no such file" in message
    path.unlink()
    assert f"elastic-nas profile {DEVICE}" in refused("query", run, *BUDGET)


# --- genotypes and budgets --------------------------------------------------------------------


def test_genotypes_that_do_not_fit(run, tmp_path):
    n = len(NETWORK.dims)
    for genotype, said in (
        ("0,1", f"{n} genes"),
        (",".join("9" * n), "gene resolution is 9, but it must be 0 to 2"),
        (",".join(["-1"] * n), "is not a genotype"),
        ("0;1", "is not a genotype"),
        ("", "is not a genotype"),
        ("../../x", "is not a genotype"),
    ):
        words = ("export", run, "--genotype", genotype, "--out", tmp_path / "child")
        assert said in refused(*words)
        assert said in refused("describe", SPACE, "--child", genotype)
    settings = tmp_path / "settings.yaml"
    settings.write_text("resolution: 8\n")
    assert "settings need exactly the keys" in refused("describe", SPACE, "--child", settings)
    assert not (tmp_path / "child").exists()


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (["--latency", "0ms"], "must be positive"),
        (["--latency", "-3ms"], "must be positive"),
        (["--latency", "5 parsecs"], "'5 parsecs' is not a duration"),
        (["--latency", "5"], "with a unit us, ms or s"),
        (["--latency", "nanms"], "is not a duration"),
        (["--latency", "1e999s"], "finite"),
        (["--params", "0"], "must be positive"),
        (["--macs", "2 apples"], "is not a count"),
        (["--size", "-4MB"], "must be positive"),
        (["--latency", "1us"], "the smallest child is bounded at"),
        (["--params", "10"], "the smallest child has"),
    ],
)
def test_budgets_that_cannot_be_kept(run, tmp_path, budget, said):
    for words in (
        ("query", run, "--device", DEVICE, *budget),
        ("search", run, "--device", DEVICE, *budget),
        ("export", run, "--device", DEVICE, *budget, "--out", tmp_path / "child"),
    ):
        assert said in refused(*words)
    assert not (tmp_path / "child").exists()


def test_what_the_error_advises_is_enough(run):
    message = refused("query", run, "--device", DEVICE, "--latency", "1us")
    advised = message.split("Raise --latency to ")[1].split(" or more")[0]
    assert facts("query", run, "--device", DEVICE, "--latency", advised)["genotype"]
