"""Foreign latency tables: what their own code would read from them, and nothing guessed."""

import json
from random import Random

import fake_latency
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elastic_nas.errors import ConfigError, ElasticNasError, MissingEntries, TableError
from elastic_nas.genotype import format_genotype, sample
from elastic_nas.latency.devices import Device
from elastic_nas.latency.imports import import_table, model_for
from elastic_nas.latency.plan import wanted_blocks
from elastic_nas.latency.predictor import Predictor
from elastic_nas.latency.table import LatencyTable
from elastic_nas.network import Network
from elastic_nas.specs.classifier import ClassifierSpec
from elastic_nas.specs.head import HeadSpec
from elastic_nas.specs.mbconv import MBConvSpec

DEVICE = Device("note10", "", "onnxruntime_cpu", 1, "fp32", generic=False)

NOTE10 = """
from dataclasses import dataclass, replace
from elastic_nas.spaces import ofa_mobilenetv3

@dataclass(frozen=True)
class Space(ofa_mobilenetv3.Space):
    @property
    def trunk(self):
        return replace(super().trunk, resolutions=(160, 164))
"""
PROXYLESS = """
from dataclasses import dataclass
from elastic_nas.spaces._mobile import MobileSpace, Stage, Trunk

@dataclass(frozen=True)
class Space(MobileSpace):
    @property
    def trunk(self):
        return Trunk(
            resolutions=(32,), stem=(16,), stem_stride=2,
            stages=(
                Stage(1, (16,), (1,), (3,), (1,), se=False),
                Stage(2, (24,), (1, 2), (3, 5), (3, 6), se=SE),
            ),
            head=(64,), head_expand=0, per_block=True, squeeze_of="expanded",
            activation="relu", gate="hsigmoid", shortcut="identity",
        )
"""


def network_of(folder, text, classes=1000) -> Network:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(text)
    return Network(str(folder / "mine.py"), classes)


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


def children_of(network, n=30):
    return [sample(network.dims, Random(i)) for i in range(n)]


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
    assert next(iter(table.blocks.values())).n == 1


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


def kernel_rows(network):
    """Kernels of every block, one after the other, as nn-Meter cuts a network."""
    rows = {("conv-bn-relu", 32, 3, 16, 3, 2), ("conv-bn-relu", 8, 24, 64, 1, 1)}
    rows |= {("global-avgpool", 8, 64, "", "", "")}
    for spec in wanted_blocks(network):
        if isinstance(spec, ClassifierSpec):
            rows.add(("fc", "", spec.in_features, spec.out_features, "", ""))
        elif isinstance(spec, MBConvSpec):
            rows |= mbconv_kernels(**spec.key)
    return sorted(rows, key=str)


def mbconv_kernels(height, in_ch, mid_ch, out_ch, kernel, stride, se_ch, **_):
    after = height // stride
    rows = {
        ("dwconv-bn-relu", height, mid_ch, mid_ch, kernel, stride),
        ("conv-bn-relu", after, mid_ch, out_ch, 1, 1),
    }
    if mid_ch != in_ch:
        rows.add(("conv-bn-relu", height, in_ch, mid_ch, 1, 1))
    if se_ch:
        rows.add(("se", after, mid_ch, "", "", ""))
    if in_ch == out_ch and stride == 1:
        rows.add(("add", after, out_ch, "", "", ""))
    return rows


KERNEL_HEADER = "model_path,HW,CIN,COUT,KERNEL_SIZE,STRIDES,feature_0,latency"


def kernel_csv(folder, rows):
    """One file for each kernel, as the builder writes them; ms are 1, 2, 3, ... in all."""
    folder.mkdir()
    for kind in {row[0] for row in rows}:
        lines = [
            f"{kind}_{number:x}.tflite,{','.join(map(str, row[1:]))},0.5,{number}"
            for number, row in enumerate(rows, 1)
            if row[0] == kind
        ]
        (folder / f"{kind}.csv").write_text("\n".join([KERNEL_HEADER, *lines, ""]))
    return folder


