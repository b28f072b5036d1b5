"""Reference nets, which others teach or published beside AlexNet. Each says what it changed."""

from alexnet2012.network.reference.net import NETS, ReferenceNet

__all__ = ["NETS", "ReferenceNet"]
