"""launch/train_imagenet.py on two "nodes" that share no file system: a relative --out is another place on each."""

import importlib
import os
import runpy

from running import TRAIN

os.chdir(os.environ["RANK"])
importlib.import_module("alexnet2012.training.run").SHARED_WITHIN = 0.5
runpy.run_path(str(TRAIN), run_name="__main__")
