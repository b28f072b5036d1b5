#!/bin/sh
# Figure 1 of the paper on CIFAR-10: sh results/figure-1-cifar10/train.sh DATA RUNS [EPOCHS]
# DATA holds train/<class>/*.png and test/<class>/*.png; RUNS gets a directory a run. Stopped, it goes on where it was.
# Four learning rates, two seeds, ten epochs, no weight decay and no augmentation. A run may diverge (exit code 3).
set -e
data=$1 runs=$2 epochs=${3:-10}
for seed in 0 1; do
    for lr in 0.001 0.003 0.01 0.03; do
        for activation in relu tanh; do
            python launch/train_imagenet.py --net 19pct --activation $activation --lr $lr --weight-decay 0 \
                --seed $seed --epochs $epochs --data "$data" --loader torch --workers 1 --threads 1 \
                --out "$runs/$activation-lr$lr-seed$seed" || [ $? -eq 3 ]
        done
    done
done
python launch/draw_figures.py --figure 1 "$runs"/*-seed* --out results/figure-1-cifar10
