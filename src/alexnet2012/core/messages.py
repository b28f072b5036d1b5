"""The lines that a command prints: what it does on stdout, warnings and the error that ends it on stderr."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def say(line: object) -> None:
    print(line, flush=True)


def warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr, flush=True)


def error(line: str) -> None:
    """Also into torchrun's report."""
    print(f"error: {line}", file=sys.stderr, flush=True)
    if report := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        message = {"message": line, "extraInfo": {"timestamp": int(time.time())}}
        Path(report).write_text(json.dumps({"message": message}))


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
                warn(f"stdout: {error.strerror}; its lines are left out from here")
            self.warned = True
            return len(content)