def test_kernels_of_nn_meter_add_up_to_blocks(proxyless, tmp_path):
    rows = kernel_rows(proxyless)
    ms = {row: number for number, row in enumerate(rows, 1)}
    table, text = import_table(kernel_csv(tmp_path / "kernels", rows), proxyless, DEVICE)
    assert table.missing(wanted_blocks(proxyless)) == []
    assert f"{len(rows)} of {len(rows)} figures" in text
    assert "nn-Meter's CSV" in text
    parts = [
        ("conv-bn-relu", 8, 24, 144, 1, 1),
        ("dwconv-bn-relu", 8, 144, 144, 5, 1),
        ("conv-bn-relu", 8, 144, 24, 1, 1),
        ("add", 8, 24, "", "", ""),
    ]
    block = proxyless.blocks(proxyless.largest)[-3]
    assert table.entry_ms(block) == (sum(ms[part] for part in parts), False)


def test_nn_meters_squeeze_excite_has_a_quarter_of_the_channels(squeezed, tmp_path):
    rows = kernel_rows(squeezed)
    ms = {row: number for number, row in enumerate(rows, 1)}
    table, _ = import_table(kernel_csv(tmp_path / "kernels", rows), squeezed, DEVICE)
    lacking = {spec.mid_ch for spec in table.missing(wanted_blocks(squeezed))}
    assert lacking == {48, 72, 144}  # rounded to 16, 16 and 40, not 12, 18 and 36
    parts = [
        ("conv-bn-relu", 16, 16, 96, 1, 1),
        ("dwconv-bn-relu", 16, 96, 96, 5, 2),
        ("se", 8, 96, "", "", ""),
        ("conv-bn-relu", 8, 96, 24, 1, 1),
    ]
    block = squeezed.blocks(squeezed.largest)[-4]
    assert table.entry_ms(block) == (sum(ms[part] for part in parts), False)


def test_kernels_that_no_block_has_are_counted_and_named(proxyless, tmp_path):
    rows = "\n".join(
        [
            KERNEL_HEADER,
            "fc_1.tflite,,64.0,1000.0,,,0.1,0.5",
            "fc_2.tflite,,64,1000,,,0.1,0.7",
            "hswish_3.tflite,8,64,,,,,0.1",
            "maxpool_4.tflite,8,64,64,3,2,,0.2",
            "maxpool_5.tflite,8,64,64,3,1,,0.2",
        ]
    )
    (tmp_path / "all.csv").write_text(rows)
    table, text = import_table(tmp_path / "all.csv", proxyless, DEVICE)
    assert table.blocks[ClassifierSpec(64, 1000)].ms == pytest.approx(0.6)  # the mean of both
    assert "1 of 4 figures make 1 blocks" in text
    assert "Not used, as no such block is made of them: 3, such as hswish; maxpool" in text


