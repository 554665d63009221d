"""The supervisor's end of one engine's control channel: asks, and matches the answers to the questions."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

from aiod.supervisor.errors import EngineRefusedError, EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod.engine_api.control_channel import Channel


class ControlClient:
    """Main loop thread only."""

    def __init__(self, name: str, pid: int, channel: Channel, serving: Callable[[dict[str, Any]], None]) -> None:
        """`name` and `pid` identify the engine in errors. `serving(event)` is called for each event "serving"."""
        self._name = f"engine {name}"
        self._name_and_pid = f"engine {name} (pid {pid})"
        self._channel = channel
        self._serving = serving
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.closed = False

    async def listen(self) -> None:
        """Receive answers and events until the engine has closed its end, and close this one.

        Raises ChannelError, KeyError or TypeError for a malformed message.
        """
        try:
            async for message in self._channel:
                self._receive(message)
        finally:
            self._channel.close()
            self.closed = True

    def _receive(self, message: dict[str, Any]) -> None:
        if message.get("event") == "serving":
            self._serving(message)
            return
        answer = self._answers.pop(message.get("id", 0), None)
        if answer is None or answer.done():
            return  # the caller has timed out
        if message.get("ok"):
            answer.set_result(message.get("body"))
        else:
            answer.set_exception(EngineRefusedError(f"{self._name}: {message.get('error')}"))

    async def ask(self, verb: str, timeout_s: float, **arguments: Any) -> Any:
        """The body of the answer to `verb`. Raises EngineUnavailableError, EngineRefusedError."""
        number = next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            # Sending waits as well, when a stopped process does not empty its end.
            async with asyncio.timeout(timeout_s):
                await self._channel.send({"id": number, "verb": verb, "arguments": arguments})
                return await answer
        except TimeoutError:
            raise EngineUnavailableError(f"{self._name_and_pid} did not answer {verb} in {timeout_s:g} s") from None
        except ConnectionError as error:
            raise EngineUnavailableError(f"{self._name_and_pid}: {error}") from error
        finally:
            self._answers.pop(number, None)

    def fail_all(self, why: str) -> None:
        """Fail all questions that wait for an answer."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(EngineUnavailableError(why))
        self._answers.clear()
