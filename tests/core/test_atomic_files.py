"""Files that are whole or not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from alexnet2012.core.atomic_files import atomic_write, remove_partials, write_output, write_text


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_two_writers_at_once_do_not_meet(tmp_path: Path) -> None:
    """The second begins and ends while the first still writes; with one partial file both would write into it."""
    with atomic_write(tmp_path / "file") as slow:
        slow.write_text("slow")
        writer = threading.Thread(target=write_text, args=(tmp_path / "file", "quick"))
        writer.start()
        writer.join()
        assert (tmp_path / "file").read_text() == "quick"
        assert slow.read_text() == "slow"
    assert (tmp_path / "file").read_text() == "slow"
    assert names(tmp_path) == ["file"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "file") as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    lines = (
        "import os, pathlib, sys, alexnet2012.core.atomic_files as files",
        "with files.atomic_write(pathlib.Path(sys.argv[1])) as partial:",
        "    partial.write_text('half')",
        "    os.kill(os.getpid(), 9)",
    )
    killed = subprocess.run([sys.executable, "-c", "\n".join(lines), tmp_path / "file"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "file").read_text() == "old"
    remove_partials(tmp_path, "another")
    assert len(names(tmp_path)) == 2
    remove_partials(tmp_path, "fil*")
    assert names(tmp_path) == ["file"]


def test_the_content_is_on_the_disk_before_it_has_the_name_and_the_name_thereafter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut may leave an empty file under the final name."""
    synced: list[tuple[str, bool]] = []

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path.suffix, (tmp_path / "file").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "file", "new")
    assert synced == [(".partial", False), ("", True)]


def test_a_partial_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    with atomic_write(tmp_path / "file", tmp_path / "work") as partial:
        partial.write_text("new")
        assert names(tmp_path) == ["work"]
    assert (tmp_path / "file").read_text() == "new"


def test_an_output_goes_into_the_pipe_or_stdout_that_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path in (pipe, Path("/dev/stdout"), Path("/dev/fd/1")):
        with write_output(path) as whole:
            whole.write_text("new")
    assert os.read(reader, 9) == b"new" and pipe.is_fifo()
    os.close(reader)
    assert capfd.readouterr().out == "newnew"
    assert names(tmp_path) == ["pipe"]


@pytest.mark.parametrize("content", ["old", None])
def test_an_output_replaces_the_file_that_a_link_names(content: str | None, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/file")
    if content:
        (tmp_path / "there" / "file").write_text(content)
    with write_output(tmp_path / "link") as partial:
        partial.write_text("new")
        assert partial.parent.name == "there"
    assert (tmp_path / "link").is_symlink() and names(tmp_path / "there") == ["file"]
    assert (tmp_path / "there" / "file").read_text() == "new"
