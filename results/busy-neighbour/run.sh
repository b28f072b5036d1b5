#!/bin/sh
# Speed beside a busy process of another session: sh results/busy-neighbour/run.sh RUN [FLAGS of train_imagenet.py]
set -e
run=$1
shift
speed() {
    rm -rf "$run"
    python launch/train_imagenet.py --data sample --width 0.25 --batch-size 32 --max-steps 120 --log-every 40 \
        --loader pillow --workers 1 --schedule constant --out "$run" "$@" | grep -o '[0-9,]* images/s' | tail -n 1
}
echo "quiet: $(speed "$@")"
setsid sh -c 'while :; do :; done' &
neighbour=$!
trap 'kill $neighbour' EXIT
trap 'exit 1' INT TERM
echo "busy: $(speed "$@")"
