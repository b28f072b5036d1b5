"""Work spread over processes that die with their parent, whatever killed it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from alexnet2012.core.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")

START = "forkserver"  # imports once, unlike spawn; copies no threads, unlike fork
_images: Any = None  # in a worker: the number of images done by all workers


def run(
    work: Callable[[Task], Result], tasks: Iterable[Task], workers: int, progress: Callable[[int], object]
) -> Iterator[tuple[Task, Result]]:
    """Yield ``(task, work(task))`` as tasks finish, in any order.

    ``progress`` is called twice a second with how many images ``count_image`` has counted. The first exception of a
    task ends the work: tasks begun are finished first. Raises InputError when a worker is killed.
    """
    context = multiprocessing.get_context(START)
    context.set_forkserver_preload([work.__module__])
    images = context.Value("q", 0)
    with ProcessPoolExecutor(workers, context, _start_worker, (images,)) as pool:
        futures = {pool.submit(work, task): task for task in tasks}
        try:
            while futures:
                done, _ = wait(futures, timeout=0.5, return_when=FIRST_COMPLETED)
                progress(images.value)
                for future in done:
                    yield futures.pop(future), future.result()
        except BrokenProcessPool as error:
            raise InputError(
                "a worker was killed, for want of memory perhaps; run the same command again, with fewer --workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def count_image() -> None:
    """Called in a worker: one more image is done."""
    with _images.get_lock():
        _images.value += 1


def _start_worker(images: Any) -> None:
    global _images
    _images = images
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches the whole group: no traceback for each
    warnings.filterwarnings("ignore", module="PIL")  # about tags we do not read
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