def block_csv(path, network, drop=0):
    specs = wanted_blocks(network)
    columns = list(dict.fromkeys(name for spec in specs for name in spec.key))
    lines = [",".join([*columns, "ms", "n"])]
    for spec in specs[drop:]:
        cells = [str(spec.key.get(name, "")) for name in columns]
        lines.append(",".join([*cells, str(fake_latency.true_ms(spec)), "50"]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("space", ["tiny", "compact"])
def test_a_plain_csv_holds_any_space(space, tmp_path):
    network = Network(space, 10)
    table, _ = import_table(block_csv(tmp_path / "b.csv", network), network, DEVICE)
    expected = {spec: fake_latency.true_ms(spec) for spec in wanted_blocks(network)}
    assert {spec: row.ms for spec, row in table.blocks.items()} == pytest.approx(expected)
    assert {row.n for row in table.blocks.values()} == {50}


def test_imports_can_be_put_together(tmp_path):
    network = Network("tiny", 10)
    whole, _ = import_table(block_csv(tmp_path / "b.csv", network), network, DEVICE)
    part, text = import_table(block_csv(tmp_path / "p.csv", network, drop=3), network, DEVICE)
    assert "lacks 3 block(s)" in text
    assert part.merge(whole).blocks.keys() == whole.blocks.keys()


def child_csv(path, rows):
    path.write_text(
        "\n".join(["genotype,ms,role", *(f'"{g}",{ms},{role}' for g, ms, role in rows)])
    )
    return path


@pytest.fixture
def plain(tmp_path):
    network = Network("tiny", 10)
    path = block_csv(tmp_path / "b.csv", network)
    raw = Predictor(network, import_table(path, network, DEVICE)[0])
    return network, path, raw


def child_rows(network, raw, role, n, seed, factor=1.25):
    children = list({sample(network.dims, Random(f"{seed} {i}")): None for i in range(n)})
    ms = raw.predict_ms(np.array(children)) * factor
    return [(format_genotype(c), float(m), role) for c, m in zip(children, ms, strict=True)]


def test_whole_children_are_fitted_on(plain, tmp_path):
    network, path, raw = plain
    rows = child_rows(network, raw, "", 3, "fit")
    children = child_csv(tmp_path / "c.csv", rows)
    table, text = import_table(path, network, DEVICE, children=children)
    model = table.models[network.identity]
    assert (model.kind, model.n_fit, model.n_calibrate) == ("scale", 3, 0)
    genotypes = np.array(children_of(network))
    fitted = Predictor(network, table).predict_ms(genotypes)
    np.testing.assert_allclose(fitted, 1.25 * raw.predict_ms(genotypes), rtol=1e-6)
    assert "imported from c.csv (CSV of children, sha256" in text
    assert "no model" not in text
    assert table.children[0].space == network.identity


def test_a_bound_is_taken_on_children_that_are_said_to_be_drawn_for_it(plain, tmp_path):
    network, path, raw = plain
    rows = child_rows(network, raw, "fit", 20, "fit")
    drawn = child_rows(network, raw, "calibrate", 40, "drawn", factor=1.3)
    fitted = {genotype for genotype, _, _ in rows}
    rows += [row for row in drawn if row[0] not in fitted]
    children = child_csv(tmp_path / "c.csv", rows)
    table, _ = import_table(path, network, DEVICE, children=children)
    model = table.models[network.identity]
    assert model.n_calibrate == len(rows) - len(fitted)
    assert model.bound_factor() == pytest.approx(1.3 / 1.25, rel=1e-3)
    table.write(tmp_path / "t.json")
    assert LatencyTable.read(tmp_path / "t.json") == table


def test_two_children_are_too_few_to_fit(plain, tmp_path):
    network, path, raw = plain
    children = child_csv(tmp_path / "c.csv", child_rows(network, raw, "fit", 2, "fit"))
    table, text = import_table(path, network, DEVICE, children=children)
    assert table.models[network.identity].kind == "raw"
    assert "no model is fitted: 2 children, but it takes 3" in text
    assert model_for(network, table) == table.models[network.identity]


def test_children_of_blocks_that_are_missing_cannot_be_fitted_on(plain, tmp_path):
    network, _, raw = plain
    path = block_csv(tmp_path / "p.csv", network, drop=200)
    children = child_csv(tmp_path / "c.csv", child_rows(network, raw, "fit", 9, "fit"))
    with pytest.raises(MissingEntries):
        import_table(path, network, DEVICE, children=children)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("genotype,ms\n0,1,5\n", "needs quotes"),
        ('genotype,ms\n"0,1",5\n', "line 2"),
        ("genotype,ms\nsmallest,0\n", "no latency"),
        ("genotype,ms\nsmallest,nan\n", "no latency"),
        ("genotype,ms\nsmallest,\n", "ms must be milliseconds"),
        ("genotype,ms,n\nsmallest,1,0\n", "n must be a whole number"),
        ("genotype,ms,role\nsmallest,1,verify\n", "fit or calibrate"),
        ("genotype,ms\nsmallest,1\nsmallest,2\n", "twice"),
        ("child,ms\nsmallest,1\n", "line 2"),
    ],
)
def test_bad_children_are_refused(plain, tmp_path, text, message):
    network, path, _ = plain
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(TableError, match=message):
        import_table(path, network, DEVICE, children=tmp_path / "c.csv")


