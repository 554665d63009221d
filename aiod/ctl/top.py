"""aiodctl top: asks the daemon again and again, and shows each interval on the whole screen, as text, or as JSON lines.

The questions are asked by a thread, so keys work while the daemon waits for an engine that hangs.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import termios
import threading
import time
import tty
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiod.ctl import rates, top_screen
from aiod.ctl.daemon import ask
from aiod.ctl.output import columns_of_output, write
from aiod.ctl.top_screen import SORTS, View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiod.ctl.daemon import Address

_ENTER: Final = "\x1b[?1049h\x1b[?25l"  # the alternate screen, without a cursor
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_REST_OF_LINE: Final = "\x1b[K"
_ROWS: Final = 24
_KEY_WAIT_S: Final = 0.05


@dataclass(slots=True)
class Interval:
    """The figures between two samples. `clients`: None unless asked for."""

    figures: dict[str, Any]
    clients: list[dict[str, Any]] | None


class Sampler:
    """Asks for samples, and makes intervals of them. One thread at a time."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._before: dict[str, Any] | None = None
        self._clients_before: dict[str, Any] | None = None

    def next(self, *, clients: bool) -> Interval | None:
        """The interval since the last call; None at the first one. Raises OSError."""
        after = ask(self._address, "sample", self._timeout_s)
        before, self._before = self._before, after
        clients_after = ask(self._address, "sample_clients", self._timeout_s) if clients else None
        clients_before, self._clients_before = self._clients_before, clients_after
        if before is None:
            return None
        shown = None
        if clients_after is not None and clients_before is not None:
            shown = rates.clients_between(clients_before, clients_after)
        return Interval(rates.between(before, after), shown)


def print_once(sampler: Sampler, interval_s: float, view: View) -> None:
    """Print one interval as text."""
    clients = view.name == "clients"
    sampler.next(clients=clients)
    time.sleep(interval_s)
    interval = sampler.next(clients=clients)
    assert interval is not None, "the second sample has a first"  # noqa: S101 - an internal error
    content = top_screen.lines(interval.figures, interval.clients, view, columns_of_output())
    write("".join(f"{line}\n" for line in content))


def print_json_lines(sampler: Sampler, interval_s: float, count: int) -> None:
    """Print each interval as a line of JSON; `count` of them, 0: until interrupted."""
    sampler.next(clients=True)
    printed = 0
    while not count or printed < count:
        time.sleep(interval_s)
        interval = sampler.next(clients=True)
        if interval is not None:
            write(json.dumps(interval.figures | {"clients": interval.clients}) + "\n")
            printed += 1


class Screen:
    """The full screen. The main thread draws and reads keys; another one samples."""

    def __init__(self, sampler: Sampler, interval_s: float) -> None:
        self._sampler = sampler
        self._interval_s = interval_s
        self._view = View()
        self._lock = threading.Lock()  # of the two below
        self._interval: Interval | None = None
        self._error = ""
        self._end = threading.Event()
        self._changed = threading.Event()

    def run(self) -> None:
        """Show it until the key q, or an interrupt."""
        threading.Thread(target=self._sample, daemon=True, name="sampler").start()
        with _raw_keyboard() as read_key:
            write(_ENTER)
            try:
                while True:
                    self._draw()
                    if not self._wait(read_key):
                        return
            finally:
                self._end.set()
                write(_LEAVE)

    def _sample(self) -> None:
        while not self._end.is_set():
            began_s = time.monotonic()
            if not self._view.paused:
                try:
                    interval = self._sampler.next(clients=self._view.name == "clients")
                except OSError as error:
                    with self._lock:
                        self._error = str(error.strerror or error)
                else:
                    with self._lock:
                        self._error = ""
                        self._interval = interval or self._interval
                self._changed.set()
            self._end.wait(max(0.0, began_s + self._interval_s - time.monotonic()))

    def _wait(self, read_key: Callable[[float], str]) -> bool:
        """Wait until there is something to draw; False: the user leaves."""
        while not self._changed.is_set():
            key = read_key(_KEY_WAIT_S)
            if key == "q":
                return False
            if key and self._press(key):
                break
        self._changed.clear()
        return True

    def _press(self, key: str) -> bool:
        """Whether the key has changed the view."""
        view = self._view
        match key:
            case "p" | " ":
                view.paused = not view.paused
            case "o":
                view.name, view.chosen = "operations", ""
            case "x":
                self._show("exports")
            case "c":
                self._show("clients")
            case "s":
                view.sort = _after(list(SORTS), view.sort)
            case "e":
                with self._lock:
                    engines = self._interval.figures["engines"] if self._interval is not None else []
                view.engine = _after(["", *(engine["name"] for engine in engines)], view.engine)
            case _:
                return False
        return True

    def _show(self, name: str) -> None:
        """Change to that view; within it, choose the next export or client."""
        view = self._view
        if view.name != name:
            view.name, view.chosen = name, ""
            return
        with self._lock:
            interval = self._interval
        if interval is not None:
            view.chosen = _after(top_screen.choices(interval.figures, interval.clients, view), view.chosen)

    def _draw(self) -> None:
        columns, rows = _size()
        with self._lock:
            interval, error = self._interval, self._error
        content = [f"no answer: {error}; trying again"] if error else []
        if interval is not None:
            content += top_screen.lines(interval.figures, interval.clients, self._view, columns)
        elif not error:
            content.append("the first interval begins ...")
        shown = top_screen.fitted(content, columns, rows)
        write(_HOME + "\r\n".join(line + _REST_OF_LINE for line in shown))


def _after(names: list[str], name: str) -> str:
    """The name after `name`, in a circle."""
    return names[(names.index(name) + 1) % len(names)] if name in names else names[0]


def _size() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        return 80, _ROWS
    return max(20, size.columns or 80), max(3, size.lines or _ROWS)


@contextlib.contextmanager
def _raw_keyboard() -> Iterator[Callable[[float], str]]:
    """A function that waits for a key for some seconds; "": none was pressed. Ctrl-C still interrupts."""
    fd = sys.stdin.fileno()
    saved = termios.tcgetattr(fd)
    tty.setcbreak(fd)

    def read_key(seconds: float) -> str:
        ready, _, _ = select.select([fd], [], [], seconds)
        return os.read(fd, 1).decode(errors="replace") if ready else ""

    try:
        yield read_key
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, saved)
