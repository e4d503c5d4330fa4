#!/bin/bash
# Trains on a TPU VM: makes it if absent, copies this checkout to all of its workers, installs, and runs there.
#
#   ACCELERATOR=v5litepod-16 ZONE=us-west4-a launch/tpu_vm.sh NAME --config=configs/llama.py:1b --workdir=/mnt/runs/1b
#
# It needs gcloud, logged in, and git. --workdir and data.path are directories that all workers share. The same
# command goes on after a preemption. NAME is deleted by: gcloud compute tpus tpu-vm delete NAME --zone=ZONE
set -euo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
name=$1
shift
zone=${ZONE:?set ZONE, for instance us-west4-a}
accelerator=${ACCELERATOR:?set ACCELERATOR, for instance v5litepod-16}
version=${VERSION:-v2-alpha-tpuv5-lite}  # the image; docs/launch.md says where they are listed
tpu=(gcloud compute tpus tpu-vm)

"${tpu[@]}" describe "$name" --zone="$zone" >/dev/null 2>&1 ||
  "${tpu[@]}" create "$name" --zone="$zone" --accelerator-type="$accelerator" --version="$version" ${SPOT:+--spot}

# What is committed, and nothing else, so that the code's version says what ran.
archive=$(mktemp --suffix=.bundle)
trap 'rm -f "$archive"' EXIT
git bundle create --quiet "$archive" HEAD
"${tpu[@]}" scp "$archive" "$name:lathe.bundle" --zone="$zone" --worker=all

# LATHE_DISTRIBUTED=1: each worker finds the others through the metadata of the TPU VM.
arguments=$(printf '%q ' "$@")
"${tpu[@]}" ssh "$name" --zone="$zone" --worker=all --command="
  set -e
  rm -rf lathe.new && git clone --quiet lathe.bundle lathe.new
  [ -d lathe/.venv ] && mv lathe/.venv lathe.new/.venv
  rm -rf lathe && mv lathe.new lathe && cd lathe
  make install && .venv/bin/pip install --quiet -r requirements-tpu.txt
  LATHE_DISTRIBUTED=1 .venv/bin/python train.py $arguments"
