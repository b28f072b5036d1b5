"""Images: what lies on disk, an epoch as a plan, and two loaders that execute it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from alexnet2012.core.lazy import Registry, lazily

if TYPE_CHECKING:
    from alexnet2012.data.dataset import Dataset as Dataset
    from alexnet2012.data.dataset import hold_out as hold_out
    from alexnet2012.data.dataset import measure as measure
    from alexnet2012.data.datasets import open_dataset as open_dataset
    from alexnet2012.data.loaders import Loader
    from alexnet2012.data.loaders import open_loader as open_loader
    from alexnet2012.data.pixels import normalize as normalize
    from alexnet2012.data.plan import Augmentations as Augmentations
    from alexnet2012.data.plan import TrainingPlan as TrainingPlan
    from alexnet2012.data.plan import evaluation_batches as evaluation_batches
    from alexnet2012.data.plan import steps_per_epoch as steps_per_epoch
    from alexnet2012.data.statistics import Statistics as Statistics
    from alexnet2012.data.statistics import Sums as Sums
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "dataset": "Dataset hold_out measure",
            "datasets": "open_dataset",
            "loaders": "open_loader",
            "pixels": "normalize",
            "plan": "Augmentations TrainingPlan evaluation_batches steps_per_epoch",
            "statistics": "Statistics Sums",
        },
    )

DATASETS: Registry[Callable[[str], Dataset]] = Registry(  # known by name: what opens a split of each
    __name__, {"sample": "datasets:open_sample", "fashion-mnist": "datasets:open_fashion_mnist",
               "cifar10": "datasets:open_cifar10"},
)  # fmt: skip
LOADERS: Registry[type[Loader]] = Registry(  # importing DALI takes a second, and only Linux has it
    __name__, {"dali": "dali_loader:DaliLoader", "pillow": "loaders:PillowLoader"}
)
