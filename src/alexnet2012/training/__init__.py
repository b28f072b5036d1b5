"""Training: the optimizer, the schedule, the loop, checkpoints."""

from typing import TYPE_CHECKING

from alexnet2012.core.lazy import lazily

if TYPE_CHECKING:
    from alexnet2012.training import run as run
    from alexnet2012.training import run_log as run_log
    from alexnet2012.training import trainer as trainer
    from alexnet2012.training.optimizer import PaperSGD as PaperSGD
    from alexnet2012.training.settings import Settings as Settings
else:
    __getattr__, __dir__ = lazily(__name__, {"optimizer": "PaperSGD", "settings": "Settings"})
