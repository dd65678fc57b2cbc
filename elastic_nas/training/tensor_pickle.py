"""The pickles that torch saves a dict of tensors as, read as text: nothing is ever built of them.

A pickle is a program. Torch's own safe reader limits what the program may call, not how much it may
build: a few hundred bytes can claim gigabytes or nest without end. Here its instructions are only
listed (`pickletools`, which runs nothing), and those few are followed that a dict of tensors needs.
"""

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO

MOST_BYTES = 4 << 20
"""Of one pickle; that of a published supernet has some 100 kB."""
MOST_STEPS = 100_000
"""Instructions of one pickle; that of a published supernet has some 15,000."""
MOST_AXES = 8

REBUILT = "torch._utils _rebuild_tensor_v2"
PARAMETER = "torch._utils _rebuild_parameter"
DICT = "collections OrderedDict"
WIDTHS = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2,
    "LongStorage": 8, "IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1,
    "BoolStorage": 1,
}  # fmt: skip
"""Bytes of a number in each type of storage."""


@dataclass(frozen=True)
class Storage:
    """Numbers in a row, kept outside the pickle.

    Attributes:
        kind: A key of `WIDTHS`.
        key: Its name in the file.
        count: Of its numbers, as the pickle claims.
    """

    kind: str
    key: str
    count: int

    @property
    def bytes(self) -> int:
        """What so many numbers of this type take."""
        return self.count * WIDTHS[self.kind]


