"""How often this process has forked off from a parent: a child must not use its parent's clients.

Reading a variable takes a quarter of the time of os.getpid(), which is a system call for each request. A child that a C
program forks without Python's knowledge is not counted; libaiod counts it, and the links compare process ids.
"""

from __future__ import annotations

import os

count = 0
"""Forks between this process and the ancestor that imported this module. Only a new child changes it."""


def _count_fork() -> None:
    global count  # noqa: PLW0603 - of the process
    count += 1


os.register_at_fork(after_in_child=_count_fork)
