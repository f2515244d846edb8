"""The declarations of `_library.py` are those of sdpa.h."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from sdpa import _library

HEADER = ROOT / "capi/include/sdpa.h"
STRUCTURES = {
    "sdpa_matrix": _library.Matrix,
    "sdpa_matrix_mut": _library.Matrix,
    "sdpa_heads": _library.Heads,
    "sdpa_heads_mut": _library.Heads,
    "sdpa_array": _library.Elements,
    "sdpa_options": _library.Options,
    "sdpa_rotary": _library.Rotary,
    "sdpa_cache": _library.CacheState,
}


def run_c(folder: Path, body: str) -> str:
    source, program = folder / "program.c", folder / "program"
    source.write_text(f'#include <stdio.h>\n#include "sdpa.h"\nint main(void) {{\n{body}\nreturn 0;\n}}\n')
    subprocess.run(["cc", "-Werror", f"-I{HEADER.parent}", source, "-o", program], check=True)
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout


def test_structures_and_numbers(tmp_path: Path) -> None:
    lines, want = [], []
    for name, structure in STRUCTURES.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        want.append(f"{name} {ctypes.sizeof(structure)}")
        for field, *_ in structure._fields_:
            lines.append(f'printf("{name}.{field} %zu %zu\\n", offsetof({name}, {field}), sizeof((({name} *)0)->{field}));')
            place = getattr(structure, field)
            want.append(f"{name}.{field} {place.offset} {place.size}")
    for constant in "SPAN", "KEY_BLOCK", "CAUSAL", "WINDOW", "ERROR_OPTION":
        lines.append(f'printf("{constant} %d\\n", SDPA_{constant});')
        want.append(f"{constant} {getattr(_library, constant)}")
    for name, number in _library.FORMATS.items():
        lines.append(f'printf("{name} %d\\n", SDPA_{name.upper()});')
        want.append(f"{name} {number}")
    lines.append('printf("%s\\n", SDPA_VERSION);')
    want.append(_library.version)
    assert run_c(tmp_path, "\n".join(lines)).splitlines() == want
    # A field that a structure lacks is seen by the size; nothing lies between the last field and the end.
    for name, structure in STRUCTURES.items():
        last = getattr(structure, structure._fields_[-1][0])
        assert last.offset + last.size == ctypes.sizeof(structure), name


def declared() -> dict[str, tuple[str, list[str]]]:
    """The functions of the header, by pycparser."""
    parser = pytest.importorskip("pycparser")
    text = HEADER.read_text(encoding="utf-8")
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    text = text[text.index('extern "C" {') :]
    text = re.sub(r"\n#if SDPA_QUERY_BLOCK == 4 .*?\n#endif\n", "\n", text, flags=re.S)  # microcontrollers only
    text = "\n".join(line for line in text.splitlines() if not line.startswith(("#", "extern", "}  "))).replace("\n} \n", "\n")
    text = text.replace('extern "C" {', "")
    types = " ".join(f"typedef int {name};" for name in "size_t ptrdiff_t int32_t uint32_t uint64_t uint8_t".split())
    tree: Any = parser.CParser().parse(types + text)
    found = {}
    for item in tree.ext:
        if type(item.type).__name__ == "FuncDecl":
            arguments = [kind(p.type) for p in item.type.args.params]
            found[item.name] = (kind(item.type.type), [a for a in arguments if a != "void"])
    return found


def kind(node: Any) -> str:
    if type(node).__name__ == "PtrDecl":
        return "char *" if "char" in str(getattr(node.type.type, "names", "")) else "pointer"
    return str(node.type.names[0])


KINDS = {
    ctypes.c_int32: {"sdpa_status", "sdpa_backend_t"},
    # On 64-bit machines ctypes has one type for both.
    ctypes.c_size_t: {"size_t", "uint64_t"},
    ctypes.c_uint64: {"size_t", "uint64_t"},
    ctypes.c_uint32: {"sdpa_format", "uint32_t"},
    ctypes.c_double: {"double"},
    ctypes.c_float: {"float"},
    ctypes.c_char_p: {"char *"},
    ctypes.c_void_p: {"pointer"},
    _library.Matrix: {"sdpa_matrix", "sdpa_matrix_mut"},
    _library.Heads: {"sdpa_heads", "sdpa_heads_mut"},
    _library.Elements: {"sdpa_array"},
}


def test_functions() -> None:
    header = declared()
    assert len(header) > 40
    for name, (result, arguments) in _library.FUNCTIONS.items():
        want = header[name]
        assert want[0] in KINDS[result], name
        assert len(want[1]) == len(arguments), name
        for given, argument in zip(arguments, want[1]):
            assert argument in KINDS[given], (name, argument, given)
    # Every operation is bound, by itself or for several heads.
    bound = {re.sub("_heads", "", name) for name in _library.FUNCTIONS} | {"sdpa_softmax_on"}
    operations = {re.sub("_heads", "", name) for name in header if name.endswith("_on")}
    assert operations <= bound, operations - bound
