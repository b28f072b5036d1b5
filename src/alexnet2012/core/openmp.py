"""Imported by what a person runs, before torch: threads that wait for each other sleep at once.

By default they spin for a while (libgomp, which torch and our kernels share: 300,000 turns). On two cores beside one
busy process that costs 19 of 20 images/s, for the thread waited for has lost its core to those that spin; asleep they
keep half. On quiet cores it costs 5 in 100.
"""

from __future__ import annotations

import os

if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
    os.environ["OMP_WAIT_POLICY"] = "passive"  # read once, when torch loads OpenMP
