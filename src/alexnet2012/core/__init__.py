"""What every room builds on and that builds on none of them."""

from alexnet2012.core.lazy import lazily

__getattr__, __dir__ = lazily(__name__)
