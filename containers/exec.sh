#!/usr/bin/env bash
# Start a command in the image, as jobs do.
#
#   containers/exec.sh [--nv] [--bind SPEC]... [--env PATTERN]... [--option OPTION]... RUNTIME IMAGE COMMAND [ARGUMENT]...
#
#   RUNTIME   apptainer or singularity, a name or a path
#   IMAGE     a .sif file or an unpacked folder
#   --env     names of further variables that the command may see, as shell patterns (WANDB_*)
#   --option  one more option for `RUNTIME exec`, passed unchanged (--option=--rocm)
#
# The command sees the working directory under its own path, what --bind gives, TMPDIR if it is a folder here, and what the
# site's configuration mounts (commonly HOME and /tmp; packages in ~/.local are ignored). Of the environment it sees only
# the variables listed below. The exit code is the command's.
#
# Slurm signals every process of a step. USR1, USR2 and TERM are survived by everything around the command, and ignored
# by the command until it sets handlers of its own: the image outlives them, and the handlers get each of them, some twice.
# (An apptainer that brings its own squashfuse_ll prefers it to the one in shims/: there, start from an unpacked folder.)
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=containers/common.sh
. "$HERE/common.sh"
trap '' USR1 USR2 TERM

PASSED=('SLURM_*' SLURMD_NODENAME 'SUBMITIT_*' 'CUDA_*' 'NCCL_*' 'TEXTOCVP_*' 'OMP_*' PYTHONPATH PYTHONSAFEPATH HOME USER LOGNAME
    TMPDIR LANG 'LC_*' TERM TZ 'APPTAINER_*' 'SINGULARITY_*')
OPTIONS=()
while [ $# -gt 0 ]; do
    case $1 in
    --nv) OPTIONS+=(--nv); shift ;;
    --bind | --env | --option)
        [ -n "${2:-}" ] || fail "$1 needs a value"
        case $1 in --bind) OPTIONS+=(--bind "$2") ;; --env) PASSED+=("$2") ;; --option) OPTIONS+=("$2") ;; esac
        shift 2 ;;
    --bind=* | --env=* | --option=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) fail "unknown option $1 (see $0 --help)" ;;
    *) break ;;
    esac
done
[ $# -ge 3 ] || fail "usage: $0 [OPTION]... RUNTIME IMAGE COMMAND [ARGUMENT]... (see $0 --help)"
find_runtime "$1"
IMAGE=$2
shift 2
[ -e "$IMAGE" ] || fail "the image $IMAGE does not exist on $(hostname -s); build it with make image"
[ -r "$IMAGE" ] || fail "the image $IMAGE cannot be read by $(id -un)"

is_passed() {
    local pattern
    # shellcheck disable=SC2053  # patterns
    for pattern in "${PASSED[@]}"; do [[ $1 != $pattern ]] || return 0; done
    return 1
}

# the working directory, also under its physical path where a link leads to it
OPTIONS+=(--bind "$PWD" --pwd "$PWD")
[ "$PWD" = "$(pwd -P)" ] || OPTIONS+=(--bind "$(pwd -P)")
[ -z "${TMPDIR:-}" ] || { [ -d "$TMPDIR" ] && OPTIONS+=(--bind "$TMPDIR"); } || unset TMPDIR
! root_is_limited || OPTIONS+=(--userns)

ENVIRONMENT=()
while read -r name; do
    ! is_passed "$name" || ENVIRONMENT+=("$name=${!name}")
done < <(compgen -e)
ENVIRONMENT+=(PYTHONNOUSERSITE=1 HF_HUB_OFFLINE=1 PATH="$HERE/shims:$PATH")

# What apptainer starts from undoes ignored signals, so one may end it before the command has begun: then start it again.
# The command's first act is to write into pipe 9.
exec 9<> <(:)
SIGNALLED=
trap SIGNALLED=1 USR1 USR2
for _ in {1..20}; do
    CODE=0
    # shellcheck disable=SC2016  # for the shell inside
    env -i "${ENVIRONMENT[@]}" "$RUNTIME" --quiet exec "${OPTIONS[@]}" "$IMAGE" \
        /bin/sh -c 'trap "" USR1 USR2 TERM; echo >&9; exec 9>&-; exec "$0" "$@"' "$@" || CODE=$?
    [ "$SIGNALLED" ] && ! read -r -t 0 -u 9 || exit "$CODE"
    SIGNALLED=
    echo "note: a signal came while the image was starting (exit code $CODE); starting it again" >&2
done
fail "signals kept the image from starting"
