"""Flags, progress bars and exit codes of the commands in launch/ and data_prep/."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, TypeVar, get_args, get_type_hints

from alexnet2012.core import messages
from alexnet2012.core.atomic_files import replaceable
from alexnet2012.core.errors import Failure, InputError
from alexnet2012.core.threads import keep_freed_memory, let_waiting_threads_sleep

T = TypeVar("T")
METAVARS = {int: "N", float: "X", Path: "PATH"}
PATIENCE = 60  # seconds that a process waits for torchrun to end it if rank 0 prints the message
GROUPS = ("data", "recipe", "variants", "layout", "run", "speed")  # of flags, in the order of --help


def option(default: Any, help: str, group: str, unset: str = "", **how: Any) -> Any:
    """A field of a dataclass that is also a flag.

    ``unset`` describes a default that depends on other flags; the value is then None. ``how`` is passed to
    ``add_argument``.
    """
    return dataclasses.field(default=default, metadata={"help": help, "group": group, "unset": unset, "how": how})


class Help(argparse.HelpFormatter):
    """Shows each informative default once."""

    def _get_help_string(self, action: argparse.Action) -> str:
        silent = not action.option_strings or action.default is None or action.default in (argparse.SUPPRESS, [])
        return (action.help or "") + ("" if silent or action.default is False else " (default: %(default)s)")


class Parser(argparse.ArgumentParser):
    """An argument parser with one-line errors and without abbreviated flags."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, allow_abbrev=False, formatter_class=Help)
        self.groups = {title: self.add_argument_group(title) for title in GROUPS}  # empty ones are not shown

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {Path(sys.argv[0]).name} --help")

    def add_options(self, of: type, *names: str) -> None:
        """Add a flag for every ``option`` of the dataclass ``of``, or only for those in ``names``."""
        types = get_type_hints(of)
        for field in dataclasses.fields(of):
            if field.metadata and (not names or field.name in names):
                self.add_option(field, types[field.name])

    def add_option(self, field: dataclasses.Field[Any], annotated: Any) -> None:
        """Add a flag of type X for an annotation ``X | None``, and a switch for a bool."""
        kind = next(kind for kind in get_args(annotated) or (annotated,) if kind is not NoneType)
        help, unset = field.metadata["help"], field.metadata["unset"]
        how: dict[str, Any] = {"action": "store_true"}
        if kind is not bool:
            how = {"type": kind, "default": field.default, "metavar": METAVARS.get(kind)}
        if unset:
            help, how = f"{help} (default: {unset})", how | {"default": None}
        flag = "--" + field.name.replace("_", "-")
        self.groups[field.metadata["group"]].add_argument(flag, **(how | field.metadata["how"]), help=help)

    def add_quiet(self) -> None:
        self.add_argument("--quiet", nargs=0, action=Quiet, help="print results, warnings and errors only")


class Quiet(argparse.Action):
    """No progress from here on."""

    def __call__(self, *parsing: Any) -> None:
        messages.quiet = True


def checkpoint_file(name: str) -> str | Path:
    """Type of a checkpoint flag: ``sample`` is the one in this package, ``./sample`` is a file."""
    return name if name == "sample" else Path(name)


def output_file(text: str) -> Path:
    """Type of a flag for an output file. Raises ArgumentTypeError if it cannot be written."""
    path = Path(text)
    written = Path(os.path.realpath(path)).parent if replaceable(path) else path
    if path.is_dir() or not written.exists() or not os.access(written, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written; name a file in a directory that exists")
    return path


def refuse_overwriting(outputs: Iterable[Path | None], inputs: Iterable[Path]) -> None:
    """Raises InputError if an output is one of the ``inputs``, or is given twice."""
    taken = {os.path.realpath(path): "it is read" for path in inputs}  # realpath does not raise for a loop of links
    for path in filter(None, outputs):
        if (real := os.path.realpath(path)) in taken:
            raise InputError(f"{path}: cannot be written, {taken[real]}; name another file")
        taken[real] = "another output goes there"


@contextlib.contextmanager
def progress(
    title: str, total: int | None, shown: bool = True, unit: str = "images"
) -> Iterator[Callable[..., object]]:
    """Show a progress bar with the remaining time on stderr, if it is a terminal and --quiet was not given.

    Yields a function that takes ``advance=`` or ``completed=``, in ``unit``. ``total`` is None if unknown.
    """
    from rich import progress as rich  # imported here, since flags do not need it
    from rich.console import Console
    from rich.text import Text

    class Speed(rich.ProgressColumn):
        def render(self, task: rich.Task) -> Text:
            return Text(
                f"{task.speed:,.0f} {unit}/s" if task.speed and task.speed >= 1 else ""
            )  # over the last half minute

    columns = (rich.TextColumn(title), rich.BarColumn(), rich.MofNCompleteColumn(), Speed(), rich.TimeRemainingColumn())
    shown = shown and sys.stderr.isatty() and not messages.quiet
    with rich.Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(title, total=total)
        yield lambda **done: bar.update(task, **done)


def on_all_ranks(read: Callable[[], T]) -> T:
    """Call ``read``, which gives the same result or failure on every rank; only rank 0 prints a failure."""
    try:
        return read()
    except Failure as failure:
        raise failure.on_all_ranks(reports=os.environ.get("RANK", "0") == "0") from failure.__cause__


def main(read: Callable[[], T], command: Callable[[T], object]) -> NoReturn:
    """Run ``command`` with the flags returned by ``read``, and exit."""
    let_waiting_threads_sleep()
    keep_freed_memory()
    exit_process(exit_code(lambda: command(on_all_ranks(read))))


def exit_code(command: Callable[[], object]) -> int:
    """Run ``command``: 0 done, 2 bad input, 3 diverged, 130 interrupted, 1 if stdout was closed.

    A failure is printed as one line on stderr.
    """
    messages.open_output()
    try:
        command()
        sys.stdout.flush()
    except Failure as failure:
        if failure.reported and not failure.acknowledged:
            time.sleep(PATIENCE)  # torchrun ends all ranks when one exits, and rank 0 may not have printed yet
        if "RANK" in os.environ:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it if another rank exits first
        if not failure.reported:
            messages.error(str(failure))
        return failure.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of stdout has exited, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the interpreter's final flush
        return 1  # as rich does, which prints tables
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        messages.error(f"{error.filename or 'writing'}: {error.strerror}; make room and run the same command again")
        return 2
    return 0


def exit_process(code: int) -> NoReturn:
    """Exit; with several ranks, skip the interpreter's shutdown.

    Shutdown during a pending gather, such as that of the next images, would abort: gloo's thread frees its tensors.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
