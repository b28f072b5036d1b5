"""The paper's pictures of a trained net, and learning curves, at the width of a paper's column."""

from alexnet2012.core.lazy import lazily

__getattr__, __dir__ = lazily(__name__)
