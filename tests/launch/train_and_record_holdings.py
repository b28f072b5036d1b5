"""launch/train_imagenet.py, each process also writing at its end which parameters and velocities it holds."""

import json
import os
import runpy

from running import TRAIN

from alexnet2012.training.trainer import Trainer

train = Trainer.train


def train_and_record(self: Trainer) -> str:
    how = train(self)
    held = {
        "parameters": [name for name, _ in self.net.named_parameters()],
        "velocities": [name for name, weight in self.net.named_parameters() if weight in self.optimizer.state],
    }
    (self.run.path / f"held-{os.environ['RANK']}.json").write_text(json.dumps(held))
    return how


Trainer.train = train_and_record  # type: ignore[method-assign]
runpy.run_path(str(TRAIN), run_name="__main__")
