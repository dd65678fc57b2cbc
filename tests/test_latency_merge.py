"""Two tables in one: at one speed, or not at all."""

from dataclasses import replace

import fake_latency
import pytest
from fake_latency import NULL_MS, child_ms

from elastic_nas.errors import TableError
from elastic_nas.latency.merge import merge
from elastic_nas.latency.plan import Draw, plan_for
from elastic_nas.latency.rows import ChildRow
from elastic_nas.measure import Timing
from elastic_nas.network import Network

VISIT = {"date": "2026-01-01", "device_s": 5.0, "speed": [], "stolen_share": None}
SPACE, OTHER = Network("tiny:size=8", 10), Network("tiny:size=16", 10)


def made(*networks, speed=1.0, start=0, **record):
    """A table of the imaginary device: blocks, anchors, and ten children from the `start`-th on."""
    table = fake_latency.table()
    table.provenance |= {"device_s": 5.0, "visits": [VISIT], "spaces": {}, **record}
    for network in networks:
        covered = fake_latency.table(network)
        for spec, row in covered.blocks.items():
            table.add_block(spec, fake_latency.block(speed * row.ms))
        table.models |= covered.models
        plan = plan_for(network, Draw())
        table.provenance["anchors"][network.identity] = [
            {"classes": 10, "genotype": list(g), "ms": speed * child_ms(network, g)}
            for g in plan.anchors
        ]
        table.provenance["spaces"][network.identity] = network.space_name
        for genotype in plan.calibrate[start : start + 10]:
            ms = speed * child_ms(network, genotype)
            timing = Timing(ms, ms, ms, ms, ms, 30, 0.5, [ms, ms])
            row = ChildRow.of(network.identity, 10, genotype, "calibrate", timing)
            table.children.append(row)
    return table


def test_other_figures_are_told_at_the_tables_own_speed():
    own = made(SPACE)
    lost = list(own.blocks)[:5]
    for spec in lost:
        del own.blocks[spec]
    both, notes = merge(own, made(SPACE, speed=1.08, start=5))
    for spec, row in both.blocks.items():
        assert row.ms == pytest.approx(fake_latency.alone_ms(spec), rel=1e-5)
    assert len(both.children) == 15
    for row in both.children:
        expected = child_ms(SPACE, row.genotype)
        assert (row.ms, row.p90, *row.round_ms) == pytest.approx((expected,) * 4, rel=1e-5)
    assert both.models == own.models
    figures = len(both.blocks) + 10
    known = len(both.blocks) - 5 + 5
    assert notes == [f"{known} of {figures} figures are known already; the table's own stay"]


def test_children_at_an_unknown_speed_are_left_out():
    other = made(SPACE, start=5)
    other.provenance["anchors"] = {}
    both, notes = merge(made(SPACE), other)
    assert len(both.children) == 10
    assert "5 children are left out" in notes[1]


def test_what_a_space_of_its_own_brings_stays_together():
    own, other = made(SPACE), made(SPACE, OTHER, speed=1.08)
    both, _ = merge(own, other)
    theirs = [row for row in both.children if row.space == OTHER.identity]
    assert theirs == [row for row in other.children if row.space == OTHER.identity]
    anchors = both.provenance["anchors"]
    assert anchors[OTHER.identity] == other.provenance["anchors"][OTHER.identity]
    assert anchors[SPACE.identity] == own.provenance["anchors"][SPACE.identity]
    assert OTHER.identity not in both.models  # its blocks are the own table's now


def test_a_machine_that_has_changed_speed_is_not_merged():
    with pytest.raises(TableError, match=r"takes 1\.20 times as long in the new one"):
        merge(made(SPACE), made(SPACE, speed=1.2))


def test_without_shared_anchors_it_is_said():
    both, notes = merge(made(SPACE), made(OTHER))
    assert {row.space for row in both.children} == {SPACE.identity, OTHER.identity}
    assert "share no anchor children" in notes[-1]


def test_the_record_is_that_of_both():
    visit = {**VISIT, "date": "2026-02-02"}
    energy = {"rule": "a meter", "millijoules": {"anchor 0": 1.0}}
    own = made(SPACE, energy={SPACE.identity: energy})
    other = made(OTHER, visits=[visit], date="2026-02-02", kit="of a plan", null_ms=9.0)
    record = merge(own, other)[0].provenance
    assert record["energy"] == {SPACE.identity: energy}
    assert record["spaces"].keys() == {SPACE.identity, OTHER.identity}
    assert (record["device_s"], record["visits"]) == (10.0, [VISIT, visit])
    again = merge(own, own)[0].provenance
    assert (again["device_s"], again["visits"]) == (5.0, [VISIT])
    assert (record["null_ms"], record["date"]) == (NULL_MS, "2026-02-02")
    assert record["kit"] == "of a plan"


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("runtime", {"version": "2.0"}),
        ("runtime", {"threads": 2}),
        ("device", {"name": "pi"}),
        ("device", {"cpu": "Other"}),
    ],
)
def test_tables_of_different_devices_are_not_merged(part, change):
    other = made(SPACE)
    other = replace(other, **{part: {**getattr(other, part), **change}})
    with pytest.raises(TableError, match="cannot be merged"):
        merge(made(SPACE), other)
