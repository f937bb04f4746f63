#!/usr/bin/env bash
# Train on several machines without a scheduler. Start it on every machine, with the same words and its own number:
#
#   NODES=2 NODE=0 HEAD=10.0.0.1 GPUS=8 scripts/torchrun.sh --config configs/finetune.yaml --run_dir /shared/runs/a
#   NODES=2 NODE=1 HEAD=10.0.0.1 GPUS=8 scripts/torchrun.sh --config configs/finetune.yaml --run_dir /shared/runs/a
#
# HEAD is the address of machine 0, reached by all at PORT. The run folder and the cache (KTH_LIGHTNING_CACHE) lie on a
# disk that all machines share. When a machine fails, the others end; the same words on all of them go on from there.
set -euo pipefail
: "${NODES:?how many machines there are}" "${NODE:?the number of this one, from 0}" "${HEAD:?the address of machine 0}"
gpus="${GPUS:-1}"
exec "${PYTHON:-python}" -m torch.distributed.run --nnodes "$NODES" --node_rank "$NODE" --nproc_per_node "$gpus" \
    --master_addr "$HEAD" --master_port "${PORT:-29500}" \
    -m kth_lightning fit --trainer.num_nodes "$NODES" --trainer.devices "$gpus" --trainer.strategy ddp "$@"
