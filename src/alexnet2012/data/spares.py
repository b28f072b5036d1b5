"""What happens to an image that cannot be read: it ends the run, or the plan's spare image takes its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from alexnet2012.errors import InputError

Image = TypeVar("Image")


class Spares:
    """``skipped``: image -> what was wrong with it. Stays empty unless ``allowed``."""

    def __init__(self, allowed: bool) -> None:
        self.allowed = allowed
        self.skipped: dict[int, str] = {}

    def get(self, load: Callable[[int], Image], image: int, spare: int | None) -> Image:
        """``load(image)``, or of ``spare`` if that fails. Raises InputError where neither can be had."""
        if image not in self.skipped:
            try:
                return load(image)
            except InputError as error:
                self.skip(image, spare, error)
        if spare is None or spare in self.skipped:
            raise InputError(self.skipped[image])
        return load(spare)

    def skip(self, image: int, spare: int | None, error: InputError) -> None:
        """Use ``image`` no more. Raises ``error`` if that is not allowed, or it has no spare."""
        if not self.allowed or spare is None:
            raise error
        self.skipped[image] = str(error)
