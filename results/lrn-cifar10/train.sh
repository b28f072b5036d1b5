#!/bin/sh
# Local response normalisation on CIFAR-10 (paper, section 3.3): sh results/lrn-cifar10/train.sh DATA RUNS [EPOCHS]
# DATA holds train/<class>/*.png and test/<class>/*.png; RUNS gets a directory a run. Stopped, it goes on where it was.
# cuda-convnet's 13pct net without and with LRN, two seeds, on a quarter of 13pct's published schedule: 25 epochs on
# 40,000 images, 10 on 50,000, then 5 at two lower rates. EPOCHS 160 is the whole schedule.
set -e
data=$1 runs=$2 epochs=${3:-40}
for seed in 0 1; do
    for net in conv-local-13pct conv-local-13pct-lrn; do
        run="$runs/$net-seed$seed"
        python launch/train_imagenet.py --net $net --seed $seed --epochs $epochs \
            --data "$data" --loader pillow --workers 1 --threads 1 --out "$run"
        python launch/evaluate.py "$run/checkpoints/last.pt" --data "$data" --crops 10 \
            --loader pillow --workers 1 --threads 1 \
            --json "$run/errors.json" --predictions "$run/ten_crops.npz" --centre-predictions "$run/centre_crop.npz"
    done
done
