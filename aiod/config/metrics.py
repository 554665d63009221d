"""[metrics]: where Prometheus scrapes the daemon."""

from __future__ import annotations

import importlib.util
import os.path
from typing import Final, Self

from pydantic import Field, model_validator

from aiod.config.fields import Section

_PORT_MAX: Final = 65535
_UNIX_PATH_BYTES_MAX: Final = 107


class MetricsConfig(Section):
    """[metrics]: metrics for Prometheus."""

    listen: str = Field(
        default="",
        pattern=r"^$|^/[^\x00]+$|^(\[[0-9A-Fa-f:.%A-Za-z]+\]|[^\s:/\[\]]+):[0-9]{1,5}$",
        description='"" for none, "HOST:PORT" such as "127.0.0.1:15570", or the absolute path of a unix socket',
    )

    @model_validator(mode="after")
    def _can_listen(self) -> Self:
        if self.is_unix and len(os.fsencode(self.listen)) > _UNIX_PATH_BYTES_MAX:
            raise ValueError(f"listen: a path of a unix socket has at most {_UNIX_PATH_BYTES_MAX} bytes")
        if self.listen and not self.is_unix and self.address[1] > _PORT_MAX:
            raise ValueError(f"listen: {self.listen}: a port is at most {_PORT_MAX}")
        if self.listen and importlib.util.find_spec("prometheus_client") is None:
            raise ValueError("listen needs the package prometheus-client: pip install 'aiod-io[daemon,metrics]'")
        return self

    @property
    def is_unix(self) -> bool:
        """Whether `listen` is the path of a unix socket."""
        return self.listen.startswith("/")

    @property
    def address(self) -> tuple[str, int]:
        """Host ("*": all addresses of this machine) and port to listen on."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)
