"""The ways a command can fail that are not our bugs, with the exit code each gives the shell."""


class Failure(Exception):
    """Ends the command with one line and ``exit_code``. ``told``: another rank prints the line."""

    exit_code = 1
    told = False


class InputError(Failure):
    """Something the user gave cannot be used. The message is one line: the file or flag, and what to do."""

    exit_code = 2


class Diverged(Failure):
    """The loss is no longer a finite number. The message names the step."""

    exit_code = 3
