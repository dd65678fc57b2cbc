"""Whatever happens, from the first import to the last line: one message, and a status."""

import os
import re
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import pytest
import typer
from small_run import DEVICE, cli

from elastic_nas.cli import faults, main
from elastic_nas.cli.endings import guarded
from elastic_nas.errors import ConfigError

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")

BEFORE = """
import os, signal, sys

class Strike:
    "Send this process a signal when a module is looked for."
    def find_spec(self, name, path=None, target=None):
        if name == {module!r} and self in sys.meta_path:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.{number})

sys.meta_path.insert(0, Strike())
sys.argv = ["elastic-nas", *{words!r}]
from elastic_nas.cli import main
{after}
main()
"""


def ended(
    *words: object, module: str = "", number: str = "SIGINT", after: str = ""
) -> subprocess.CompletedProcess[str]:
    """A process of the command line that meets a signal, or whatever `after` says."""
    script = BEFORE.format(
        module=module, number=number, words=[str(word) for word in words], after=after
    )
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def is_clean(process: subprocess.CompletedProcess[str]) -> bool:
    said = process.stderr
    unwanted = ("Traceback", "Exception ignored", "Aborted", "rror")
    return process.returncode == 130 and not any(word in said for word in unwanted)


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("elastic_nas.cli.streams", "SIGTERM"),
        ("typer", "SIGINT"),
        ("numpy", "SIGHUP"),
        ("elastic_nas.cli.app", "SIGTERM"),
        ("elastic_nas.plugins", "SIGINT"),
    ],
)
def test_a_signal_before_the_command_ends_it_at_once(module, number):
    process = ended("list", "spaces", module=module, number=number)
    assert is_clean(process), process.stderr
    assert (process.stdout, process.stderr) == ("", "interrupted.\n")


@pytest.mark.parametrize(
    ("module", "number"), list(zip(["torch", "torch.nn", "onnx.helper"], SIGNALS, strict=True))
)
def test_a_signal_while_a_command_imports(run, tmp_path, module, number):
    words = ("export", run, "--genotype", "largest", "--out", tmp_path / "child")
    process = ended(*words, module=module, number=number)
    assert is_clean(process), process.stderr
    assert process.stderr == ("interrupted. Nothing was written; the same command starts again.\n")
    assert not (tmp_path / "child").exists()


STRIKE = """
def strike(*_):
    signal.raise_signal(signal.{number})
"""

