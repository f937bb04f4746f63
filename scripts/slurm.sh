#!/usr/bin/env bash
# Train on several machines under SLURM; the words behind it are those of `fit`:
#
#   sbatch --nodes 4 --ntasks-per-node 8 --gres gpu:8 scripts/slurm.sh --config configs/finetune.yaml --run_dir runs/a
#
# One task is one GPU. The run folder and the cache (KTH_LIGHTNING_CACHE) lie on a disk that all machines share. A job that
# is preempted, or reaches its time limit, is queued again and goes on; one that lost a process goes on when the same words
# are submitted again.
#SBATCH --job-name kth_lightning
#SBATCH --cpus-per-task 4
#SBATCH --requeue
#SBATCH --open-mode append
#SBATCH --signal B:USR1@60
set -euo pipefail
: "${SLURM_NNODES:?start it with sbatch}" "${SLURM_NTASKS_PER_NODE:?give sbatch --ntasks-per-node, the GPUs of a machine}"
trap 'scontrol requeue "$SLURM_JOB_ID" || true' USR1
srun --kill-on-bad-exit=1 "${PYTHON:-python}" -m kth_lightning fit --trainer.num_nodes "$SLURM_NNODES" \
    --trainer.devices "$SLURM_NTASKS_PER_NODE" --trainer.strategy ddp "$@" &
wait "$!" || wait "$!" # the signal ends the first
