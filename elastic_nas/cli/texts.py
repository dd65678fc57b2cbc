"""What the command line says: facts, answers and manifests as text for a person."""

import os
import textwrap
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from elastic_nas.budgets import Budgets, format_count, format_duration, format_size
from elastic_nas.cli.tables import columns, paragraph, shown, terminal_width
from elastic_nas.facts import default_run
from elastic_nas.genotype import format_genotype
from elastic_nas.query import Answer

if TYPE_CHECKING:
    from elastic_nas.targets import Target


def percent(value: float) -> str:
    """``98.3 %``."""
    return f"{100 * value:.1f} %"


def interval(low: float, high: float) -> str:
    """``97.1-99.0 %``."""
    return f"{100 * low:.1f}-{100 * high:.1f} %"


def how_to_go_on(name: str, arguments: dict[str, Any]) -> str:
    """What a person does after Ctrl-C."""
    if name in ("demo", "profile", "search"):
        return "What is finished is on disk; the same command goes on."
    if name == "train_child":
        begun = (arguments["out"] / "run.yaml").is_file() and not arguments["resume"]
        return f"The same command {'with --resume ' * begun}goes on."
    if name != "train":
        return "Nothing was written; the same command starts again."
    folder = arguments["out"] or default_run(arguments["run_file"], arguments["data"])
    if not (folder / "run.yaml").is_file():
        return "Nothing was trained yet; the same command starts again."
    if arguments["resume"] and arguments["minutes"] is None:
        return "The same command goes on."
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    many = f"torchrun --nproc-per-node {processes} -m elastic_nas"
    program = "elastic-nas" if processes == 1 else many
    return f"Go on with: {program} train --out {quote(str(folder))} --resume"


def after_training(folder: Path, done: str = "trained") -> str:
    """The next steps."""
    device, run = "local-ort-1t", quote(str(folder))
    return (
        f"{done}: {folder}\n{_curves(folder)}Next:\n  elastic-nas profile {device} --run {run}\n"
        f"  elastic-nas search {run} --device {device}\n"
        f"  elastic-nas export {run} --device {device} --latency 5ms"
    )


def after_training_alone(folder: Path) -> str:
    """The next steps with a run of one child."""
    run = quote(str(folder))
    return (
        f"trained: {folder}\n{_curves(folder)}Next:\n"
        f"  elastic-nas export {run} --genotype largest --out {run}/child\n"
        f"  elastic-nas verify {run}/child"
    )


def _curves(folder: Path) -> str:
    """Where to see how a training went; nothing where there is no picture."""
    picture = folder / "training.png"
    return f"Learning curves: {picture}; log: {folder / 'log.jsonl'}\n" if picture.exists() else ""


def front_table(front: list[Answer], device: str) -> str:
    """The Pareto front for a person."""
    rows = [
        (
            format_duration(a.bound_ms),
            format_duration(a.predicted_ms),
            percent(a.accuracy),
            interval(*a.interval),
            format_count(a.macs),
            format_count(a.params),
            format_genotype(a.genotype),
        )
        for a in front
    ]
    header = ("bound", "predicted", "accuracy", "95 % interval", "MACs", "params", "genotype")
    n = front[0].n if front else 0
    title = f"Pareto front on {device}; accuracy on search-validation, n = {n}\n"
    return title + columns(rows, header)


def answer_table(answer: Answer, target: "Target", budgets: Budgets) -> str:
    """One answer for a person."""
    rows = [
        ("budgets", str(target.limited(budgets))),
        ("genotype", format_genotype(answer.genotype)),
        (
            "accuracy",
            f"{percent(answer.accuracy)} ({interval(*answer.interval)}) on search-validation, "
            f"n = {answer.n}",
        ),
        ("latency", f"{format_duration(answer.predicted_ms)} predicted"),
        (
            "",
            f"{format_duration(answer.bound_ms)} bounded at {100 * target.predictor.level:g} % on "
            f"{target.device.name}",
        ),
        ("", _measured_text(answer)),
        *([("checked", target.checked_text)] if target.checked_text else []),
        ("params", format_count(answer.params)),
        ("MACs", format_count(answer.macs)),
        ("file", f"at most {format_size(answer.size_bytes)}"),
        ("memory", f"{format_size(answer.memory_bytes)} of activations at one time"),
        ("resolution", f"{answer.settings['resolution']} px"),
        *(("note", note) for note in (*answer.notes, *target.remarks)),
    ]
    return columns(rows)


def _measured_text(answer: Answer) -> str:
    if answer.measured_ms is None:
        return "not measured: export measures it"
    return f"{format_duration(answer.measured_ms)} measured after the search"


def latency_rows(latency: dict[str, Any]) -> list[tuple[str, ...]]:
    """Predicted, bounded and measured side by side."""
    predicted, bound, measured = (
        "-" if latency[key] is None else format_duration(latency[key])
        for key in ("predicted_ms", "bound_ms", "measured_ms")
    )
    rows: list[tuple[str, ...]] = [
        ("latency", f"{predicted} predicted, {bound} bounded at 95 %, {measured} measured")
    ]
    if latency["device"]:
        rows.append(("device", str(latency["device"])))
    rows += [("note", note) for note in (latency["note"], *latency.get("notes", [])) if note]
    return rows


