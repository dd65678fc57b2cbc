"""The page about kits, carried out from top to bottom on this machine."""

import os
import platform
import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from elastic_nas.cli.app import app
from elastic_nas.latency import plan

PAGE = Path(__file__).parent.parent / "docs" / "kit.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


@pytest.mark.slow
def test_the_page_holds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "Draw", partial(plan.Draw, 10, 20))
    blocks = BLOCK.findall(PAGE.read_text())
    languages = ["yaml", "console", "sh", "console", "sh", "console"]
    assert [language for language, _ in blocks] == languages
    # the last two take programs and figures of other machines: tests/test_kit.py fills the forms in
    for language, text in blocks[:4]:
        if language == "yaml":
            Path("my-board.yaml").write_text(text.replace("aarch64", platform.machine()))
        elif language == "console":
            words = shlex.split(text)[2:]
            result = CliRunner().invoke(app, words)
            assert result.exit_code == 0, result.output
        else:
            lines = [line for line in text.splitlines() if "pip install" not in line]
            script = "\n".join(lines).replace("python", sys.executable)
            environment = {**os.environ, "TMPDIR": str(tmp_path)}
            subprocess.run(["sh", "-ec", script], check=True, env=environment)
    assert "20 children" in result.output
    assert Path("kit/result.json").exists()
