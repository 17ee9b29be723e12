"""What a container leaves, from a kernel's files as its guide has them, and from the kernel itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from opcod.containers import memory_left
from opcod.devices import GIB

V1 = Path("/sys/fs/cgroup/memory")


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_the_tightest_limit_above_counts_and_cached_files_do_not(tmp_path):
    own = tmp_path / "own"
    own.write_text("0::/slice/job\n")
    groups = tmp_path / "groups"
    write(groups / "slice" / "job", memory__max="max", memory__current=700, memory__stat="inactive_file 50")
    assert memory_left(own, groups) is None
    write(groups / "slice", memory__max=1000, memory__current=900, memory__stat="anon 1\ninactive_file 250")
    assert memory_left(own, groups) == 350
    write(groups / "slice" / "job", memory__max=800)
    assert memory_left(own, groups) == 150


def test_version_1_and_a_path_that_only_the_host_has(tmp_path):
    own = tmp_path / "own"
    own.write_text("9:name=systemd:/x\n4:memory:/docker/abc\n0::/\n")
    stat = "inactive_file 1\ntotal_inactive_file 30"
    files = {"memory__limit_in_bytes": 100, "memory__usage_in_bytes": 60, "memory__stat": stat}
    write(tmp_path / "groups" / "memory", **files)
    assert memory_left(own, tmp_path / "groups") == 70
    write(tmp_path / "groups" / "memory", memory__limit_in_bytes=9223372036854771712)
    assert memory_left(own, tmp_path / "groups") is None


def test_more_than_the_limit_leaves_nothing(tmp_path):
    (tmp_path / "own").write_text("0::/\n")
    write(tmp_path / "groups", memory__max=100, memory__current=150, memory__stat="inactive_file 0")
    assert memory_left(tmp_path / "own", tmp_path / "groups") == 0


def test_where_there_are_no_groups(tmp_path):
    assert memory_left(tmp_path / "none", tmp_path) is None


@pytest.mark.skipif(not os.access(V1, os.W_OK), reason="makes a control group of version 1, which takes root")
def test_a_run_is_planned_for_what_the_container_leaves():
    group = V1 / f"opcod-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(2 * GIB))
        code = (
            f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
            "import torch; from opcod.devices import free_on; print(free_on(torch.device('cpu')).memory)"
        )
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert 0.9 * GIB < float(ran.stdout) < 2.5 * GIB
    finally:
        group.rmdir()
