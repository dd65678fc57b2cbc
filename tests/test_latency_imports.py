"""Tables that others measured: plain CSV, children to fit on, and files that are no tables."""

import os
from random import Random

import fake_latency
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_spaces import DEVICE, PROXYLESS, network_of

from elastic_nas.errors import ConfigError, ElasticNasError, MissingEntries, TableError
from elastic_nas.genotype import format_genotype, sample
from elastic_nas.latency.imports import import_table, model_for
from elastic_nas.latency.merge import merge
from elastic_nas.latency.plan import wanted_blocks
from elastic_nas.latency.predictor import Predictor
from elastic_nas.latency.table import LatencyTable
from elastic_nas.network import Network


@pytest.fixture(scope="module")
def proxyless(tmp_path_factory):
    return network_of(tmp_path_factory.mktemp("proxyless"), PROXYLESS.replace("SE", "False"))


def children_of(network, n=30):
    return [sample(network.dims, Random(i)) for i in range(n)]


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
    assert merge(part, whole)[0].blocks.keys() == whole.blocks.keys()


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
        ("genotype,ms\nsmallest,-1\n", "no latency"),
        ("genotype,ms\nsmallest,1e-320\n", "no latency"),
        ("genotype,ms\nsmallest,nan\n", "ms must be milliseconds"),
        ('genotype,ms\n"' + "9" * 100_000 + '",1\n', "not a genotype"),
        ("genotype,ms,ms\nsmallest,1,2\n", "two columns are called 'ms'"),
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
        ("t.csv", BLOCK + "classifier,8,8,inf,\n", "ms must be milliseconds.*not 'inf'"),
        ("t.csv", BLOCK + "classifier,8,8,1_000,\n", "ms must be milliseconds"),
        ("t.csv", BLOCK + "classifier,8,8,\u0661,\n", "ms must be milliseconds"),
        ("t.csv", BLOCK + "classifier,8,8,1e400,\n", "inf is no latency"),
        ("t.csv", BLOCK + "classifier,8,8,1,999999999\n", "n must be a whole number"),
        ("t.csv", BLOCK + "classifier,8,8,1,\u0661\n", "n must be a whole number"),
        ("t.csv", BLOCK + "classifier,8,8\0,1,\n", "no CSV file"),
        ("t.csv", BLOCK + "x" * 200_000 + ",8,8,1,\n", "no CSV file: field larger"),
        ("t.csv", "kind,ms,kind\nconv,1,conv\n", "two columns are called 'kind'"),
        ("t.csv", ",".join(map(str, range(100_000))) + "\n", "has 100,000 columns"),
        ("t.csv", "kind,ms\n" + "a,1\n" * 100_001, "more than 100,000 rows"),
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
        ("t.yaml", "Logits-input:1x1x8-output:10: {mean: 1, count: 1000000}", "count must be"),
        ("t.yaml", "Logits-input:1x1x8-output:10: {mean: true}", "True is no latency"),
        ("t.yaml", "Logits-input:1x1x999999999-output:10: {mean: 1}", "no figure of any block"),
        ("t.yaml", "Logits-input:1x1x\u0668-output:10: {mean: 1}", "no figure of any block"),
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
    with pytest.raises(TableError, match="no text file"):
        import_table(tmp_path / "a.csv", proxyless, DEVICE)
    (tmp_path / "b.yaml").write_text("{}")
    with pytest.raises(TableError, match="two formats"):
        import_table(tmp_path, proxyless, DEVICE)
    monkeypatch.setattr("elastic_nas.latency.foreign.MAX_BYTES", 2**20)
    (tmp_path / "c.csv").write_text(" " * (2**20 + 1))
    with pytest.raises(TableError, match="larger than 1,048,576 bytes"):
        import_table(tmp_path / "c.csv", proxyless, DEVICE)


@pytest.mark.parametrize("name", ["t.csv", "t.yaml"])
def test_what_is_no_file_keeps_no_reader_waiting(proxyless, tmp_path, name):
    expand = "ratio" if name.endswith("yaml") else None
    os.mkfifo(tmp_path / name)
    for path in (tmp_path, tmp_path / name):  # alone, and in a folder of tables
        with pytest.raises((TableError, ConfigError), match="it is a pipe, not a file"):
            import_table(path, proxyless, DEVICE, expand=expand)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises((TableError, ConfigError), match="it is a device, not a file"):
        import_table(tmp_path, proxyless, DEVICE, expand=expand)


def test_what_is_summed_or_counted_is_what_a_table_takes(tmp_path):
    """Two rows of one block with as many samples as can be; kernels that add up to too long."""
    network = Network("tiny", 10)
    path = block_csv(tmp_path / "b.csv", network)
    lines = path.read_text().replace(",50\n", ",999999\n").splitlines()
    path.write_text("\n".join([*lines, lines[1]]) + "\n")
    table, _ = import_table(path, network, DEVICE)
    table.write(tmp_path / "t.json")
    assert LatencyTable.read(tmp_path / "t.json") == table
    assert {row.n for row in table.blocks.values()} == {999_999}


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
