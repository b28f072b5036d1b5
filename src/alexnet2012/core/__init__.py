"""Foundations of every room: errors, files, messages, flags, random streams, threads."""

from alexnet2012.core.lazy import lazily

__getattr__, __dir__ = lazily(__name__)