@dataclass(frozen=True)
class Described:
    """A tensor that a pickle describes: a part of a storage, seen in a shape."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    """A function or class by name; it is never looked up."""

    name: str


_MARK = object()


@dataclass
class Pickle:
    """What one pickle says.

    Attributes:
        value: Of dicts, lists, tuples, text, numbers and `Described` tensors.
        storages: All that it mentions, by key.
        length: Bytes of the pickle; in a file others may follow.
    """

    value: object
    storages: dict[str, Storage]
    length: int


def read_pickle(content: memoryview) -> Pickle:
    """What the pickle at the beginning of `content` says.

    Raises:
        ValueError: It is none, is too long, or would build more than tensors in plain containers.
    """
    stream = BytesIO(content[: MOST_BYTES + 1])
    machine = _Machine()
    for step, (name, argument) in enumerate(_instructions(stream)):
        if step >= MOST_STEPS or stream.tell() > MOST_BYTES:
            raise ValueError("its pickle is longer than that of any supernet")
        machine.follow(name, argument)
    if len(machine.stack) != 1 or machine.stack[0] is _MARK:
        raise ValueError("its pickle leaves no single value")
    return Pickle(machine.stack[0], machine.storages, stream.tell())


def _instructions(stream: BytesIO) -> Iterator[tuple[str, object]]:
    for opcode, argument, _ in pickletools.genops(stream):
        yield opcode.name, argument


@dataclass
class _Machine:
    """Follows a pickle's instructions on a stack of values that stand for what it would build."""

    stack: list[object] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)
    storages: dict[str, Storage] = field(default_factory=dict)

    def follow(self, name: str, argument: object) -> None:
        """One instruction."""
        if name in _IGNORED:
            return
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _ARGUMENTS:
            self.stack.append(argument)
        elif name in _FRESH:
            self.stack.append(_FRESH[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise ValueError(f"its pickle uses {name}, which no dict of tensors needs")

    def pop(self) -> object:
        """The uppermost value."""
        if not self.stack or self.stack[-1] is _MARK:
            raise ValueError("its pickle takes a value that is not there")
        return self.stack.pop()

    def top(self) -> object:
        """The uppermost value, which stays."""
        value = self.pop()
        self.stack.append(value)
        return value

    def since_mark(self) -> list[object]:
        """The values above the last mark, taken off with it."""
        taken: list[object] = []
        while self.stack and self.stack[-1] is not _MARK:
            taken.append(self.stack.pop())
        if not self.stack:
            raise ValueError("its pickle lacks a mark")
        self.stack.pop()
        return taken[::-1]

    def tuple_of(self, count: int) -> None:
        """The uppermost values as a tuple."""
        self.stack.append(tuple([self.pop() for _ in range(count)][::-1]))

    def put(self, place: object) -> None:
        """Remember the uppermost value; a place is taken once, as picklers do."""
        if type(place) is not int or place in self.memo:
            raise ValueError("its pickle remembers two values in one place")
        self.memo[place] = self.top()

    def get(self, place: object) -> None:
        """A value that was remembered."""
        if type(place) is not int or place not in self.memo:
            raise ValueError("its pickle recalls a value that was not there")
        self.stack.append(self.memo[place])

    def append(self, values: list[object]) -> None:
        """Add to the list below."""
        found = self.top()
        if not isinstance(found, list):
            raise ValueError("its pickle appends to what is no list")
        found.extend(values)

    def set_items(self, values: list[object]) -> None:
        """Add to the dict below; keys are text and numbers, which cost nothing to compare."""
        found = self.top()
        if not isinstance(found, dict) or len(values) % 2:
            raise ValueError("its pickle sets items of what is no dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) not in (str, int):
                raise ValueError("its pickle has a key that is neither a text nor a number")
            if key in found:
                raise ValueError(f"its pickle sets {str(key)[:80]!r} twice")
            found[key] = value

    def build(self) -> None:
        """Attributes of a dict, such as the versions of modules; they are left out."""
        if not isinstance(self.pop(), dict) or not isinstance(self.top(), dict):
            raise ValueError("its pickle sets attributes of what is no dict")

    def call(self) -> None:
        """What a call would build: an empty dict, or a tensor of a storage."""
        arguments, function = self.pop(), self.pop()
        name = function.name if isinstance(function, _Global) else ""
        if name == DICT and arguments == ():
            self.stack.append({})
        elif name == REBUILT and isinstance(arguments, tuple):
            self.stack.append(_tensor(arguments))
        elif name == PARAMETER and isinstance(arguments, tuple) and len(arguments) == 3:
            self.stack.append(arguments[0])
        else:
            raise ValueError(f"its pickle would call {name[:80].replace(' ', '.') or 'a value'!r}")

    def storage(self) -> None:
        """A storage outside the pickle, by its key."""
        match self.pop():
            case ("storage", _Global(name=name), str(key), str(), int(count), *rest):
                module, _, kind = name.partition(" ")
            case _:
                raise ValueError("its pickle refers to something that is no storage")
        if module != "torch" or kind not in WIDTHS or type(count) is not int or count < 0:
            raise ValueError(f"its pickle has a storage of {count!s:.30} {kind[:80]!r}")
        found = Storage(kind, key, count)
        if rest not in ([], [None]) or self.storages.setdefault(key, found) != found:
            raise ValueError(f"its pickle has the storage {key[:80]!r} in two ways")
        self.stack.append(found)


def _tensor(arguments: tuple[object, ...]) -> Described:
    """What ``_rebuild_tensor_v2`` would build: storage, offset, shape, strides; the rest is not."""
    match arguments:
        case (Storage() as storage, offset, shape, strides, *rest) if len(rest) <= 3:
            pass
        case _:
            raise ValueError("its pickle has a tensor without a storage")
    if not (_counts((offset,)) and _counts(shape) and _counts(strides)):
        raise ValueError("its pickle has a tensor whose shape is none")
    assert isinstance(offset, int)
    assert isinstance(shape, tuple)
    assert isinstance(strides, tuple)
    if len(shape) != len(strides) or len(shape) > MOST_AXES:
        raise ValueError("its pickle has a tensor whose shape is none")
    return Described(storage, offset, shape, strides)


def _counts(values: object) -> bool:
    return isinstance(values, tuple) and all(type(n) is int and 0 <= n < 1 << 40 for n in values)


_IGNORED = {"PROTO", "STOP"}
_CONSTANTS: dict[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _MARK}
_ARGUMENTS = {
    "BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
}  # fmt: skip
_FRESH: dict[str, Callable[[], object]] = {
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
}  # fmt: skip
_STEPS: dict[str, Callable[[_Machine, object], None]] = {
    "GLOBAL": lambda machine, name: machine.stack.append(_Global(str(name))),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "BINPUT": lambda machine, place: machine.put(place),
    "LONG_BINPUT": lambda machine, place: machine.put(place),
    "BINGET": lambda machine, place: machine.get(place),
    "LONG_BINGET": lambda machine, place: machine.get(place),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "BUILD": lambda machine, _: machine.build(),
    "REDUCE": lambda machine, _: machine.call(),
    "BINPERSID": lambda machine, _: machine.storage(),
}
