#!/usr/bin/env bash
# Start a SLURM of two nodes on this machine, to try scripts/slurm.sh and run its test (Debian, as root):
#
#   apt-get install slurm-wlm && scripts/slurm_of_two.sh && python -m pytest tests/cli/test_machines.py
#
# It writes /etc/slurm/slurm.conf and adds the nodes' names to /etc/hosts.
set -euo pipefail
[ ! -e /etc/slurm/slurm.conf ] || { echo "/etc/slurm/slurm.conf is there already; delete it first" >&2; exit 2; }
state="$(mktemp -d)"
host="$(hostname -s)"
cat > /etc/slurm/slurm.conf <<END
ClusterName=two
SlurmctldHost=$host
SlurmUser=root
StateSaveLocation=$state
SlurmdSpoolDir=$state/%n
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/%n.log
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/%n.pid
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=8
PartitionName=all Nodes=ALL Default=YES
END
grep -q ' n1 n2$' /etc/hosts || echo "127.0.0.1 n1 n2" >> /etc/hosts
install -d -o munge /run/munge
pgrep munged > /dev/null || su -s /bin/sh munge -c munged
slurmctld
slurmd -N n1
slurmd -N n2
sinfo
