"""Tables of Once-for-All and ProxylessNAS: what their own code would add up, nothing guessed."""

import json
from random import Random

import fake_latency
import numpy as np
import pytest
from made_spaces import DEVICE, PROXYLESS, network_of

from elastic_nas.errors import ConfigError, MissingEntries
from elastic_nas.genotype import sample
from elastic_nas.latency.imports import import_table
from elastic_nas.latency.predictor import Predictor
from elastic_nas.latency.table import LatencyTable
from elastic_nas.specs.classifier import ClassifierSpec
from elastic_nas.specs.head import HeadSpec

NOTE10 = """
from dataclasses import dataclass, replace
from elastic_nas.spaces import ofa_mobilenetv3

@dataclass(frozen=True)
class Space(ofa_mobilenetv3.Space):
    @property
    def trunk(self):
        return replace(super().trunk, resolutions=(160, 164))
"""


@pytest.fixture(scope="module")
def note10(tmp_path_factory):
    return network_of(tmp_path_factory.mktemp("note10"), NOTE10)


@pytest.fixture(scope="module")
def proxyless(tmp_path_factory):
    return network_of(tmp_path_factory.mktemp("proxyless"), PROXYLESS.replace("SE", "False"))


@pytest.fixture(scope="module")
def squeezed(tmp_path_factory):
    return network_of(tmp_path_factory.mktemp("squeezed"), PROXYLESS.replace("SE", "True"))


STAGES = ((24, 2, 0, 0), (40, 2, 1, 0), (80, 2, 0, 1), (112, 1, 1, 1), (160, 2, 1, 1))
"""Of Once-for-All's MobileNetV3: width, stride, squeeze-excite, hard swish."""


def v3_block(size, in_ch, stage, expand, kernel, first):
    """The key that OFA's `predict_network_latency` looks up, and the size behind the block."""
    width, stride, se, hs = stage
    stride = stride if first else 1
    out = int((size - 1) / stride + 1)
    skip = int(stride == 1 and in_ch == width)
    return (
        f"expanded_conv-input:{size}x{size}x{in_ch}-output:{out}x{out}x{width}"
        f"-expand:{in_ch * expand}-kernel:{kernel}-stride:{stride}-idskip:{skip}-se:{se}-hs:{hs}"
    ), out


def v3_ends(resolution):
    half = (resolution + 1) // 2
    return [
        f"Conv-input:{resolution}x{resolution}x3-output:{half}x{half}x16",
        f"expanded_conv-input:{half}x{half}x16-output:{half}x{half}x16-expand:16-kernel:3-stride:1"
        "-idskip:1-se:0-hs:0",
    ], half


def v3_tail(size):
    return [
        f"Conv_1-input:{size}x{size}x160-output:{size}x{size}x960",
        f"AvgPool2D-input:{size}x{size}x960-output:1x1x960",
        "Conv_2-input:1x1x960-output:1x1x1280",
        "Logits-input:1x1x1280-output:1000",
    ]


def v3_keys(settings):
    """The keys that OFA's code adds up for one child."""
    keys, size = v3_ends(settings["resolution"])
    in_ch = 16
    for number, stage in enumerate(STAGES, 1):
        for block in range(settings["depth"][number]):
            expand, kernel = (settings[name][number][block] for name in ("expand", "kernel"))
            key, size = v3_block(size, in_ch, stage, expand, kernel, block == 0)
            keys.append(key)
            in_ch = stage[0]
    return [*keys, *v3_tail(size)]


def v3_rows(resolution, seed=0):
    """A whole table of one resolution, as published for the Note 10."""
    keys, size = v3_ends(resolution)
    in_ch = 16
    for stage in STAGES:
        pairs = [(e, k) for e in (3, 4, 6) for k in (3, 5, 7)]
        firsts = [v3_block(size, in_ch, stage, e, k, first=True) for e, k in pairs]
        size = firsts[0][1]
        in_ch = stage[0]
        keys += [key for key, _ in firsts]
        keys += [v3_block(size, in_ch, stage, e, k, first=False)[0] for e, k in pairs]
    rng = Random(f"{seed} {resolution}")
    keys += v3_tail(size)
    return {
        key: {"count": rng.randint(40, 500), "mean": rng.uniform(0.1, 5), "std": 0.1}
        for key in dict.fromkeys(keys)
    }


def children_of(network, n=30):
    return [sample(network.dims, Random(i)) for i in range(n)]


def write_rows(path, rows):
    path.write_text(json.dumps(rows))  # which is YAML too
    return path


@pytest.fixture
def tables(tmp_path):
    """A folder of tables as Once-for-All publishes it, and all rows, ends averaged."""
    folder = tmp_path / "note10"
    folder.mkdir()
    rows = [v3_rows(resolution) for resolution in (160, 164)]
    for resolution, mine in zip((160, 164), rows, strict=True):
        write_rows(folder / f"{resolution}_lookup_table.yaml", mine)
    means = {key: row["mean"] for mine in rows for key, row in mine.items()}
    for key in means.keys() & rows[0].keys() & rows[1].keys():
        means[key] = (rows[0][key]["mean"] + rows[1][key]["mean"]) / 2
    return folder, means


