#!/bin/sh
# The 2012 net at full width on photographs: sh results/imagenette-full-width/train.sh DATA RUNS
# DATA is Imagenette as data_prep/prepare_imagenet.py prepares it; RUNS gets a directory a run. Stopped, it goes on where
# it was. `paper` trains for 20 epochs; the two recipes with wider initial weights only until they have left the plateau
# at the initial loss, as does the run in float32 that bf16 is compared with.
set -e
data=$1 runs=$2
train() { # name, then flags
    name=$1
    shift
    python launch/train_imagenet.py "$@" --batch-size 32 --epochs 20 --log-every 1 --data "$data" --loader pillow \
        --workers 1 --threads 1 --out "$runs/$name"
}
train wide-init --wide-init --precision bf16 --max-steps 590
train source --recipe source --precision bf16 --max-steps 592
train paper-fp32 --max-steps 295
train paper --precision bf16
python results/imagenette-full-width/plateau.py "$runs"/*
python launch/evaluate.py "$runs/paper/checkpoints/last.pt" --data "$data" --crops 10 --loader pillow --workers 1 \
    --threads 1 --json "$runs/paper/ten_crops.json"
