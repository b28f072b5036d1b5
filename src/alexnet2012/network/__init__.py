"""The 2012 net: towers, the places where they meet, local response normalisation, dropout."""

from alexnet2012.network.alexnet import AlexNet
from alexnet2012.network.lrn.layer import LocalResponseNorm

__all__ = ["AlexNet", "LocalResponseNorm"]
