"""The command line from outside: what each command prints, where, and what it imports."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_run import DEVICE, SPACE, cli, config, done, facts, refused, run_file, table_of_here
from typer.main import get_command

from elastic_nas import plugins
from elastic_nas.cli.app import app
from elastic_nas.cli.tables import columns
from elastic_nas.genotype import format_genotype
from elastic_nas.network import Network
from elastic_nas.runtimes._runtime import PackagedRuntime

COMMANDS = get_command(app).commands
HEAVY = ["torch", "onnx", "onnxruntime", "scipy", "matplotlib", "sklearn", "PIL", "rich"]
MODULE = [sys.executable, "-m", "elastic_nas"]


def outside(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [*MODULE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def test_every_command_has_a_help_text_of_readable_width():
    assert set(COMMANDS) == {
        "demo", "train", "profile", "kit", "search", "query", "export", "verify", "describe",
        "predict", "list", "import-ofa", "train-child", "trust",
    }  # fmt: skip
    for name, command in COMMANDS.items():
        text = done(name, "--help")
        assert all(len(line) <= 80 for line in text.splitlines())
        for option in command.params:
            assert option.opts[-1] in text or option.metavar in text
            assert getattr(option, "help", None), f"{name} {option.name}"
    assert "elastic-nas demo" in done("--help")
    assert re.fullmatch(r"elastic-nas \d+\.\d+\.\d+\n", done("--version"))


def test_without_a_command_the_help_is_shown():
    result = cli()
    assert "Usage" in result.stdout + result.stderr
    assert result.exit_code in (0, 2)


def test_wrong_usage_is_status_2():
    for words in (["nonsense"], ["query"], ["describe", "tiny", "--nonsense"]):
        result = cli(*words)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "Error" in result.stderr


HOSTILE = ("a\0b", "\udcff", "\ud800", "\x1b[2J\x07", "\n\n", "\u202eabc", "x" * 10**5)
NUMBERS = ("9" * 20, "1" * 5000, "nan", "inf", "-inf", "1e400", "-5", "0", "", "five")


def one_message(*words: object) -> str:
    """What a command says that can do nothing with its arguments."""
    result = cli(*words)
    assert result.exit_code in (1, 2), words
    assert result.stdout == ""
    assert len(result.stderr) < 2000
    assert result.stderr.replace("\n", "").isprintable()
    assert len(re.findall(r"^(?:error|Error): ", result.stderr, re.M)) == 1, result.stderr
    return result.stderr


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_arguments_that_cannot_be_get_one_printable_message(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (
        [], ["describe"], ["list"], ["verify"], ["trust"], ["search"],
        ["describe", "tiny", "--child"], ["profile", "local-ort-1t", "--run"],
        ["query", "run", "--device", "local-ort-1t", "--latency"],
        ["train", "--data"], ["kit", "--space", "tiny", "--device"], ["list", "devices", "--run"],
        ["predict", DEVICE], ["train", "digits", "--set"], ["demo", "--nonsense"],
    ):  # fmt: skip
        one_message(*words, text)
        one_message(*words, f"--{text}")


@pytest.mark.parametrize("number", NUMBERS, ids=ascii)
def test_numbers_that_cannot_be_get_one_message(number, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (
        ["train", "digits", "--minutes"], ["train", "digits", "--epochs"],
        ["describe", "tiny", "--classes"], ["predict", DEVICE, "tiny", "--classes"],
        ["query", run, "--device", DEVICE, "--level"], ["predict", DEVICE, "tiny", "--level"],
        ["search", run, "--device", DEVICE, "--evaluations"],
        ["query", run, "--device", DEVICE, "--latency"],
    ):  # fmt: skip
        if words[0] in ("describe", "predict", "query") or number[:1] not in "19" or not number:
            one_message(*words, number)
    assert not list(tmp_path.glob("runs"))


# --- widths -----------------------------------------------------------------------------------


def too_wide(text: str, width: int = 80) -> list[str]:
    return [line for line in text.splitlines() if len(line) > width]


def test_summaries_are_whole_sentences():
    text = " ".join(done("--help").split())
    assert "..." not in text.partition("Commands:")[2]
    for command in COMMANDS.values():
        assert command.short_help.endswith(".")
        assert command.short_help in text


def test_tables_fit_a_terminal_of_80_columns(made_run, tmp_path, monkeypatch, stopped_clock):
    shutil.copytree(made_run, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    device, bignas = ("--device", DEVICE), Network("bignas", 10)
    table_of_here(bignas).write(tmp_path / "table.json")
    for words in (
        *(["list", kind] for kind in ("spaces", "strategies", "devices", "runtimes", "tasks")),
        ["list", "devices", "--run", "run"],
        *(["describe", space] for space in plugins.available("spaces")),
        *(["describe", space, "--child", "largest"] for space in plugins.available("spaces")),
        ["predict", DEVICE, "bignas", "--classes", "10", "--table", "table.json"],
        ["search", "run", *device],
        ["query", "run", *device, "--latency", "5ms"],
        ["export", "run", *device, "--latency", "5ms", "--out", "child"],
        ["verify", "child"],
    ):
        assert not too_wide(done(*words)), words


def test_devices_are_grouped_by_what_can_be_done_now(run, monkeypatch):
    use = {row["name"]: row["use"] for row in facts("list", "devices", "--run", run)["devices"]}
    assert use[DEVICE] == "table"
    assert use["rpi5-ort-4t"] == "elsewhere"
    assert use["local-torch-1t"] == "here"
    monkeypatch.setattr(PackagedRuntime, "version", "")
    rows = {row["name"]: row for row in facts("list", "devices")["devices"]}
    assert rows["local-ncnn-1t"]["use"] == "package"
    assert "pip install 'elastic-nas[ncnn]'" in " ".join(done("list", "devices").split())
    assert "pip install 'elastic-nas[openvino]'" in done("list", "runtimes")


def test_columns_fold_the_widest_and_keep_words_whole():
    rows = [("name", "word " * 30, "1"), ("other", "\x1b[2J\n", "2")]
    text = columns(rows, ("a", "b", "c"))
    assert not too_wide(text)
    assert text.splitlines()[1].startswith("name   word word")
    assert text.splitlines()[1].endswith("  1")
    assert "\\x1b[2J\\n" in text
    path = "/a" * 50
    assert columns([("path", path), ("b", "c")]).splitlines()[:2] == ["path", f"  {path}"]
    genotype = columns([("genotype", "1," * 50 + "1")]).splitlines()
    assert not too_wide("\n".join(genotype))
    assert "".join("".join(genotype).split()) == "genotype" + "1," * 50 + "1"


# --- describe ---------------------------------------------------------------------------------


@pytest.mark.parametrize("space", plugins.available("spaces"))
@pytest.mark.parametrize("end", ["smallest", "largest"])
def test_describe_counts_both_ends_of_every_space(space, end, tmp_path):
    whole, network = facts("describe", space), Network(space)
    child = facts("describe", space, "--child", end)
    assert whole[end]["macs"] == child["macs"] == network.macs(getattr(network, end))
    assert child["macs"] == sum(block["macs"] for block in child["blocks"])
    assert child["params"] == sum(block["params"] for block in child["blocks"])
    again = facts("describe", space, "--child", child["genotype"])
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(child["settings"]))
    assert again == child == facts("describe", space, "--child", settings)
    text = done("describe", space, "--child", end)
    assert child["genotype"] in "".join(text.split())
    assert f"{child['macs']:,}" in text
    assert f"{whole['children']:,}" in done("describe", space)


def test_describe_takes_options_and_classes():
    wide = facts("describe", "tiny:size=32,activation=hswish", "--classes", 10)
    assert wide["dims"][0]["choices"] == [16, 24, 32]
    assert wide["classes"] == 10
    assert wide["largest"]["macs"] > facts("describe", "tiny", "--classes", 10)["largest"]["macs"]


# --- JSON -------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.json"
    table_of_here(Network(SPACE, 10)).write(path)
    return path


def test_predict_prints_one_object(table):
    words = ("predict", DEVICE, SPACE, "--classes", 10, "--table", table)
    largest, smallest = facts(*words), facts(*words, "--child", "smallest")
    assert 0 < smallest["latency_ms"] < largest["latency_ms"] < largest["bound_ms"]
    assert largest["promise"]
    assert "95 %" in done(*words)


def test_query_prints_one_object(run):
    best = facts("query", run, "--device", DEVICE, "--latency", "5ms")
    assert best == facts("query", run, "--device", DEVICE, "--latency", "0.005s")
    assert best["bound_ms"] <= 5
    assert best["children_within_budgets"] == 8
    assert best["genotype"] in done("query", run, "--device", DEVICE, "--latency", "5ms")
    small = facts("query", run, "--device", DEVICE, "--params", best["params"] - 1)
    assert small["params"] < best["params"]


def test_export_and_verify_print_one_object(run, tmp_path, stopped_clock):
    words = ("export", run, "--device", DEVICE, "--latency", "5ms", "--out", tmp_path / "child")
    made = facts(*words)
    assert made["folder"] == str(tmp_path / "child")
    assert made["latency"]["measured_ms"] == 0.5
    checked = facts("verify", tmp_path / "child")
    assert checked["parity"]["top1_agreement"] == 1
    assert checked["latency"]["measured_ms"] == 0.5
    assert "elastic-nas verify" in done(*words)
    assert "unchanged" in done("verify", tmp_path / "child")


@pytest.mark.parametrize("kind", ["spaces", "strategies", "devices", "runtimes", "tasks"])
def test_list_prints_one_object(kind, run):
    rows = facts("list", kind)[kind]
    assert all(row["name"] and row["about"] for row in rows)
    text = done("list", kind)
    assert all(row["name"] in text for row in rows)
    if kind == "devices":
        tables = {row["name"]: row["table"] for row in facts("list", kind, "--run", run)[kind]}
        assert tables[DEVICE] == str(run / "latency_tables" / f"{DEVICE}.json")
        assert "elastic-nas profile NAME --space SPACE" in text


# --- processes of their own ---------------------------------------------------------------------

PROBE = """
import sys
from elastic_nas.cli.app import app
try:
    app({words})
