"""Kernels of nn-Meter: blocks are made of measured kernels, and of nothing else."""

import pytest
from made_spaces import DEVICE, PROXYLESS, network_of

from elastic_nas.latency.imports import import_table
from elastic_nas.latency.plan import wanted_blocks
from elastic_nas.specs.classifier import ClassifierSpec
from elastic_nas.specs.mbconv import MBConvSpec


@pytest.fixture(scope="module")
def proxyless(tmp_path_factory):
    return network_of(tmp_path_factory.mktemp("proxyless"), PROXYLESS.replace("SE", "False"))


@pytest.fixture(scope="module")
def squeezed(tmp_path_factory):
    return network_of(tmp_path_factory.mktemp("squeezed"), PROXYLESS.replace("SE", "True"))


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


@pytest.mark.parametrize("change", [("relu", "swish"), ("identity", "projected")])
def test_blocks_of_other_kernels_get_no_figure(proxyless, change, tmp_path):
    """There are no kernels with swish, nor for shortcuts that pool or project."""
    other = network_of(tmp_path / "other", PROXYLESS.replace("SE", "False").replace(*change))
    folder = kernel_csv(tmp_path / "kernels", kernel_rows(proxyless))
    table, _ = import_table(folder, other, DEVICE)
    assert not any("swish" in spec.key.values() for spec in table.blocks)
    strides = {spec.stride for spec in table.blocks if isinstance(spec, MBConvSpec)}
    assert strides == (set() if "swish" in change else {1})
    assert ClassifierSpec(64, 1000) in table.blocks


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
