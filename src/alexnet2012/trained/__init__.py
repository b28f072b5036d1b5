"""A trained net as a thing to use: loaded, asked about pictures, handed to other programs."""

from alexnet2012.trained.net import Guess, TrainedAlexNet, load_checkpoint

__all__ = ["Guess", "TrainedAlexNet", "load_checkpoint"]
