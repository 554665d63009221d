"""rmtree(ignore_errors=True): what the steps remove where the daemon cannot remove everything."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from aiod_client.errors import AiodError
from aiod_client.records import Entry
from aiod_client.requests.trees import rmtree


class Names:
    """A tree of names, of which some cannot be removed. It answers as both clients do."""

    def __init__(self, *paths: str, stuck: str) -> None:
        """The names of `paths`; those that end with a slash are directories."""
        self.paths = set(paths)
        self._stuck = stuck

    def answer(self, method: str, path: str) -> Any:
        """The result of a client's method."""
        return {"_remove_some": self._remove_tree, "list": self._list, "remove": self._remove}[method](path)

    def _remove_tree(self, path: str) -> bool:
        for name in sorted(self.paths, reverse=True):
            if name == f"{path}/" or name.startswith(f"{path}/"):
                self._remove(name)
        return False

    def _remove(self, path: str) -> None:
        if path == self._stuck or (
            path.endswith("/") and any(each != path and each.startswith(path) for each in self.paths)
        ):
            raise OSError(errno.EPERM, path)
        self.paths.remove(path)

    def _list(self, path: str) -> list[Entry]:
        start = f"{path}/"
        below = {each.removeprefix(start) for each in self.paths if each.startswith(start) and each != start}
        here = {name for name in below if "/" not in name.rstrip("/")}
        return [Entry(name.rstrip("/"), "dir" if name.endswith("/") else "file", 0) for name in here]


def run(names: Names, *, ignore_errors: bool) -> None:
    steps = rmtree("top", ignore_errors=ignore_errors)
    answer, failure = None, None
    while True:
        try:
            ask = steps.send(answer) if failure is None else steps.throw(failure)
        except StopIteration:
            return
        answer = failure = None
        try:
            answer = names.answer(ask.method, *ask.arguments)
        except OSError as error:
            failure = error


def tree(stuck: str) -> Names:
    return Names("top/", "top/a", "top/d/", "top/d/b", "top/d/c", "top/e/", "top/e/f", stuck=stuck)


def test_the_rest_is_removed_and_the_names_above_stay() -> None:
    names = tree("top/d/c")
    run(names, ignore_errors=True)
    assert names.paths == {"top/", "top/d/", "top/d/c"}


def test_without_ignore_errors_the_first_one_is_raised() -> None:
    with pytest.raises(PermissionError):
        run(tree("top/d/c"), ignore_errors=False)


@pytest.mark.parametrize("number", [errno.ENOTDIR, errno.EINVAL, errno.ENOENT])
def test_nothing_is_removed_behind_a_link_or_in_an_export(number: int) -> None:
    steps = rmtree("top", ignore_errors=True)
    assert next(steps).method == "_remove_some"
    with pytest.raises(StopIteration):
        steps.throw(OSError(number, "no tree"))


def test_a_lost_session_is_raised_in_any_case() -> None:
    steps = rmtree("top", ignore_errors=True)
    next(steps)
    with pytest.raises(AiodError):
        steps.throw(AiodError(errno.ECONNRESET, "gone"))