def test_keys_are_those_of_the_published_tables():
    """Keys of tutorial/checkpoints/latency_table@note10 in mit-han-lab/once-for-all, 1.2 wide."""
    assert v3_block(20, 48, (96, 2, 0, 1), 4, 5, first=True)[0] == (
        "expanded_conv-input:20x20x48-output:10x10x96-expand:192-kernel:5-stride:2-idskip:0-se:0"
        "-hs:1"
    )
    assert v3_block(10, 136, (136, 1, 1, 1), 6, 7, first=False)[0] == (
        "expanded_conv-input:10x10x136-output:10x10x136-expand:816-kernel:7-stride:1-idskip:1-se:1"
        "-hs:1"
    )


def test_an_ofa_table_predicts_what_ofas_own_code_adds_up(note10, tables):
    folder, means = tables
    table, text = import_table(folder, note10, DEVICE, expand="channels")
    children = children_of(note10)
    expected = [sum(means[key] for key in v3_keys(note10.settings(child))) for child in children]
    predictor = Predictor(note10, table, stale=table.stale("1.31", fake_latency.FACTS))
    np.testing.assert_allclose(predictor.predict_ms(np.array(children)), expected, rtol=1e-9)
    assert f"{len(means)} of {len(means)} figures" in text
    assert "lacks" not in text
    assert "Not used" not in text
    assert "bare sums of blocks" in text


def test_an_imported_table_can_be_searched_but_promises_nothing(note10, tables, tmp_path):
    table, _ = import_table(tables[0], note10, DEVICE, expand="channels")
    table.write(tmp_path / "t.json")
    read = LatencyTable.read(tmp_path / "t.json")
    assert read == table
    read.check_fits(DEVICE)
    predictor = Predictor(note10, read, stale=read.stale("1.31", fake_latency.FACTS))
    genotypes = np.array(children_of(note10, 5))
    assert (predictor.bound_ms(genotypes) == predictor.predict_ms(genotypes)).all()
    assert predictor.unfitted
    assert predictor.stale
    assert not predictor.promise


def test_an_imported_table_says_where_it_came_from(note10, tables):
    table, text = import_table(tables[0], note10, DEVICE, expand="channels")
    first, _ = origins = table.provenance["imported"]
    assert first in text
    assert first.startswith("imported from 160_lookup_table.yaml (OFA-style YAML, sha256 ")
    assert len(origins) == 2
    assert {table.device["cpu"], table.runtime["name"], table.protocol["filter"]} == {"imported"}


def test_a_block_of_several_rows_counts_as_often_as_the_least(note10, tables):
    table, _ = import_table(tables[0] / "160_lookup_table.yaml", note10, DEVICE, expand="channels")
    rows = v3_rows(160)
    head = next(spec for spec in table.blocks if isinstance(spec, HeadSpec))
    keys = v3_tail(5)[:3]
    assert table.blocks[head].n == min(rows[key]["count"] for key in keys)
    assert table.blocks[head].ms == pytest.approx(sum(rows[key]["mean"] for key in keys))
    both, _ = import_table(tables[0], note10, DEVICE, expand="channels")
    counts = [v3_rows(resolution)[v3_tail(5)[3]]["count"] for resolution in (160, 164)]
    assert both.blocks[ClassifierSpec(1280, 1000)].n == sum(counts)


def test_what_a_table_lacks_is_said_and_not_made_up(note10, tables):
    path = tables[0] / "164_lookup_table.yaml"
    rows = v3_rows(164)
    del rows["Conv_2-input:1x1x960-output:1x1x1280"]
    rows["Conv-input:128x128x3-output:64x64x24"] = {"mean": 1.0}
    rows["ResidualBlock-something"] = {"mean": 1.0}
    write_rows(path, rows)
    table, text = import_table(path, note10, DEVICE, expand="channels")
    assert not any(isinstance(spec, HeadSpec) for spec in table.blocks)
    assert "made of them: 4, such as ResidualBlock-something; Conv_1-input" in text
    assert f"{len(rows) - 4} of {len(rows)} figures" in text
    assert "the latency table of note10 lacks" in text
    with pytest.raises(MissingEntries):
        Predictor(note10, table)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"shortcut": "projected"}, "mbconv"),
        ({"gate": "sigmoid"}, "se_ch"),
        ({"squeeze_of": "input"}, "se_ch"),
        ({"activation": "swish"}, "hswish"),
    ],
)
def test_blocks_that_only_look_alike_get_no_figure(tmp_path, tables, change, what):
    """AttentiveNAS's shortcuts, gates, squeezes and activations are other blocks than OFA's."""
    values = ", ".join(f"{key}={value!r}" for key, value in change.items())
    other = network_of(tmp_path / "other", NOTE10.replace("resolutions=(160, 164)", values))
    table, _ = import_table(tables[0], other, DEVICE, expand="channels")
    keys = [
        {**spec.key, "same": spec.key.get("in_ch") == spec.key.get("out_ch")}
        for spec in table.blocks
    ]
    if what == "mbconv":
        assert all(k["same"] and k["stride"] == 1 for k in keys if k["kind"] == "mbconv")
    elif what == "se_ch":
        assert not any(k.get("se_ch") for k in keys)
    else:
        assert not any(k.get("activation") == "swish" for k in keys)
    assert any(k["kind"] == "mbconv" for k in keys)