def _missing_rows(images: dict[str, Any] | None) -> list[tuple[str, ...]]:
    """What of a run's images was missing at the export, and what the figures are of instead."""
    if images is None or not any(images["missing"].values()):
        return []
    used, missing = images["used"], images["missing"]
    sides = [side for side, n in missing.items() if n]
    told = (f"{used[s]:,} of {used[s] + missing[s]:,} {s.replace('_', '-')}" for s in sides)
    return [("images", f"some were missing: {', '.join(told)}")]


def manifest_table(manifest: dict[str, Any]) -> str:
    """An exported child for a person."""
    accuracy, parity, int8 = manifest["accuracy"], manifest["parity"], manifest.get("int8")
    rows: list[tuple[str, ...]] = [
        ("genotype", manifest["genotype"]),
        ("accuracy", accuracy_text(accuracy, "the fp32 file child.onnx")),
        *([] if int8 is None else [("", int8_text(int8))]),
        *_missing_rows(manifest.get("images")),
        *latency_rows(manifest["latency"]),
        ("parity", parity_text(parity)),
        (
            "file",
            f"{format_size(manifest['size_bytes'])}, {format_count(manifest['params'])} parameters",
        ),
    ]
    return columns(rows)


def accuracy_text(accuracy: dict[str, Any], of: str) -> str:
    """``98.3 % (96.4-99.2 %) of child.onnx on the test split, n = 359``."""
    return (
        f"{percent(accuracy['top1'])} ({interval(*accuracy['interval_95'])}) of {of} on the test "
        f"split, n = {accuracy['n']}"
    )


def int8_text(int8: dict[str, Any]) -> str:
    """The accuracy of an int8 form, and that no such file was written."""
    return (
        f"{accuracy_text(int8, 'its int8 form, whose latency this is,')}; made with ranges from "
        f"{int8['calibration_images']} training images ({int8['scheme']}); not written"
    )


def export_table(exported: dict[str, Any]) -> str:
    """What an export wrote, and where."""
    folder = exported["folder"]
    recheck = f"elastic-nas verify {quote(folder)}"
    return f"{manifest_table(exported)}\nwritten: {folder}/child.onnx (recheck with: {recheck})"


def parity_text(parity: dict[str, Any]) -> str:
    """``4e-07 of the largest logit, top-1 agreement 100.0 % on 64 images``."""
    return (
        f"{parity['max_difference']:.0e} of the largest logit, top-1 agreement "
        f"{percent(parity['top1_agreement'])} on {parity['images']} images"
    )


def verify_table(report: dict[str, Any]) -> str:
    """A recheck for a person."""
    figures = sorted(report["figures"], key=lambda row: STATUS.index(row["status"]))
    rows = [
        (row["name"], _figure_text(row["name"], row["value"]), row["status"]) for row in figures
    ]
    notes = [("note", f"{row['name']}: {row['note']}") for row in figures if row["note"]]
    told = [("verified", report["folder"]), *latency_rows(report["latency"]), *notes]
    return (
        f"{columns(rows, ('figure', 'value', 'how it is known'))}\n\n{columns(told)}\n"
        "Verified is what was recomputed here. What is claimed stands on the word of\n"
        "whoever made the folder."
    )


STATUS = ("recomputed here", "agrees with the file", "claimed")
"""How a figure is known, the best first."""


def _figure_text(name: str, value: Any) -> str:
    """A figure of a manifest in one line that fits beside its name and status."""
    if name == "parity":
        return f"{value['max_difference']:.0e} of the largest logit on {value['images']} images"
    if name in ("accuracy", "int8"):
        return f"{percent(value['top1'])} ({interval(*value['interval_95'])}), n = {value['n']}"
    if name == "search_validation" and value is not None:
        return f"{percent(value['accuracy'])}, n = {value['n']}"
    if name == "images":
        return f"{value['used']['train']:,} train, {value['used']['test']:,} test"
    if name.endswith("_ms"):
        return format_duration(value)
    text = f"{value:,}" if type(value) is int else str(value)
    return text if len(text) <= MOST_COLUMNS else f"{text[: MOST_COLUMNS - 4]} ..."


MOST_COLUMNS = 36
"""Of a figure in a table."""


def describe_table(facts: dict[str, Any]) -> str:
    """A space or a child for a person."""
    if "blocks" in facts:
        head = [(key, f"{facts[key]:,}") for key in ("macs", "params")]
        settings = [(key, str(value)) for key, value in facts["settings"].items()]
        blocks = [
            (b["kind"], _block_text(b), format_count(b["macs"]), format_count(b["params"]))
            for b in facts["blocks"]
        ]
        top = columns([("genotype", facts["genotype"]), *settings, *head])
        return f"{top}\n\n{columns(blocks, ('block', 'shape', 'MACs', 'params'))}"
    dims = [(dim["name"], ", ".join(map(str, dim["choices"]))) for dim in facts["dims"]]
    ends = [
        (end, f"{facts[end]['macs']:,} MACs, {facts[end]['params']:,} parameters")
        for end in ("smallest", "largest")
    ]
    children = ("children", f"{facts['children']:,}")
    return f"{columns([('space', facts['space']), children, *ends])}\n\n{columns(dims)}"


