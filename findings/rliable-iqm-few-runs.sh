#!/bin/sh
# rliable 1.2.0: the "interquartile mean" of few runs is not the mean of the middle half.
#
# Expected: aggregate_iqm is the mean of the middle 50 % of the runs. Where a quarter of them is no whole number, a run
#   at the edge counts in part.
# Happens: whole runs are cut, and their number is rounded down: of 3 runs none, so that it is the plain mean; of 7 runs
#   one at either end, so that it is the mean of the middle 71 %.
# Matters: for one task, five seeds are usual. A comparison of 7 seeds against 8 compares two different statistics, and
#   with 3 one failed run moves the "robust" figure by a third of its fall.
#
# Output seen:
#   runs  aggregate_iqm  mean of the middle half  share of the runs that count
#      3         0.6533                   0.8067                          100%
#      5         0.6467                   0.6780                           60%
#      7         0.7800                   0.9021                           71%
#      8         0.9720                   0.9720                           50%
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rliable==1.2.0 numpy==1.26.4 scipy==1.13.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from rliable import metrics


def middle_half(runs):
    """The mean of the middle half, with runs at its edges in part."""
    runs, count = np.sort(runs), len(runs)
    places = np.arange(count)
    weights = np.clip(np.minimum(places + 1, 0.75 * count) - np.maximum(places, 0.25 * count), 0, None)
    return float(weights @ runs / weights.sum())


print("runs  aggregate_iqm  mean of the middle half  share of the runs that count")
found = {}
for count, failed in ((3, 1), (5, 2), (7, 2), (8, 2)):
    runs = np.concatenate([np.full(failed, 0.0), np.linspace(0.96, 1.0, count - failed)])
    found[count] = float(metrics.aggregate_iqm(runs[:, None])), middle_half(runs)
    cut = int(0.25 * count)
    print(f"{count:4}  {found[count][0]:13.4f}  {found[count][1]:23.4f}  {(count - 2 * cut) / count:28.0%}")
assert all(abs(found[count][0] - found[count][1]) > 0.005 for count in (3, 5, 7)), found
assert abs(found[8][0] - found[8][1]) < 1e-9, found
PYTHON
