"""The type of a future's result: Any where a program does not name it (`RequestFuture` is `RequestFuture[Any]`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import TypeVar

    Result = TypeVar("Result", default=Any)
else:  # defaults of type variables came with Python 3.13
    from typing import TypeVar

    Result = TypeVar("Result")
