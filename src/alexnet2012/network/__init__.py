"""The 2012 net: towers, the places where they meet, local response normalisation, dropout."""

from alexnet2012.network.alexnet import AlexNet
from alexnet2012.network.response_norm import LocalResponseNorm

__all__ = ["AlexNet", "LocalResponseNorm"]
