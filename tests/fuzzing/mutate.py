"""Seeded damage: to bytes, to the fields of JSON and YAML, to cells of tables."""

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from fuzzing.odd import NASTY, NUMBERS, RAW, SHAPES, TEXTS, Raw

MOST_BYTES = 2_000_000
"""That a value is made to grow to."""


class Pairs(list[tuple[str, Any]]):
    """A mapping whose keys may stand there twice."""


def spell(value: Any) -> str:
    """A value as JSON, with what JSON does not allow where it was put in."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{_text(key)}: {spell(item)}" for key, item in value) + "}"
    if isinstance(value, dict):
        return spell(Pairs(value.items()))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(spell, value)) + "]"
    return _text(value)


def _text(value: Any) -> str:
    return json.dumps(value)


# --- bytes ---------------------------------------------------------------------------------------


def damaged_bytes(content: bytes, rng: Random) -> tuple[bytes, str]:
    """The content with one to three pieces of damage, and what was done."""
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        name = rng.choice(list(BYTEWISE))
        content = BYTEWISE[name](content, rng)
        done.append(name)
    return content, " + ".join(done)


def _span(content: bytes, rng: Random, most: int = 64) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.randint(1, most))


def _flip(content: bytes, rng: Random) -> bytes:
    if not content:
        return content
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set(content: bytes, rng: Random) -> bytes:
    if not content:
        return content
    at = rng.randrange(len(content))
    return (
        content[:at]
        + bytes([rng.choice([0, 255, 127, 128, rng.randrange(256)])])
        + content[at + 1 :]
    )


def _delete(content: bytes, rng: Random) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + content[end:]


def _double(content: bytes, rng: Random) -> bytes:
    start, end = _span(content, rng, 400)
    return content[:end] + content[start:end] * rng.choice([1, 1, 2, 50]) + content[end:]


def _cut(content: bytes, rng: Random) -> bytes:
    return content[: rng.choice([0, 1, 4, len(content) - 1, rng.randrange(len(content) + 1)])]


def _swap(content: bytes, rng: Random) -> bytes:
    a, b = sorted([_span(content, rng), _span(content, rng)])
    if a[1] > b[0]:
        return content
    return (
        content[: a[0]]
        + content[b[0] : b[1]]
        + content[a[1] : b[0]]
        + content[a[0] : a[1]]
        + content[b[1] :]
    )


def _splice(content: bytes, rng: Random) -> bytes:
    start, end = _span(content, rng)
    if rng.random() < 0.5:
        end = start
    return content[:start] + rng.choice(NASTY) + content[end:]


def _digit(content: bytes, rng: Random) -> bytes:
    places = [at for at, byte in enumerate(content[:200_000]) if 48 <= byte <= 57]
    if not places:
        return _flip(content, rng)
    at = rng.choice(places)
    return content[:at] + bytes([rng.choice(b"0123456789-.e")]) + content[at + 1 :]


def _append(content: bytes, rng: Random) -> bytes:
    return content + rng.choice([*NASTY, b"\n", content[:200]])


BYTEWISE: dict[str, Callable[[bytes, Random], bytes]] = {
    "flip bits": _flip,
    "set a byte": _set,
    "delete": _delete,
    "double": _double,
    "truncate": _cut,
    "swap pieces": _swap,
    "splice": _splice,
    "change a digit": _digit,
    "append": _append,
}


# --- fields --------------------------------------------------------------------------------------


def damaged_fields(value: Any, rng: Random) -> tuple[str, str]:
    """The text of a value with one or two changed fields, and what was done."""
    done = []
    value = _copied(value)
    for _ in range(rng.choice([1, 1, 1, 2])):
        box = {"": value}
        parent, key, path = _place(box, rng)
        name = rng.choice(list(FIELDWISE))
        FIELDWISE[name](parent, key, rng, box)
        value = box[""]
        done.append(f"{name} at {path[:80]}")
    return spell(value), " + ".join(done)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list | tuple) else value


def _place(box: dict[str, Any], rng: Random) -> tuple[Any, Any, str]:
    """A field: of all alike, or found by going down from the top, so that few rare ones are met."""
    places = list(_places(box, ""))
    if len(places) == 1 or rng.random() < 0.03:
        return places[0]
    if rng.random() < 0.4:
        return rng.choice(places[1:])
    parent, key, path = places[0]
    while True:
        inner = parent[key]
        keys = (
            list(inner)
            if isinstance(inner, dict)
            else range(len(inner))
            if isinstance(inner, list)
            else ()
        )
        if not keys or isinstance(inner, Pairs) or (parent is not box and rng.random() < 0.3):
            return parent, key, path
        parent, key = inner, rng.choice(list(keys))
        path = f"{path}/{key}"


def _places(value: Any, path: str) -> Iterator[tuple[Any, Any, str]]:
    """Every field: what it is in, its key or index there, and the way to it."""
    if isinstance(value, Pairs):
        return
    if isinstance(value, dict):
        items: Any = value.items()
    else:
        items = enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key, f"{path}/{key}"
        yield from _places(item, f"{path}/{key}")


def _put(make: Callable[[Random], Any]) -> Callable[..., None]:
    def change(parent: Any, key: Any, rng: Random, box: Any) -> None:
        parent[key] = make(rng)

    return change


def _remove(parent: Any, key: Any, rng: Random, box: Any) -> None:
    del parent[key]
    if parent is box:
        box[""] = None


def _scale(parent: Any, key: Any, rng: Random, box: Any) -> None:
    """A number, or all numbers below: ten times as much, a tenth, the negative, one more."""
    factor = rng.choice([10, 0.1, -1, 1.05, "one more", 1000])

    def scaled(value: Any) -> Any:
        if isinstance(value, list):
            return [scaled(item) for item in value]
        if isinstance(value, dict):
            return {name: scaled(item) for name, item in value.items()}
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        if factor == "one more":
            return value + 1
        changed = value * factor
        return int(changed) if isinstance(value, int) and rng.random() < 0.7 else changed

    parent[key] = scaled(parent[key])


def _scale_all(parent: Any, key: Any, rng: Random, box: Any) -> None:
    """Every number under that key, wherever it stands, times ten or a tenth."""
    factor = rng.choice([10, 0.1, -1])
    for other, name, _ in list(_places(box, "")):
        item = other[name]
        if name == key and type(item) in (int, float):
            other[name] = item * factor


def _swap_fields(parent: Any, key: Any, rng: Random, box: Any) -> None:
    keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
    other = rng.choice(keys)
    parent[key], parent[other] = parent[other], parent[key]


def _twice(parent: Any, key: Any, rng: Random, box: Any) -> None:
    """The key again, with another value."""
    if isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), _copied(parent[key]))
        return
    pairs = Pairs(parent.items())
    pairs.insert(
        rng.randrange(len(pairs) + 1), (str(key), rng.choice([*NUMBERS, *TEXTS, parent[key]]))
    )
    for other, name, _ in _places(box, ""):
        if other[name] is parent:
            other[name] = pairs
            return


def _thousand(parent: Any, key: Any, rng: Random, box: Any) -> None:
    """A thousand times as much, or as much as makes a file of some megabytes."""
    item = parent[key]
    times = max(2, min(1000, MOST_BYTES // (1 + len(spell(item)))))
    if isinstance(item, list):
        parent[key] = item * times
    elif isinstance(item, str):
        parent[key] = (item or "x") * times
    else:
        parent[key] = [item] * times


def _rename(parent: Any, key: Any, rng: Random, box: Any) -> None:
    if isinstance(parent, dict) and parent is not box:
        parent[rng.choice([*TEXTS, f"{key} ", str(key).upper()])] = parent.pop(key)


def _retype(parent: Any, key: Any, rng: Random, box: Any) -> None:
    """The same in another type: 1 as 1.0, "1", [1] or true; a text as a number."""
    item = parent[key]
    kinds: list[Any] = [str(item)[:4000], [item], {"value": item}, bool(item)]
    if type(item) in (int, float):
        kinds += [float(item)] * 3
    if isinstance(item, str):
        kinds += [0, len(item), list(item[:50])]
    parent[key] = rng.choice(kinds)


def _letter(parent: Any, key: Any, rng: Random, box: Any) -> None:
    """One character of a text, one digit of a number."""
    item = parent[key]
    if isinstance(item, str) and item:
        at = rng.randrange(len(item))
        parent[key] = item[:at] + rng.choice("0123456789abcdefXYZ-. ,:@/") + item[at + 1 :]
    elif type(item) is int:
        parent[key] = item + rng.choice([-1, 1, 2, 10])
    elif type(item) is float:
        parent[key] = item * (1 + rng.choice([1, -1]) * 10.0 ** -rng.randint(1, 6))


FIELDWISE: dict[str, Callable[..., None]] = {
    "number": _put(lambda rng: rng.choice(NUMBERS)),
    "text": _put(lambda rng: rng.choice(TEXTS)),
    "shape": _put(lambda rng: _copied(rng.choice(SHAPES))),
    "raw": _put(lambda rng: rng.choice(RAW)),
    "remove": _remove,
    "scale": _scale,
    "scale all": _scale_all,
    "swap": _swap_fields,
    "twice": _twice,
    "thousand": _thousand,
    "rename": _rename,
    "retype": _retype,
    "letter": _letter,
}


# --- tables of cells -----------------------------------------------------------------------------


def damaged_cells(text: str, rng: Random) -> tuple[str, str]:
    """A CSV text with one changed cell, row or column."""
    rows = [line.split(",") for line in text.split("\n")]
    row = rng.choice([row for row in rows if len(row) > 1] or rows)
    at = rng.randrange(len(row))
    name = rng.choice(["cell", "cell", "number", "scale", "lose", "double row", "swap", "column"])
    if name in ("cell", "column"):
        odd = rng.choice(
            [rng.choice(TEXTS).replace("\ud800", "?"), *map(str, NUMBERS), "1e999", "nan", "inf"]
        )
        for other in [row] if name == "cell" else rows:
            if at < len(other):
                other[at] = odd
    elif name in ("number", "scale"):
        try:
            row[at] = str(float(row[at]) * rng.choice([10, 0.1, -1, 1e300]))
        except ValueError:
            row[at] = str(rng.choice(NUMBERS))
    elif name == "lose":
        del row[at]
    elif name == "double row":
        rows.insert(rng.randrange(len(rows)), list(row))
    else:
        other = rng.randrange(len(row))
        row[at], row[other] = row[other], row[at]
    return "\n".join(",".join(row) for row in rows), name
