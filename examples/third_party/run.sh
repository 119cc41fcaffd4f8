#!/bin/sh
# Trains each example in an environment of its own, and fails where a gate is missed. Names choose among
# them: sh examples/third_party/run.sh anesthesim babyai metaworld
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

[ $# -gt 0 ] || set -- anesthesim babyai metaworld
for name; do
    case $name in
    anesthesim)
        install anesthesim anesthesim==0.1.0
        example anesthesim anesthesim_propofol.py
        ;;
    babyai)
        install babyai minigrid==3.2.0
        example babyai babyai_goto.py
        ;;
    metaworld)
        install metaworld metaworld==3.1.1
        example metaworld metaworld_doors.py -p task=drawer-open-v3
        example metaworld metaworld_doors.py -p task=door-open-v3
        ;;
    *)
        echo "There is no example '$name'; choose among anesthesim, babyai and metaworld." >&2
        exit 2
        ;;
    esac
done
echo "All examples reached their gates."