BLOCK = "kind,in_features,out_features,ms,n\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "", "no rows of a known form"),
        ("t.csv", "a,b\n1,2\n", "no rows of a known form"),
        ("t.csv", BLOCK, "no rows of a known form"),
        ("t.csv", BLOCK + "pool,8,8,1,\n", "no figure of any block.*\nNot used.*: 1, such as pool"),
        ("t.csv", BLOCK + "classifier,8,7,1,\n", "such as kind classifier, in_features 8"),
        ("t.csv", BLOCK + "classifier,8,,1,\n", "line 2: a classifier block has the fields"),
        ("t.csv", BLOCK + "classifier,8,8.5,1,\n", "classifier block has the fields"),
        ("t.csv", BLOCK + "classifier,8,99999999999,1,\n", "classifier block has the fields"),
        ("t.csv", BLOCK + "classifier,8,8,-1,\n", "line 2: -1.0 is no latency"),
        ("t.csv", BLOCK + "classifier,8,8,1e9,\n", "no latency"),
        ("t.csv", BLOCK + "classifier,8,8,fast,\n", "ms must be milliseconds"),
        ("t.csv", BLOCK + "classifier,8,8,1,0\n", "n must be a whole number"),
        ("t.csv", BLOCK + "classifier,8,8,1,1,1\n", "more cells"),
        ("t.csv", 'kind,ms\n"conv,1\n', "no CSV file"),
        ("t.csv", "CIN,COUT,latency\n8,8,1\n", "model_path must begin with a kernel's name"),
        ("t.csv", "kernel,CIN,COUT,latency\nfc,8,,1\n", "COUT must be a whole number"),
        ("t.csv", "kernel,CIN,COUT,latency\nfc,8,1e3,1\n", "COUT must be a whole number"),
        ("t.csv", "kernel,CIN,COUT,latency\nfc,8,8,1000 us\n", "latency must be milliseconds"),
        ("t.yaml", "", "holds no rows"),
        ("t.yaml", "[1, 2]", "holds no rows"),
        ("t.yaml", "{}", "no figure of any block"),
        ("t.yaml", "Logits-input:1x1x8-output:10: 3", "None is no latency"),
        ("t.yaml", "Logits-input:1x1x8-output:10: {mean: 0}", "0 is no latency"),
        ("t.yaml", "Logits-input:1x1x8-output:10: {mean: '1'}", "1 is no latency"),
        ("t.yaml", "Logits-input:1x1x8-output:10: {mean: 1, count: 0}", "count must be"),
        ("t.yaml", "a: &x [1]\nb: *x", "aliases"),
        ("t.yaml", "a: {mean: 1}\na: {mean: 1}", "twice"),
        ("t.yaml", "a: !!python/object:os.system {}", "not valid YAML"),
    ],
)
def test_what_is_no_table_is_refused(proxyless, tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    expand = "ratio" if name.endswith("yaml") else None
    with pytest.raises((TableError, ConfigError), match=message):
        import_table(path, proxyless, DEVICE, expand=expand)


def test_files_that_cannot_be_read_are_refused(proxyless, tmp_path, monkeypatch):
    with pytest.raises(TableError, match="cannot read"):
        import_table(tmp_path / "none.csv", proxyless, DEVICE)
    with pytest.raises(ConfigError, match="cannot read"):
        import_table(tmp_path / "none.yaml", proxyless, DEVICE, expand="ratio")
    with pytest.raises(TableError, match=r"holds no file ending in \.yaml or \.csv"):
        import_table(tmp_path, proxyless, DEVICE)
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TableError, match="no CSV file"):
        import_table(tmp_path / "a.csv", proxyless, DEVICE)
    (tmp_path / "b.yaml").write_text("{}")
    with pytest.raises(TableError, match="two formats"):
        import_table(tmp_path, proxyless, DEVICE)
    monkeypatch.setattr("elastic_nas.latency.foreign.MAX_BYTES", 2**20)
    (tmp_path / "c.csv").write_text(" " * (2**20 + 1))
    with pytest.raises(TableError, match="larger than 1 MB"):
        import_table(tmp_path / "c.csv", proxyless, DEVICE)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), name=st.sampled_from(["t.yaml", "t.csv", "k.csv"]))
def test_damaged_files_are_refused_or_sound(proxyless, tmp_path, data, name):
    text = {
        "t.yaml": "Conv_1-input:8x8x24-output:8x8x64: {mean: 1.5, count: 3}\n"
        "expanded_conv-input:8x8x24-output:8x8x24-expand:3-kernel:3-stride:1-idskip:1: {mean: 2}\n",
        "t.csv": BLOCK + "classifier,64,1000,1.5,3\nclassifier,64,10,0.5,\n",
        "k.csv": "kernel,HW,CIN,COUT,latency\nfc,,64,1000,1.5\nse,8,64,,2\n",
    }[name]
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:at] + data.draw(st.text(max_size=3)) + text[at + data.draw(st.integers(0, 2)) :]
    (tmp_path / name).write_text(damaged, encoding="utf-8", errors="surrogatepass")
    try:
        expand = "ratio" if name == "t.yaml" else None
        table, _ = import_table(tmp_path / name, proxyless, DEVICE, expand=expand)
    except ElasticNasError:
        return
    assert all(0 < row.ms < 1e6 for row in table.blocks.values())
    table.write(tmp_path / "again.json")
    assert LatencyTable.read(tmp_path / "again.json") == table
