#!/bin/sh
# The run of docs/imagenet.md in small: sh results/imagenet-rehearsal/rehearse.sh TREE WORK
# TREE holds train/<wnid>/*, val/<wnid>/*; WORK gets its archives, the prepared set and two runs. Full width, two processes
# of a tower each, the defaults but for batch and length. One run is killed without warning and resumed, one is left alone.
set -e
tree=$1 work=$2 here=$(dirname "$0")
timed() { start=$(date +%s); "$@"; echo "seconds: $(($(date +%s) - start)) for: $*"; }
train() {
    torchrun --nproc-per-node 2 launch/train_imagenet.py --recipe source --data "$work/imagenet" --out "$1" \
        --batch-size 32 --epochs 1 --max-steps 40 --checkpoint-every 10 --log-every 1 --threads 1
}
python "$here/make_archives.py" "$tree" "$work/archives"
timed python data_prep/prepare_imagenet.py "$work/archives" --out "$work/imagenet" --verify

(until grep -q '"step": 25' "$work/killed/metrics.jsonl"; do sleep 0.2; done 2>/dev/null
 pkill -KILL -f -- "--out $work/killed") &
train "$work/killed" || echo "killed, as planned"
cp "$work/killed/state.json" "$work/state-when-killed.json"
timed train "$work/killed"
timed train "$work/unbroken"
python - "$work" <<'END'
import json, sys
runs = [[json.loads(line) for line in open(f"{sys.argv[1]}/{name}/metrics.jsonl")] for name in ("killed", "unbroken")]
killed, unbroken = ({row["step"]: row["loss"] for row in rows if "loss" in row} for rows in runs)
assert killed == unbroken, "the losses differ"
print("losses of both runs equal to the bit:", len(killed), "steps, the last", killed[40])
END
timed torchrun --nproc-per-node 2 launch/evaluate.py "$work/unbroken/checkpoints/last.pt" --data "$work/imagenet" \
    --crops 10 --threads 1 --json "$work/unbroken/ten_crops.json"
