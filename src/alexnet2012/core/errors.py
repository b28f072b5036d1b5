"""Failures that are not bugs, with the exit code of each."""

from __future__ import annotations

import unicodedata


class Failure(Exception):
    """Ends the command with one line and ``exit_code``.

    ``raised_by_all``: every rank raises it. ``reported``: another rank prints the line. ``acknowledged``: every rank
    is known to have raised it.
    """

    exit_code = 1
    raised_by_all = False
    reported = False
    acknowledged = False

    def __str__(self) -> str:
        """One line: control characters and bytes that are not UTF-8, as in file names, are escaped."""
        return printable(super().__str__())

    def on_all_ranks(self, reports: bool) -> Failure:
        """Mark this failure as raised by every rank; only the one that ``reports`` prints it."""
        self.raised_by_all, self.reported = True, not reports
        return self


def printable(text: str) -> str:
    """Escape unprintable characters as Python does: a line break is \\n, a byte that is not UTF-8 is \\udcff."""
    shown = (c.isprintable() or unicodedata.category(c) == "Zs" for c in text)  # Zs: spaces of all alphabets
    return "".join(c if show else c.encode("unicode_escape").decode() for c, show in zip(text, shown, strict=True))


class InputError(Failure):
    """Unusable input. The message is one line: the file or flag, and what to do."""

    exit_code = 2


class Diverged(Failure):
    """The loss, a gradient or the net is no longer finite. The message names the step."""

    exit_code = 3
