# shellcheck shell=bash
# What the scripts beside it share; they source it.

fail() { echo "error: $*" >&2; exit 2; }

# find_runtime NAME: sets RUNTIME, the path of that program; without a name, of apptainer or singularity
find_runtime() {
    local name wanted=$1
    for name in ${wanted:-apptainer singularity}; do
        RUNTIME=$(PATH=$PATH:/usr/local/bin:/usr/bin type -P -- "$name") && break
    done
    [ -n "${RUNTIME:-}" ] || fail "${wanted:-apptainer} is not on PATH on $(hostname -s): load its module, install it" \
        "(Debian 12: .ci/install-apptainer), or name it with APPTAINER="
}

# root_is_limited: root without CAP_SYS_RESOURCE (bit 24), as in a sandbox, cannot start an image but in a user namespace
root_is_limited() {
    [ "$(id -u)" = 0 ] || return 1
    local capabilities
    capabilities=$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)
    ! ((0x${capabilities:-0} >> 24 & 1))
}

# last_error: of a program's output on standard input, the last line that names an error, without colours
last_error() {
    local said
    said=$(sed 's/\x1b\[[0-9;]*m//g')
    grep -aE '^(FATAL|ERROR) *: *[^ ]' <<< "$said" | tail -n 1 || tail -n 1 <<< "$said"
}

# field FILE NAME: a value of an image's sidecar, which has one to a line
field() { sed -n "s/^ *\"$2\": \"\{0,1\}\(.*[^\",]\)\"\{0,1\},\{0,1\}\$/\1/p" "$1" 2>/dev/null; }

megabytes_free() { df -Pm -- "$1" | awk 'NR == 2 {print $4}'; }

# remove PATH...: folders of an image may be closed to their own owner
remove() {
    local path
    for path; do
        [ ! -d "$path" ] || find "$path" -type d ! -perm -700 -exec chmod u+rwx {} + 2>/dev/null || true
        rm -rf -- "$path" 2>/dev/null || true
    done
}

# sweep PATH...: remove what builds on this host have left that were killed; names are X.HOST-PID.partial
sweep() {
    local path pid
    for path; do
        [ -e "$path" ] || continue
        pid=${path%.partial*}; pid=${pid##*-}
        [ -d "/proc/$pid" ] || remove "$path"
    done
}
