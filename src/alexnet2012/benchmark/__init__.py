"""Speed: each part beside a peer or its limit, measured in one run."""

from alexnet2012.core.lazy import lazily

__getattr__, __dir__ = lazily(__name__)
