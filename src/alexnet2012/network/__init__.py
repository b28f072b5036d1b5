"""The 2012 net: towers, the exchange between them, local response normalisation, dropout."""

from typing import TYPE_CHECKING

from alexnet2012.core.lazy import lazily

if TYPE_CHECKING:
    from alexnet2012.network import summary as summary
    from alexnet2012.network.alexnet import AlexNet as AlexNet
    from alexnet2012.network.lrn.layer import LocalResponseNorm as LocalResponseNorm
else:
    __getattr__, __dir__ = lazily(__name__, {"alexnet": "AlexNet", "lrn.layer": "LocalResponseNorm"})
