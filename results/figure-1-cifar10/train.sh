#!/bin/sh
# Figure 1 of the paper on CIFAR-10: sh results/figure-1-cifar10/train.sh DATA RUNS
# DATA holds train/<class>/*.png and test/<class>/*.png; RUNS gets a directory a run. Stopped, it goes on where it was.
# Four learning rates, two seeds, ten epochs, no weight decay and no augmentation. A run may diverge (exit code 3).
# tanh is then far from 25 % training error: at its best learning rate of the ten epochs it trains for forty.
set -e
data=$1 runs=$2 tanh=0.01
train() { # activation, learning rate, seed, epochs
    python launch/train_imagenet.py --net 19pct --activation $1 --lr $2 --weight-decay 0 --seed $3 --epochs $4 \
        --data "$data" --loader pillow --workers 1 --threads 1 --out "$runs/$1-lr$2-epochs$4-seed$3" || [ $? -eq 3 ]
}
for seed in 0 1; do
    for lr in 0.001 0.003 0.01 0.03; do
        train relu $lr $seed 10
        train tanh $lr $seed 10
    done
done
train tanh $tanh 0 40
train tanh $tanh 1 40
python launch/draw_figures.py --figure 1 "$runs"/*-seed* --out results/figure-1-cifar10
