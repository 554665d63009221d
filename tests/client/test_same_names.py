"""The blocking and the asyncio client have the same public methods, with the same arguments.

They are written twice (base_client.py says why), so nothing else keeps them equal.
"""

from __future__ import annotations

import inspect

import pytest

import aiod_client
from aiod_client import aio

BLOCKING_ONLY = {"raw"}
"""File.raw: io.RawIOBase blocks."""


def methods(kind: type) -> dict[str, inspect.Signature]:
    """The public methods, without `self`'s class in annotations."""
    return {
        name: inspect.signature(member)
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize("name", ["Client", "File", "FileLock"])
def test_both_clients_have_the_same_methods_and_arguments(name: str) -> None:
    blocking, awaited = methods(getattr(aiod_client, name)), methods(getattr(aio, name))
    assert blocking == awaited


@pytest.mark.parametrize("name", ["Client", "File", "FileLock"])
def test_both_clients_have_the_same_properties(name: str) -> None:
    def properties(kind: type) -> set[str]:
        return {each for each, _ in inspect.getmembers(kind, lambda member: isinstance(member, property))}

    assert properties(getattr(aiod_client, name)) - BLOCKING_ONLY == properties(getattr(aio, name))


@pytest.mark.parametrize("name", ["connect"])
def test_both_clients_connect_with_the_same_arguments(name: str) -> None:
    blocking, awaited = (inspect.signature(getattr(module, name)).parameters for module in (aiod_client, aio))
    assert blocking == awaited
