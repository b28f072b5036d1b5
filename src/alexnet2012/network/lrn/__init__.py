"""Local response normalisation (paper §3.3): the layer, and three kernels that compute it."""

from alexnet2012.core.lazy import lazily

__getattr__, __dir__ = lazily(__name__)
