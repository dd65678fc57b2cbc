"""An ONNX file from outside is looked at before it runs: what the writer cannot make is refused."""

from contextlib import suppress

import onnx
import pytest
from conftest import small_network
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from elastic_nas import plugins
from elastic_nas.errors import ExportMismatch
from elastic_nas.export import inspect_onnx
from elastic_nas.export.inspect_onnx import inspect
from elastic_nas.latency.micromodels import child_model

NETWORK = small_network("tiny:size=8")
MODEL = child_model(NETWORK, NETWORK.smallest, 0)


@pytest.mark.parametrize("name", plugins.available("spaces"))
def test_counts_are_those_of_the_description(name):
    network = small_network(name)
    for genotype in (network.smallest, network.largest):
        found = inspect(child_model(network, genotype, 0), "child.onnx")
        assert found.macs == network.macs(genotype)
        assert found.weights == sum(spec.costs.weights for spec in network.blocks(genotype))
        assert (found.resolution, found.classes) == (network.resolution(genotype), 10)
        assert found.mean == pytest.approx((0.5, 0.5, 0.5))
        assert found.std == pytest.approx((0.5, 0.5, 0.5))


def changed(change) -> bytes:
    model = onnx.load_model_from_string(MODEL)
    change(model)
    return model.SerializeToString()


def loop(model) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", "", "input"], ["x"], body=body))


def external(model) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def huge_weight(model) -> None:
    model.graph.initializer[0].dims[:] = [2**40]


def huge_image(model) -> None:
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 4096


def huge_pads(model) -> None:
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    next(a for a in conv.attribute if a.name == "pads").ints[:] = [4000] * 4


def typed(model) -> None:
    weight = model.graph.initializer[0]
    weight.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(weight).astype("f8"), weight.name)
    )


def function(model) -> None:
    model.functions.append(
        helper.make_function("own", "f", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [])
    )


def many(model) -> None:
    for number in range(6000):
        model.graph.node.append(helper.make_node("Relu", ["input"], [f"r{number}"]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (loop, "strange attribute 'body'"),
        (external, "not known, too often or too large"),
        (huge_weight, "not the size of its shape"),
        (huge_image, "too much memory or time"),
        (huge_pads, "too much memory or time"),
        (typed, "is not fp32"),
        (function, "functions"),
        (many, "too often or too large"),
        (lambda m: m.training_info.add(), "training"),
        (lambda m: m.graph.sparse_initializer.add(), "sparse weights"),
        (lambda m: m.graph.node[0].attribute.add(name="x", type=3), "strange attribute"),
        (lambda m: setattr(m.graph.node[3], "op_type", "Exp"), "no translation of its operator"),
        (lambda m: setattr(m.graph.node[0], "domain", "com.microsoft"), "another domain"),
        (lambda m: setattr(m, "ir_version", 11), "IR version is 11"),
        (lambda m: setattr(m.opset_import[0], "version", 22), "operator sets"),
        (lambda m: m.opset_import.add(domain="x", version=1), "too often"),
        (lambda m: m.graph.node[1].input.__setitem__(0, "logits"), "cannot be"),
        (lambda m: setattr(m.graph.input[0], "name", "x"), "no 'input'"),
        (lambda m: m.graph.input.add(), "too often"),
        (lambda m: m.graph.initializer.add().CopyFrom(m.graph.initializer[0]), "the same name"),
        (lambda m: m.graph.node.pop(), "does not end in its output"),
    ],
)
def test_what_the_writer_cannot_make_is_refused(change, said):
    with pytest.raises(ExportMismatch, match=r"child\.onnx") as caught:
        inspect(changed(change), "child.onnx")
    assert said in str(caught.value)


def test_a_few_bytes_that_grow_when_they_are_parsed_are_not(monkeypatch):
    def parsed(_):
        raise AssertionError("it was parsed")

    monkeypatch.setattr(inspect_onnx.onnx, "load_model_from_string", parsed)
    nodes = b"\x0a\x00" * 100_000
    bomb = b"\x08\x08\x3a" + bytes([0x80 | (len(nodes) & 127), 0x80 | (len(nodes) >> 7) & 127,
                                    len(nodes) >> 14]) + nodes  # fmt: skip
    for content in (bomb, b"", b"\x08", b"PK\x03\x04", b"\xff" * 100):
        with pytest.raises(ExportMismatch):
            inspect(content, "child.onnx")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_bytes_end_in_one_error(data):
    spots = data.draw(st.lists(st.integers(0, 3000) | st.integers(0, len(MODEL) - 1), min_size=1))
    content = bytearray(MODEL)
    for spot in spots:
        content[spot] = data.draw(st.integers(0, 255))
    length = data.draw(st.sampled_from([len(content), len(content) // 2]))
    with suppress(ExportMismatch):
        inspect(bytes(content[:length]), "child.onnx")
