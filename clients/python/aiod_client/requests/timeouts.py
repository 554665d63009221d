"""The argument `timeout` of every method: what it may be."""

from __future__ import annotations


def seconds(timeout: object) -> float:
    """`timeout` in seconds, a number; math.inf: no limit.

    A time of 0 or less has passed already. Raises TypeError for what is not a real number, ValueError for NaN and for
    integers that are too large for a float.
    """
    if type(timeout) is float:
        value = timeout
    elif hasattr(type(timeout), "__float__") or hasattr(type(timeout), "__index__"):
        try:
            value = float(timeout)  # type: ignore[arg-type]
        except OverflowError:
            raise ValueError("timeout is too large; math.inf stands for no limit") from None
    else:
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
    if value != value:  # noqa: PLR0124 - NaN
        raise ValueError("timeout must not be NaN")
    return value
