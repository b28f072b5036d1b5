"""launch/train_imagenet.py with a NaN planted in tower 1's conv4 before its step 5, by whoever holds that tower."""

import runpy

import torch
from running import TRAIN

from alexnet2012.training.trainer import Trainer

train_step = Trainer.train_step


def plant(self: Trainer, *batch: object, **out_of_data: bool) -> object:
    tower = self.net.towers[1]
    if self.step == 4 and tower is not None:
        with torch.no_grad():
            tower.conv4.weight[0] = torch.nan
    return train_step(self, *batch, **out_of_data)


Trainer.train_step = plant  # type: ignore[method-assign,assignment]
runpy.run_path(str(TRAIN), run_name="__main__")
