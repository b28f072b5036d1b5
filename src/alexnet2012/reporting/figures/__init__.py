"""The paper's figures of a trained net, and learning curves, as wide as a column of the paper."""

from alexnet2012.core.lazy import lazily

__getattr__, __dir__ = lazily(__name__)