except SystemExit as end:
    assert not end.code, end.code
print([name for name in {heavy} if name in sys.modules], file=sys.stderr)
"""


def test_commands_that_only_read_import_nothing_heavy(run, table):
    for words in (
        ["query", run, "--device", DEVICE, "--latency", "5ms"],
        ["predict", DEVICE, SPACE, "--classes", "10", "--table", table],
        ["list", "devices"],
        ["describe", "bignas", "--child", "largest"],
        ["--help"],
    ):
        probe = PROBE.format(words=[str(word) for word in words], heavy=HEAVY)
        ended = subprocess.run(
            [sys.executable, "-c", probe], capture_output=True, text=True, check=False
        )
        assert (ended.returncode, ended.stderr) == (0, "[]\n"), words


def test_python_m_and_no_line_of_a_library(run, tmp_path):
    words = ["export", run, "--device", DEVICE, "--latency", "1s", "--out", tmp_path / "c"]
    made = outside(*words, "--json")
    assert made.returncode == 0, made.stderr
    assert isinstance(json.loads(made.stdout), dict)
    ours = re.compile(r"(note|warning|child [\d,]+ was measured)\b.*")
    assert all(ours.match(line) for line in made.stderr.splitlines()), made.stderr


def test_a_reader_that_leaves_early_is_no_error():
    read, write = os.pipe()
    os.close(read)
    command = [*MODULE, "describe", "bignas", "--child", "largest"]
    with os.fdopen(write, "w") as output:
        ended = subprocess.run(
            command, stdout=output, stderr=subprocess.PIPE, text=True, check=False
        )
    assert "Traceback" not in ended.stderr


# --- train --------------------------------------------------------------------------------------


def test_train_to_query_with_a_space_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "mine.py"
    tiny = Path(plugins.load("spaces", "tiny").__file__).read_text()
    own.write_text(tiny.replace("(3, 4, 6)", "(3, 6)"))
    words = ("--space", "./mine.py:size=8", "--out", "run")
    done("train", run_file(tmp_path / "run.yaml"), *words)
    table_of_here(Network("./mine.py:size=8", 10)).write(
        tmp_path / "run" / "latency_tables" / f"{DEVICE}.json"
    )
    done("search", "run", "--device", DEVICE)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)  # the space is found from any folder
    answer = facts("query", "../run", "--device", DEVICE, "--latency", "5ms")
    assert all(4 not in stage for stage in answer["settings"]["expand"])
    own.write_text(tiny)
    query = ("query", "../run", "--device", DEVICE, "--latency", "5ms")
    assert "--trust" in refused(*query)  # it is other code now
    assert "is not what ../run was trained with" in refused(*query, "--trust")
    own.unlink()
    message = refused("query", "../run", "--device", DEVICE, "--latency", "5ms")
    assert "no file" in message


def test_train_says_the_next_steps_and_writes_the_full_run_file(tmp_path):
    out = tmp_path / "my run"
    text = done("train", run_file(tmp_path / "run.yaml"), "--out", out)
    assert f"profile {DEVICE} --run '{out}'" in text
    written = yaml.safe_load((out / "run.yaml").read_text())
    assert written["train"]["steps"] == 6
    assert written["train"].keys() == config().train.model_dump().keys()
    assert Network(written["space"]).space.name == "tiny:size=8,activation=relu"


def test_genotypes_in_text(run, tmp_path):
    genotype = format_genotype(Network(SPACE, 10).smallest)
    made = facts("export", run, "--genotype", genotype, "--out", tmp_path / "child")
    assert made["genotype"] == genotype
    assert made["latency"]["device"] is None
    assert "not measured" in done("verify", tmp_path / "child")
