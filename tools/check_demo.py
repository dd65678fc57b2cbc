"""Fail where the demonstration's accuracies fall below what they must reach: CI runs this."""

import json
import sys
from pathlib import Path

LEAST = {"largest": 0.96, "smallest": 0.93}

folder = Path(sys.argv[1])
demo = json.loads((folder / "demo.json").read_text())
failed = False
for end, least in LEAST.items():
    got = demo["ends"][end]
    failed |= got["top1"] < least
    print(f"{end}: {got['top1']:.1%} of n = {got['n']} on the test split, at least {least:.0%}")
for number, child in enumerate(demo["children"], 1):
    file = folder / f"child-{number}" / "child.onnx"
    failed |= not file.is_file()
    latency = child["latency"]
    print(f"{file}: {latency['measured_ms']} ms measured, {latency['bound_ms']:.4f} ms bounded")
sys.exit(failed)