MOMENTS = {
    "while the words are understood": (
        "import typer.core; typer.core.TyperGroup.parse_args = strike", "interrupted.\n",
    ),
    "when a finaliser runs": (
        "class Late:\n    __del__ = strike\n"
        "from elastic_nas import facts; import time\n"
        "def listing(*_):\n    Late()\n    for _ in range(1000): time.sleep(0.01)\n"
        "facts.listing = listing",
        "interrupted. Nothing was written; the same command starts again.\n",
    ),
    "when native code makes another error of it": (
        "from elastic_nas import facts\n"
        "def listing(*_):\n"
        "    try: strike()\n"
        "    except KeyboardInterrupt: raise ValueError('no shape')\n"
        "facts.listing = listing",
        "interrupted. Nothing was written; the same command starts again.\n",
    ),
    "when all is said": (
        "import atexit; from elastic_nas.cli import streams; flush = streams.flush\n"
        "streams.flush = lambda: atexit.register(strike) and flush()", "",
    ),
    "when threads are waited for": (
        "import threading; threading.Thread(target=lambda: (\n"
        "    (main := threading.main_thread()).join(),\n"
        "    signal.pthread_kill(main.ident, signal.{number}),\n"
        "    threading.Event().wait(5))).start()",
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("moment", "number"), list(zip(MOMENTS, cycle(SIGNALS), strict=False)))
def test_a_signal_at_any_other_moment(moment, number):
    code, said = MOMENTS[moment]
    after = (STRIKE + code).replace("{number}", number)
    process = ended("list", "spaces", after=after)
    assert is_clean(process), process.stderr
    assert process.stderr == said


def test_signals_that_are_ignored_stay_ignored():
    after = "from elastic_nas import facts; facts.KINDS = signal.raise_signal(1) or facts.KINDS"
    script = "import signal; signal.signal(1, signal.SIG_IGN)\n"  # as nohup does
    code = script + BEFORE.format(module="", number="SIGHUP", words=["list", "spaces"], after=after)
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (process.returncode, process.stderr) == (0, b"")


# --- faults -----------------------------------------------------------------------------------


def record(said: str) -> Path:
    """The file that the sentence names."""
    found = re.search(r"traceback is in (\S+)\.(?= |$)", said)
    assert found, said
    return Path(found[1])


@guarded
def failing(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("one\ntwo \x1b[2J"), MemoryError(), RecursionError("too deep"), KeyError("a"),
        AssertionError(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), ValueError("x" * 10**6),
        NotImplementedError("\udcff"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_escapes_ends_in_one_sentence_and_a_file(error, capsys):
    with pytest.raises(typer.Exit) as end:
        failing(error)
    said = capsys.readouterr().err
    assert end.value.exit_code == 70
    assert said.count("\n") == 1
    assert said[:-1].isprintable()
    assert len(said) < 2000
    assert type(error).__name__ in said
    assert "CONTRIBUTING.md" in said
    file = record(said)
    assert file.parent == Path(os.environ["ELASTIC_NAS_HOME"]) / "faults"
    text = file.read_text()
    assert "Traceback (most recent call last)" in text
    assert "elastic-nas 0." in text
    assert "torch " in text


def test_a_fault_where_nothing_can_be_written_in_the_users_folder(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ELASTIC_NAS_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(faults.tempfile, "tempdir", str(tmp_path))
    assert faults.tell(ValueError("no")) == 70
    assert record(capsys.readouterr().err).parent == tmp_path
    monkeypatch.setattr(faults.tempfile, "tempdir", str(tmp_path / "file"))
    assert faults.tell(ValueError("no")) == 70
    assert "could not be written" in capsys.readouterr().err


def test_a_developer_sees_the_error_itself(monkeypatch):
    monkeypatch.setenv(faults.DEBUG, "1")
    with pytest.raises(KeyError):
        failing(KeyError("a"))


def test_the_errors_of_users_and_of_the_system_are_no_faults(capsys):
    for error in (ConfigError("no"), PermissionError(13, "no", "\x1b[2J")):
        with pytest.raises(typer.Exit) as end:
            failing(error)
        assert end.value.exit_code == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert "\x1b" not in said


@pytest.mark.parametrize(
    "after",
    [
        "sys.modules['elastic_nas.cli.app'] = None",
        "import typer.core; typer.core.TyperGroup.parse_args = lambda *_: 1 / 0",
    ],
)
def test_a_fault_before_the_command(after):
    process = ended("list", "spaces", after=after)
    assert (process.returncode, process.stdout) == (70, "")
    assert process.stderr.count("\n") == 1
    assert "Traceback" in record(process.stderr).read_text()


def test_a_stream_that_fails(tmp_path):
    command = [sys.executable, "-m", "elastic_nas", "list", "spaces"]
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(command, stdout=full, stderr=-1, text=True, check=False)
    assert (process.returncode, process.stderr) == (1, "error: No space left on device.\n")


def test_characters_that_a_stream_lacks_are_escaped(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "ELASTIC_NAS_HOME": str(tmp_path)}
    profiles = tmp_path / "hardware_profiles"
    profiles.mkdir()
    shipped = Path(__file__).parent.parent / "hardware_profiles" / f"{DEVICE}.yaml"
    own = shipped.read_text().replace("This machine", "\N{GREEK SMALL LETTER MU}-machine")
    (profiles / f"{DEVICE}.yaml").write_text(own)
    command = [sys.executable, "-m", "elastic_nas", "list", "devices"]
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (process.returncode, process.stderr) == (0, "")
    assert "\\u03bc-machine" in process.stdout


# --- the current folder ---------------------------------------------------------------------------


def test_modules_of_the_current_folder_do_not_run(tmp_path, run):
    for name in ("numpy", "torch", "typer", "typing", "onnx", "yaml"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    words = ("export", run, "--genotype", "largest", "--out", tmp_path / "child")
    process = subprocess.run(
        [sys.executable, "-m", "elastic_nas", *map(str, words)],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert not (tmp_path / "ran").exists()


def test_processes_that_it_starts_do_not_look_there_either(tmp_path):
    (tmp_path / "random.py").write_text("raise SystemExit(3)")
    spawned = (
        "import subprocess; assert not subprocess.call([sys.executable, '-c', 'import random'])"
    )
    after = f"import atexit; from elastic_nas.cli import streams as s; old = s.prepare\n" \
            f"def prepare():\n    {spawned}\n    old()\ns.prepare = prepare"  # fmt: skip
    code = BEFORE.format(module="", number="SIGINT", words=["list", "spaces"], after=after)
    process = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr


def test_main_is_the_door_and_imports_nothing_heavy():
    code = "import sys; from elastic_nas.cli import main, signals; print(*sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"typer", "numpy", "typing_extensions", "torch"} & set(process.stdout.split())
    assert callable(main)
    assert cli("--version").exit_code == 0
