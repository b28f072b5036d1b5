"""C++ for the CPU, compiled at first use for the machine it runs on.

Plain C++ behind ctypes: without torch's headers it compiles in seconds. Libraries are kept in
``$XDG_CACHE_HOME/alexnet2012`` (``~/.cache``), named after source, flags, compiler and processor.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from alexnet2012.core.atomic_files import atomic_write

FLAGS = ["-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC"]
BUILD_SECONDS = 120  # timeout of the compiler


class BuildError(Exception):
    """The compiler exists but produced no library. The message is one line."""


def compiled(name: str, source: str, **arguments: Sequence[type]) -> ctypes.CDLL | None:
    """Load the library of ``source``, compiled or from the cache; None if this machine has no C++ compiler.

    ``arguments`` are the types that each of its functions takes; none returns anything. Safe to call from several
    processes at once: files are written atomically. Raises BuildError.
    """
    compiler = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    if shutil.which(compiler[0]) is None:
        return None
    try:
        path = _library(compiler, name, source)
        try:
            library = ctypes.CDLL(str(path))
        except OSError:  # damaged
            path.unlink(missing_ok=True)
            library = ctypes.CDLL(str(_library(compiler, name, source)))
    except subprocess.CalledProcessError as error:
        raise BuildError(f"{compiler[0]}: {(error.stderr.strip() or 'failed').splitlines()[0]}") from error
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
        raise BuildError(str(error)) from error
    for function, types in arguments.items():
        getattr(library, function).argtypes = types
        getattr(library, function).restype = None
    return library


def _library(compiler: list[str], name: str, source: str) -> Path:
    """The library for this compiler and processor (identified by predefined macros), compiled if it is missing."""
    macros = _output([*compiler, "-march=native", "-dM", "-E", "-x", "c++", "-"], source="")
    key = hashlib.sha256("\0".join([source, *FLAGS, macros]).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alexnet2012"
    library = cache / f"{name}-{key}.so"
    if not library.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with atomic_write(library) as partial:
            _output([*compiler, *FLAGS, "-x", "c++", "-", "-o", str(partial)], source)
    return library


def _output(command: list[str], source: str) -> str:
    return subprocess.run(
        command, input=source, capture_output=True, text=True, check=True, timeout=BUILD_SECONDS
    ).stdout
