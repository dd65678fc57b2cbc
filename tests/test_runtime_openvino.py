"""OpenVINO's own promises: precision, options, and silence towards the network."""

import os
import subprocess
import sys

import pytest

from elastic_nas.errors import ConfigError, ElasticNasError
from elastic_nas.latency.micromodels import null_model
from elastic_nas.runtimes import openvino as plugin
from elastic_nas.runtimes.openvino import Runtime

pytest.importorskip("openvino")


def cpu_with(*flags):
    return lambda: {"flags": ["avx2", *flags]}


def test_bf16_needs_a_processor_that_has_it(monkeypatch):
    runtime = Runtime(precision="bf16")
    monkeypatch.setattr(plugin, "environment", cpu_with())
    with pytest.raises(ConfigError, match=r"no bf16.*fp32"):
        runtime.prepare(null_model(), (1,))
    Runtime().prepare(null_model(), (1,))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_compiled_model_has_the_options_that_were_asked_for(monkeypatch, precision):
    monkeypatch.setattr(plugin, "environment", cpu_with("avx512_bf16"))
    openvino, models = Runtime().package(), []
    core = openvino.Core()

    class Core:
        read_model = core.read_model

        def compile_model(self, *arguments):
            models.append((arguments, core.compile_model(*arguments)))
            return models[0][1]

    monkeypatch.setattr(openvino, "Core", Core)
    Runtime(threads=2, precision=precision).prepare(null_model(), (1,))
    (_, provider, options), compiled = models[0]
    assert provider == "CPU"
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 2
    assert compiled.get_property("NUM_STREAMS") == 1
    assert not compiled.get_property("ENABLE_CPU_PINNING")
    assert options["INFERENCE_PRECISION_HINT"] == {"fp32": "f32", "bf16": "bf16"}[precision]


def test_reasons_name_no_source_files():
    with pytest.raises(ElasticNasError) as caught:
        Runtime().prepare(b"nonsense", (1,))
    assert str(caught.value) == (
        "openvino refuses the model: Unable to read the model. Please check if the model format "
        "is supported and model is correct."
    )


def test_nothing_is_reported_over_the_network(tmp_path):
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise SystemExit('it opened a connection')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from elastic_nas.latency.micromodels import null_model\n"
        "from elastic_nas.runtimes.openvino import Runtime\n"
        "Runtime().prepare(null_model(), (1,))()\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())
