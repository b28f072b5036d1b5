# The README's two commands in a container:
#
#   docker build -t alexnet2012 .
#   docker run --gpus all --ipc host alexnet2012                                     # trains on the embedded sample
#   docker run --gpus all --ipc host alexnet2012 .venv/bin/python -m pytest -n 2 --dist loadfile
#   docker run --gpus all --ipc host -v "$PWD/data:/app/data" -v "$PWD/runs:/app/runs" alexnet2012 \
#       .venv/bin/torchrun --nproc-per-node 2 launch/train_imagenet.py                # ImageNet in data/imagenet
#
# It also runs without --gpus, on the CPU. --ipc host: NCCL needs more shared memory than a container has.
#
# Checked on 2026-11-24 without docker, whose daemon was missing, on a CPU: in a fresh clone the step that installs, then the
# first command for three steps, then the second for tests/network/test_alexnet.py and tests/launch/test_predict.py. The
# base image and apt-get are unchecked.

# PyTorch and DALI bring their own CUDA 13 libraries; the driver is the host's.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04
# g++ builds the CPU kernels at first use, Python's headers are for Triton's.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY . .
RUN python3 -m venv .venv && .venv/bin/pip install --no-cache-dir '.[test,export]'
CMD [".venv/bin/torchrun", "launch/train_imagenet.py", "--data", "sample", "--width", "0.25", "--batch-size", "32", "--epochs", "4", "--schedule", "constant"]
