"""What happens to an image that cannot be read: it ends the run, or one of the plan's replacements takes its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from alexnet2012.core.errors import InputError

Image = TypeVar("Image")


class Replacements:
    """``skipped``: image -> what was wrong with it. Stays empty unless ``allowed``."""

    def __init__(self, allowed: bool) -> None:
        self.allowed = allowed
        self.skipped: dict[int, str] = {}

    def get(self, load: Callable[[int], Image], image: int, replacements: Sequence[int]) -> Image:
        """``load(image)``, or of the first of ``replacements`` that can be read. Raises InputError where none can."""
        for candidate in (image, *replacements):
            if candidate not in self.skipped:
                try:
                    return load(candidate)
                except InputError as error:
                    self.skip(candidate, replacements, error)
        raise InputError(f"{self.skipped[image]}; nor can the {len(replacements)} images that may take its place")

    def skip(self, image: int, replacements: Sequence[int], error: InputError) -> None:
        """Use ``image`` no more. Raises ``error`` if that is not allowed, or there are no ``replacements``."""
        if not self.allowed or not replacements:
            raise error
        self.skipped[image] = str(error)
