"""Processes: the layout of a run, collectives on its ranks, and the detection of lost ranks."""

from alexnet2012.core.lazy import lazily

TIMEOUT = 600.0  # seconds of waiting in a collective before a silent rank counts as lost

__getattr__, __dir__ = lazily(__name__)
