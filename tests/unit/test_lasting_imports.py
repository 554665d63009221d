"""lasting_imports(): no collections meanwhile, and usual ones afterwards."""

from __future__ import annotations

import gc

import pytest

from aiod.util.lasting_imports import lasting_imports


def test_garbage_is_collected_again_after_the_imports() -> None:
    try:
        with lasting_imports():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_garbage_is_collected_again_after_a_failed_import() -> None:
    try:
        with pytest.raises(ImportError), lasting_imports():
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.unfreeze()
