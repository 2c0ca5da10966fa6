#!/bin/bash
# A Ray cluster across the nodes of a SLURM job; `--help` says how, docs/slurm.md why. Options given to sbatch win over these:
#SBATCH --job-name=rayfold
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --no-kill
#
# This only finds rayfold's Python and becomes it, so that Python is the batch process which gets the signals. In a job
# the script is a copy in SLURM's spool, so its own place does not tell where rayfold is.
RAYFOLD_STARTED=${EPOCHREALTIME/,/.} # a locale may have a comma
RAYFOLD_SIGNALLED=
export RAYFOLD_STARTED RAYFOLD_SIGNALLED
# What comes before Python can listen is told to it.
trap 'RAYFOLD_SIGNALLED=USR1' USR1
trap 'RAYFOLD_SIGNALLED=TERM' TERM

if [ -z "${HOME:-}" ]; then
    HOME=~ # bash knows it where the job does not
    export HOME
fi
rayfold_folder=$PWD
site=${RAYFOLD_SITE:-$HOME/.config/rayfold/site.sh}
if [ -e "$site" ]; then
    # shellcheck disable=SC2329 # the trap calls it
    rayfold_site_ended() {
        trap - EXIT
        echo "rayfold cluster: the site file '$site' ended with $1 (exit 70)"
        exit 70
    }
    trap 'rayfold_site_ended $?' EXIT
    rayfold_failed=0
    trap 'rayfold_failed=$?; [ "${BASH_SOURCE[0]}" = "$0" ] || echo "rayfold cluster: in the site file, line $LINENO, \`$BASH_COMMAND\` failed with $rayfold_failed"' ERR
    set -a # what it sets is for Python and the nodes
    # shellcheck source=/dev/null
    . "$site"
    rayfold_status=$?
    set +a
    trap - ERR
    [ "$rayfold_status" -eq 0 ] || exit "$rayfold_status"
    trap - EXIT
elif [ -n "${RAYFOLD_SITE:-}" ]; then
    echo "rayfold cluster: RAYFOLD_SITE names no file: '$site' (exit 70)"
    exit 70
fi
set -euo pipefail
cd "$rayfold_folder"

RAYFOLD_PYTHON=${RAYFOLD_PYTHON:-}
if [ -n "$RAYFOLD_PYTHON" ]; then
    candidates=("$RAYFOLD_PYTHON")
elif [ -n "${RAYFOLD_HOME:-}" ]; then
    candidates=("$RAYFOLD_HOME/.venv/bin/python")
else
    # sbatch carries an activated environment along; else the one of the checkout that this file is in or came from.
    script=$(readlink -f "${BASH_SOURCE[0]}")
    if [ ! -e "${script%/*}/launcher/launch.py" ] && [ -n "${SLURM_JOB_ID:-}" ]; then
        command=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=//p' | head -n 1)
        script=${command%%/ray_slurm.sh*}/ray_slurm.sh # without the arguments that follow
    fi
    candidates=(python python3 "${script%/cluster/*}/.venv/bin/python")
fi
# Signals wait until Python listens, where `env` can hold them back.
rayfold_hold=()
if env --block-signal=USR1,TERM true 2>/dev/null; then
    rayfold_hold=(env "--block-signal=USR1,TERM")
fi
rayfold_said=
for rayfold_python in "${candidates[@]}"; do
    # -P: a folder of the user's that happens to be called `cluster` must not shadow ours. Ray may lie in a container.
    if rayfold_said=$("$rayfold_python" -P -c 'import cluster.launcher.launch, importlib.util, sys; sys.exit(None if sys.argv[1] or importlib.util.find_spec("ray") else "it has no Ray")' "${RAYFOLD_WRAPPER:-}" 2>&1); then
        exec "${rayfold_hold[@]}" "$rayfold_python" -P -u -m cluster.launcher.launch "$@"
    fi
done
echo "rayfold cluster: none of these has rayfold and Ray: ${candidates[*]} (of the last: ${rayfold_said##*$'\n'}); activate its environment before sbatch, or set RAYFOLD_HOME to the checkout, or RAYFOLD_PYTHON to its Python (exit 70)"
exit 70
