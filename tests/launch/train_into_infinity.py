"""launch/train_imagenet.py with an infinity planted in tower 1's conv4 at step 5, as PLANTED says: in a ``weight``, by
whoever holds that tower, or in its ``gradient``, on the last rank alone. Each rank writes what of it changed since the
last checkpoint.
"""

import json
import os
import runpy
from typing import Any

import torch
from running import TRAIN

from alexnet2012.evaluation import checkpoint
from alexnet2012.training.trainer import Trainer

train, train_step = Trainer.train, Trainer.train_step
STEP, PLANTED = 5, os.environ.get("PLANTED")
RANK, LAST = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)) - 1


def infinite(value: torch.Tensor) -> torch.Tensor:
    value = value.clone()
    value[0] = torch.inf
    return value


def planting(self: Trainer, *batch: object, **out_of_data: bool) -> object:
    tower = self.net.towers[1]
    if self.step == STEP - 1 and isinstance(tower, torch.nn.Module):
        weight: Any = tower.conv4.weight
        if PLANTED == "weight":
            weight.data = infinite(weight.data)
        elif RANK == LAST:
            weight.register_hook(infinite)
    return train_step(self, *batch, **out_of_data)


def recording(self: Trainer) -> str:
    try:
        return train(self)
    finally:
        saved, changed = checkpoint.load(self.run.last), []
        for name, weight in self.net.named_parameters():
            velocity = self.optimizer.state[weight]["velocity"]
            pairs = (weight, saved["weights"][name]), (velocity, saved["optimizer"]["velocity"][name])
            changed += [name for ours, theirs in pairs if not torch.equal(ours, theirs)]
        (self.run.path / f"changed-{RANK}.json").write_text(json.dumps(changed))


Trainer.train_step, Trainer.train = planting, recording  # type: ignore[method-assign,assignment]
runpy.run_path(str(TRAIN), run_name="__main__")
