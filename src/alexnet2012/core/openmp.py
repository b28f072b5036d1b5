"""Imported by what a person runs, before torch: threads that wait for each other sleep at once.

By default they spin first (libgomp, which torch and our kernels share: 300,000 turns). Two threads on two cores beside
one busy process then keep 19 of 419 images/s, for those that spin take the core of the thread that they wait for;
asleep they keep 192. On quiet cores sleeping costs 5 in 100.
"""

from __future__ import annotations

import os

if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
    os.environ["OMP_WAIT_POLICY"] = "passive"  # read once, when torch loads OpenMP