def _block_text(block: dict[str, Any]) -> str:
    skipped = ("kind", "macs", "params", "activation", "gate", "shortcut", "expanded")
    return " ".join(f"{key}={value}" for key, value in block.items() if key not in skipped)


def predict_table(facts: dict[str, Any]) -> str:
    """A prediction for a person."""
    rows = [
        ("child", facts["genotype"]),
        ("predicted", format_duration(facts["latency_ms"])),
        ("bounded", f"{format_duration(facts['bound_ms'])} at {100 * facts['level']:g} %"),
        ("device", facts["device"]),
        *([("checked", facts["checked"])] if facts["checked"] else []),
        *(("note", note) for note in facts["notes"]),
    ]
    return columns(rows)


def listing_table(facts: dict[str, Any]) -> str:
    """A list for a person."""
    ((kind, rows),) = facts.items()
    if kind == "devices":
        return _devices_table(rows)
    if kind == "runtimes":
        return "\n".join(_runtime_text(row) for row in rows)
    return columns([(row["name"], row["about"]) for row in rows])


USES = {
    "table": "With a latency table, ready for search and query:",
    "here": "To be measured on this machine, with: elastic-nas profile NAME --space SPACE",
    "package": "To be measured on this machine once a package is installed:",
    "elsewhere": "Other machines, with: elastic-nas kit --device NAME --space SPACE",
    "unusable": "Profiles of your own that cannot be used:",
}
"""What can be done with a device now, in the order in which they are shown."""


def _devices_table(rows: list[dict[str, Any]]) -> str:
    parts = []
    for use, title in USES.items():
        if these := [row for row in rows if row["use"] == use]:
            texts = [(row["name"], _device_text(row)) for row in these]
            parts.append(f"{title}\n{columns(texts)}")
    parts.append(
        paragraph(
            "Tables are looked up in this order: --table FILE, the run folder (--run), the "
            "per-user folder, shipped. --json names the files."
        )
    )
    return "\n\n".join(parts)


def _device_text(row: dict[str, Any]) -> str:
    """What it is, and where its table comes from or what it lacks."""
    anew = f"; no table: elastic-nas kit --device {row['name']} --space SPACE --out kit.zip makes"
    about = str(row["about"]).partition(anew)[0].rstrip(".") + "."  # the title says it for all
    if row["use"] == "table":
        return f"{about} Table: {row['place']}."
    return f"{about} It {row['install']}." if row["use"] == "package" else about


def _runtime_text(row: dict[str, Any]) -> str:
    facts = [
        ("installed", row["version"] or f"no; {row['install']}"),
        ("precisions", ", ".join(row["precisions"])),
        ("providers", ", ".join(row["providers"])),
    ]
    lines = textwrap.indent(columns(facts, width=terminal_width() - 2), "  ")
    return f"{paragraph(row['name'] + ': ' + row['about'])}\n{lines}"


def check_table(facts: dict[str, Any]) -> str:
    """Whether a table still holds, for a person."""
    broken = [row["space"] for row in facts["spaces"] if row["why"]]
    anew = f"elastic-nas profile {facts['device']} --space {(broken or [''])[0]}"
    if not facts["shipped"]:  # else the new one is written elsewhere, and found first
        anew = f"move {facts['table']} away, then {anew}"
    advice = (
        "Predictions from it are now told at this speed."
        if facts["holds"]
        else "Until a check finds that it holds, its bounds are marked as no promise here. Close "
        "other programs, let the machine cool, and check again; or measure it anew:"
    )
    rows = [("table", facts["table"])]
    for row in facts["spaces"]:
        word = f"does not hold: {row['why']}" if row["why"] else "holds"
        speed = (
            f"{row['factor']:.3f} times what it was, single children {row['low']:.3f} to "
            f"{row['high']:.3f}, n = {row['n']}"
        )
        rows.append((row["space"], f"{word}; speed {speed}"))
    command = "" if facts["holds"] else f"\n{shown(anew)}"  # whole, to be copied
    return f"{columns(rows)}\n{paragraph(advice)}{command}"


def report_text(report: str) -> str:
    """The report of a profile within the terminal's width; a line with a command stays whole."""
    lines = report.split("\n")
    return "\n".join(line if "elastic-nas " in line else paragraph(line) for line in lines)


def kit_text(facts: dict[str, Any]) -> str:
    """What to do with a kit."""
    route = (
        f"On this device: {facts['measure']}"
        if facts["measure"]
        else "On the device: unzip it, then python run.py (needs numpy and onnxruntime; may be "
        f"killed and run again).\nThen here: {facts['command']}"
    )
    return (
        f"{facts['kit']}: {facts['models']} models, {format_size(facts['bytes'])}, "
        f"{format_size(facts['unpacked_bytes'])} unpacked\n{route}"
    )
