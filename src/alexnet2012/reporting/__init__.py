"""Tables, figures and ablation studies."""

from alexnet2012.core.lazy import lazily

__getattr__, __dir__ = lazily(__name__)