def proxyless_rows():
    """A ProxylessNAS table: ratios in its keys, pooling in Logits."""
    keys = {
        "Conv-input:32x32x3-output:16x16x16": 1.0,
        "expanded_conv-input:16x16x16-output:16x16x16-expand:1-kernel:3-stride:1-idskip:1": 2.0,
        "Conv_1-input:8x8x24-output:8x8x64": 3.0,
        "Logits-input:8x8x64-output:1000": 4.0,
    }
    for expand in (3, 6):
        for kernel in (3, 5):
            end = f"-expand:{expand}-kernel:{kernel}"
            keys[f"expanded_conv-input:16x16x16-output:8x8x24{end}-stride:2-idskip:0"] = (
                10.0 * expand + kernel
            )
            keys[f"expanded_conv-input:8x8x24-output:8x8x24{end}-stride:1-idskip:1"] = (
                100.0 * expand + kernel
            )
    return {key: {"mean": ms} for key, ms in keys.items()}


def test_ratios_are_read_as_ratios(proxyless, tmp_path):
    path = write_rows(tmp_path / "mobile_trim.yaml", proxyless_rows())
    table, text = import_table(path, proxyless, DEVICE, expand="ratio")
    assert "12 of 12 figures make 12 blocks" in text
    ms = Predictor(proxyless, table).predict_ms([proxyless.smallest, proxyless.largest])
    ends = 1 + 2 + 3 + 4
    assert ms.tolist() == pytest.approx([ends + 33, ends + 65 + 605])
    row = next(iter(table.blocks.values()))
    assert (row.p10, row.p90, row.contended_p90, row.n, row.accept) == (None,) * 5


def test_a_rounded_width_is_no_ratio(tmp_path):
    """20 channels expanded 3-fold are 60 there, 64 here."""
    text = PROXYLESS.replace("SE", "False").replace("(24,)", "(20,)")
    network = network_of(tmp_path / "rounded", text)
    rows = {
        key.replace("x24", "x20"): row
        for key, row in proxyless_rows().items()
        if key.startswith("expanded_conv-input:8x8x24") or "input:16x16x16" in key
    }
    path = write_rows(tmp_path / "mobile_trim.yaml", rows)
    table, text = import_table(path, network, DEVICE, expand="ratio")
    assert {spec.mid_ch for spec in table.blocks} == {16, 48, 96, 120}
    assert "of them: 2, such as expanded_conv-input:8x8x20-output:8x8x20-expand:3-kernel:3" in text


def test_rows_without_squeeze_excite_are_no_blocks_with_it(squeezed, tmp_path):
    path = write_rows(tmp_path / "mobile_trim.yaml", proxyless_rows())
    table, _ = import_table(path, squeezed, DEVICE, expand="ratio")
    assert not any(spec.key.get("se_ch") for spec in table.blocks)


def test_pooling_of_several_maps_is_not_taken_for_a_classifier(proxyless, tmp_path):
    rows = {**proxyless_rows(), "Logits-input:4x4x64-output:1000": {"mean": 3.5}}
    path = write_rows(tmp_path / "mobile_trim.yaml", rows)
    table, _ = import_table(path, proxyless, DEVICE, expand="ratio")
    assert ClassifierSpec(64, 1000) not in table.blocks


def test_the_meaning_of_expand_must_be_said_and_be_possible(note10, proxyless, tables, tmp_path):
    ratios = write_rows(tmp_path / "ratios.yaml", proxyless_rows())
    with pytest.raises(ConfigError, match="needs the meaning of expand"):
        import_table(ratios, proxyless, DEVICE)
    with pytest.raises(ConfigError, match="needs the meaning of expand"):
        import_table(ratios, proxyless, DEVICE, expand="mid")
    with pytest.raises(ConfigError, match=r"cannot mean channels .* 1 channels of 16. Say ratio"):
        import_table(ratios, proxyless, DEVICE, expand="channels")
    channels = tables[0] / "160_lookup_table.yaml"
    with pytest.raises(ConfigError, match=r"cannot mean ratio .* channels of 16. Say channels"):
        import_table(channels, note10, DEVICE, expand="ratio")
    (tmp_path / "blocks.csv").write_text("kind,ms\n")
    with pytest.raises(ConfigError, match="about OFA-style tables"):
        import_table(tmp_path / "blocks.csv", note10, DEVICE, expand="ratio")
