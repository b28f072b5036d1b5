"""What happens to an image that cannot be read: it ends the run, or one of the plan's spares takes its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from alexnet2012.errors import InputError

Image = TypeVar("Image")


class Spares:
    """``skipped``: image -> what was wrong with it. Stays empty unless ``allowed``."""

    def __init__(self, allowed: bool) -> None:
        self.allowed = allowed
        self.skipped: dict[int, str] = {}

    def get(self, load: Callable[[int], Image], image: int, spares: Sequence[int]) -> Image:
        """``load(image)``, or of the first of ``spares`` that can be read. Raises InputError where none can."""
        for candidate in (image, *spares):
            if candidate not in self.skipped:
                try:
                    return load(candidate)
                except InputError as error:
                    self.skip(candidate, spares, error)
        raise InputError(f"{self.skipped[image]}; nor can the {len(spares)} images that may take its place")

    def skip(self, image: int, spares: Sequence[int], error: InputError) -> None:
        """Use ``image`` no more. Raises ``error`` if that is not allowed, or there are no ``spares``."""
        if not self.allowed or not spares:
            raise error
        self.skipped[image] = str(error)
