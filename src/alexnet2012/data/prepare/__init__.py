"""ILSVRC-2012 as people have it, made into prepared shards, verified."""

from alexnet2012.core.lazy import lazily

__getattr__, __dir__ = lazily(__name__)
