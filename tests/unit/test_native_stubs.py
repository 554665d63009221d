"""The stubs of the native modules name what the modules have, with the same arguments.

mypy's stubtest cannot tell: to inspect, the functions of nanobind are no functions. Their signatures are in
`__nb_signature__`.
"""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT: Final = Path(__file__).parents[2]
STUBS: Final = {"aiod_client._ring": "clients/python/aiod_client/_ring.pyi", "aiod._core": "aiod/_core.pyi"}

Arguments = list[tuple[str, ...]]


def arguments_of(function: ast.FunctionDef) -> tuple[str, ...]:
    """The names, but for `self`; those of keyword-only arguments after a star."""
    found = function.args
    # nanobind calls an argument without a name "arg", or "arg0", "arg1", ...
    names = [*("arg" for _ in found.posonlyargs), *(each.arg for each in found.args)]
    positional = ["arg" if re.fullmatch(r"arg\d+", name) else name for name in names if name != "self"]
    keywords = [each.arg for each in found.kwonlyargs]
    return (*positional, *(["*", *keywords] if keywords else []))


def in_stub(body: Iterable[ast.stmt], prefix: str = "") -> dict[str, Arguments | None]:
    """Dotted name to the arguments of each overload; None for what is no function."""
    found: dict[str, Arguments | None] = {}
    for each in body:
        if isinstance(each, ast.ClassDef):
            found |= in_stub(each.body, f"{prefix}{each.name}.")
        elif isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            found[prefix + each.target.id] = None
        elif isinstance(each, ast.FunctionDef):
            if any(isinstance(decorator, ast.Name | ast.Attribute) for decorator in each.decorator_list):
                found[prefix + each.name] = None  # a property, or its setter
            else:
                found[prefix + each.name] = [*(found.get(prefix + each.name) or []), arguments_of(each)]
    return {name: what for name, what in found.items() if not name.rpartition(".")[2].startswith("_")}


def at_runtime(module: Any) -> dict[str, Arguments | None]:
    """The same of what a module has."""
    found: dict[str, Arguments | None] = {}
    for name, value in vars(module).items():
        found |= _members(value, f"{name}.") if isinstance(value, type) else {name: _arguments(value)}
    return {name: what for name, what in found.items() if not name.rpartition(".")[2].startswith("_")}


def _members(kind: type, prefix: str) -> dict[str, Arguments | None]:
    return {prefix + name: _arguments(value) for name, value in vars(kind).items()}


def _arguments(value: Any) -> Arguments | None:
    signatures = getattr(value, "__nb_signature__", None)
    if signatures is None or isinstance(value, property):
        return None
    return [arguments_of(_parsed(text)) for text, *_ in signatures]


def _parsed(signature: str) -> ast.FunctionDef:
    (function,) = ast.parse(re.sub(r"= \\\d+", "= ...", signature) + ": ...").body  # a default is its number there
    assert isinstance(function, ast.FunctionDef)
    return function


@pytest.mark.parametrize("module", STUBS)
def test_a_stub_names_what_the_module_has(module: str) -> None:
    wanted = in_stub(ast.parse((ROOT / STUBS[module]).read_text()).body)
    found = at_runtime(importlib.import_module(module))
    missing = {name for name in wanted if name not in found and wanted[name] is not None}
    assert missing == set(), "only in the stub"
    assert {name for name, what in found.items() if name not in wanted and what is not None} == set(), "not in the stub"
    different = {name: (wanted[name], found[name]) for name in wanted if wanted[name] and wanted[name] != found[name]}
    assert different == {}
