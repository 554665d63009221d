"""The type of the file system of an export, from the table of mounts."""

from __future__ import annotations

import pytest

from aiod.supervisor.mounts import file_system_of

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:27 / /srv rw - tmpfs tmpfs rw
41 22 0:61 / /mnt/shared\\040files rw,relatime - fuse.glusterfs 10.0.0.1:v rw,allow_other
42 22 0:62 / /data rw shared:5 master:2 - nfs4 server:/data rw
43 42 0:63 / /data rw - ceph mon:/ rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/home/x", "ext4"),
        ("/srv", "tmpfs"),
        ("/srv/scratch", "tmpfs"),
        ("/srv2", "ext4"),
        ("/mnt/shared files/a", "fuse.glusterfs"),
        ("/data/x", "ceph"),
    ],
)
def test_the_deepest_and_latest_mount_counts(path: str, kind: str) -> None:
    assert file_system_of(path, MOUNTINFO) == kind


def test_this_machine_has_a_root() -> None:
    assert file_system_of("/")
    assert file_system_of("/proc/self") == "proc"
