"""Lines printed by a command: progress on stdout, warnings and the final error on stderr."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

quiet = False  # --quiet: results, warnings and errors only


def say(line: object) -> None:
    """Print progress, unless --quiet was given."""
    if not quiet:
        print(line, flush=True)


def result(line: object) -> None:
    """Print what the command was asked for."""
    print(line, flush=True)


def warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr, flush=True)


def error(line: str) -> None:
    """Print the error that ends the command, and add it to torchrun's report."""
    print(f"error: {line}", file=sys.stderr, flush=True)
    if report := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        message = {"message": line, "extraInfo": {"timestamp": int(time.time())}}
        Path(report).write_text(json.dumps({"message": message}))


def open_output() -> None:
    """Make stdout escape what is not UTF-8 instead of raising; replace closed streams by the null device."""
    global quiet
    quiet = False
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def ignore_output_errors() -> None:
    """Drop lines that cannot be written from here on: the disk is full, or the reader has closed the pipe."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.flush()
            file = TolerantFile(stream.fileno(), "w", closefd=False)
            file.warned = name == "stderr"
            buffer = io.BufferedWriter(file)
            setattr(sys, name, io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=True))


class TolerantFile(io.FileIO):
    """A file that drops what it cannot write, with one warning on stderr."""

    warned = False

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError as error:
            if not self.warned:
                warn(f"stdout: {error.strerror}; later lines are not printed")
            self.warned = True
            return len(content)
