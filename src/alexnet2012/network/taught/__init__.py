"""The nets that others teach as AlexNet, or before it. None of them is the 2012 net; each says what it changed."""

from alexnet2012.network.taught.net import TAUGHT, TaughtNet

__all__ = ["TAUGHT", "TaughtNet"]
