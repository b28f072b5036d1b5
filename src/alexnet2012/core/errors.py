"""The ways a command can fail that are not our bugs, with the exit code each gives the shell."""

from __future__ import annotations

import unicodedata


class Failure(Exception):
    """Ends the command with one line and ``exit_code``.

    ``raised_by_all``: all ranks raise it. ``reported``: another rank prints the line. ``acknowledged``: all ranks are
    known to have it.
    """

    exit_code = 1
    raised_by_all = False
    reported = False
    acknowledged = False

    def __str__(self) -> str:
        """One line, whatever bytes a name in it has: control characters and what is no UTF-8 are escaped."""
        return printable(super().__str__())

    def on_all_ranks(self, reports: bool) -> Failure:
        """The same failure, as all ranks raise it; one of them ``reports``."""
        self.raised_by_all, self.reported = True, not reports
        return self


def printable(text: str) -> str:
    """``text`` with what does not print in Python's notation: a line break as \\n, a byte of no UTF-8 as \\udcff."""
    shown = (c.isprintable() or unicodedata.category(c) == "Zs" for c in text)  # Zs: spaces of all alphabets
    return "".join(c if show else c.encode("unicode_escape").decode() for c, show in zip(text, shown, strict=True))


class InputError(Failure):
    """Something the user gave cannot be used. The message is one line: the file or flag, and what to do."""

    exit_code = 2


class Diverged(Failure):
    """The loss, a gradient or the net is no longer finite. The message names the step."""

    exit_code = 3
