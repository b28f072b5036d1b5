"""What every command of launch/ and data_prep/ shares: flags that fail in one line, and exit codes for the shell."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from alexnet2012.core.errors import Failure, InputError

T = TypeVar("T")
PATIENCE = 60  # seconds in which torchrun ends a process that leaves telling to rank 0


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line; flags are not to be abbreviated."""

    def __init__(self, description: str) -> None:
        super().__init__(
            description=description, allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {Path(sys.argv[0]).name} --help")


def loader(name: str) -> str:
    """The value of ``--loader``; ``torch`` is the former name of ``pillow``."""
    return "pillow" if name == "torch" else name


def alike(read: Callable[[], T]) -> T:
    """What ``read`` makes of the command line, which every rank has: rank 0 tells what is wrong with it."""
    try:
        return read()
    except Failure as failure:
        raise failure.on_all_ranks(reports=os.environ.get("RANK", "0") == "0") from failure.__cause__


def main(command: Callable[[], None]) -> NoReturn:
    """Run ``command`` and exit: 0 done, 2 bad input, 3 diverged, 130 interrupted, 1 where nobody reads the output on.

    A failure is one line on stderr.
    """
    open_output()
    try:
        command()
        sys.stdout.flush()
    except Failure as failure:
        if failure.reported and not failure.acknowledged:
            time.sleep(PATIENCE)  # rank 0 may still be on its way here, and torchrun ends all when one leaves
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, when it sees another rank leave first
        if not failure.reported:
            tell(str(failure))
        leave(failure.exit_code)
    except KeyboardInterrupt:
        leave(128 + signal.SIGINT)
    except BrokenPipeError:  # the reader of the output has left, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the interpreter's last flush
        leave(1)  # as rich does, which writes the tables
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        tell(f"{error.filename or 'writing'}: {error.strerror}; make room and run the same command again")
        leave(2)
    leave(0)


def open_output() -> None:
    """Names that are no UTF-8 are printed with escapes, where stdout would raise; a closed stream discards."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def outlive_output() -> None:
    """From here on, lines that cannot be written, on a full disk or to a reader that has left, are left out."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.flush()
            file = LastingFile(stream.fileno(), "w", closefd=False)
            file.warned = name == "stderr"
            buffer = io.BufferedWriter(file)
            setattr(sys, name, io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=True))


class LastingFile(io.FileIO):
    """A stream that takes what it cannot write for written, with one warning on stderr."""

    warned = False

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError as error:
            if not self.warned:
                print(f"warning: stdout: {error.strerror}; its lines are left out from here", file=sys.stderr)
            self.warned = True
            return len(content)


def leave(code: int) -> NoReturn:
    """Exit; one rank of several without the interpreter's end.

    There a gather still under way, as that of the next images, aborts the process: gloo's thread frees its tensors.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def tell(line: str) -> None:
    """On stderr, and into torchrun's report."""
    print(f"error: {line}", file=sys.stderr, flush=True)
    if report := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        message = {"message": line, "extraInfo": {"timestamp": int(time.time())}}
        Path(report).write_text(json.dumps({"message": message}))
