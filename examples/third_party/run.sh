#!/bin/sh
# Trains each example in an environment of its own, and fails where a gate is missed. Runs from the project's root.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export WANDB_MODE=offline OMP_NUM_THREADS=1

# install NAME PACKAGE...: a virtual environment with rlstages and the packages.
install() {
    python3 -m venv "$folder/$1"
    "$folder/$1/bin/pip" install --quiet -c "$root/constraints.txt" -e "$root"
    "$folder/$1/bin/pip" install --quiet --no-deps imitation==1.0.1
    pip="$folder/$1/bin/pip"
    shift
    "$pip" install --quiet -c "$root/constraints.txt" "$@"
}

# example NAME FILE [OPTION...]: exit code 3 of a missed gate ends the script.
example() {
    name=$1 file=$2
    shift 2
    echo "== $file $*"
    "$folder/$name/bin/rlstages" train "$root/examples/third_party/$file" "$@" \
        --seed 0 --track none --out "$(mktemp -d "$folder/run.XXXX")/run"
}

install anesthesim anesthesim==0.1.0
example anesthesim anesthesim_propofol.py
install babyai minigrid==3.2.0
example babyai babyai_goto.py
install metaworld metaworld==3.0.0 mujoco==3.3.0
example metaworld metaworld_doors.py -p task=drawer-open-v3
example metaworld metaworld_doors.py -p task=door-open-v3
echo "All examples reached their gates."
