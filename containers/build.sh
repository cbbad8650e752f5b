#!/usr/bin/env bash
# Build the image that jobs run in, without root.
#
#   containers/build.sh [--lock cpu|cuda] [--base BASE] [--images DIR] [--scratch DIR] [--key | --dry]
#
#   --lock     packages: requirements-LOCK.lock, with torch's CPU or CUDA build                       (cpu)
#   --base     docker://IMAGE with Python 3.11; a local image, file or folder; debootstrap, which is
#              Debian 12 from this machine's apt mirror (or MIRROR=)  (docker://python:3.11-slim; if that cannot be
#              reached and debootstrap is installed: debootstrap)
#   --images   folder of images                                                                       (.images)
#   --scratch  wheels, caches, temporary files: several GB, best on a local disk                      (IMAGES/scratch)
#   --key      print the key only;  --dry  print what would be built
#
# Writes DIR/textocvp-LOCK-KEY.sif, and .sif.json beside it: {digest, bytes, lock, key, base, built, apptainer}. KEY is the
# first 16 hex digits of sha256(requirements-LOCK.lock + textocvp.def + selftest.py), the three files' bytes in this order.
# An image that exists under its key is not built again, unless another --base is requested.
# Environment: APPTAINER (apptainer or singularity), PYTHON (whose pip fetches the wheels), pip's own PIP_*.
# Built and run so far: the cpu lock on debootstrap and on local images (Debian 12: file, folder, one without a compiler),
# the latter also without subordinate ids; the cuda lock on a local image, on a host without GPU. docker:// takes the same
# steps, but is untested without a registry.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=containers/common.sh
. "$HERE/common.sh"
PYTHON_VERSION=3.11
PATH=$PATH:/usr/sbin:/sbin
LOCK=cpu BASE='' IMAGES=$(dirname "$HERE")/.images SCRATCH='' ACTION=build

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
        --lock | --base | --images | --scratch)
            [ -n "${2:-}" ] || fail "$1 needs a value"
            declare -g "$(tr '[:lower:]' '[:upper:]' <<< "${1#--}")=$2"; shift 2 ;;
        --key | --dry) ACTION=${1#--}; shift ;;
        -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) fail "unknown option $1 (see $0 --help)" ;;
        esac
    done
    LOCK_FILE=$HERE/requirements-$LOCK.lock
    [[ $LOCK =~ ^(cpu|cuda)$ ]] || fail "--lock $LOCK: expected cpu or cuda"
    [ -s "$LOCK_FILE" ] || fail "$LOCK_FILE does not exist; run make lock"
}

hash() { cat "$@" | sha256sum | cut -c1-16; }

name_files() {
    IMAGES=$(realpath -m -- "$IMAGES") SCRATCH=$(realpath -m -- "${SCRATCH:-$IMAGES/scratch}")
    IMAGE=$IMAGES/textocvp-$LOCK-$KEY.sif
    MINE=$(hostname -s)-$$
    PARTIAL=$IMAGES/.textocvp-$LOCK-$KEY.$MINE.partial
    LOG=$SCRATCH/build-$LOCK-$KEY.log
}

is_current() {  # the image is whole, and on the base that was asked for, if any was
    [ -f "$IMAGE" ] && [ "$(field "$IMAGE.json" bytes)" = "$(stat -c %s "$IMAGE")" ] &&
        { [ -z "$BASE" ] || [ "$BASE" = "$(field "$IMAGE.json" base)" ]; }
}

apt_mirror() {  # the Debian archive that this machine's apt reads, or nothing
    # shellcheck disable=SC2016  # apt's own placeholder
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | awk '/\/debian\/?$/ && !found++' || true
}

resolve_base() {  # sets ARGUMENTS, what the definition is filled with
    local mirror=${MIRROR:-}
    ARGUMENTS=(LOCK="requirements-$LOCK.lock")
    case ${BASE:=docker://python:$PYTHON_VERSION-slim} in
    debootstrap)
        command -v debootstrap >/dev/null || fail "--base debootstrap needs the program debootstrap"
        [ -n "$mirror" ] || mirror=$(apt_mirror)
        [ -n "$mirror" ] || fail "--base debootstrap: no Debian archive in apt's configuration; name one with MIRROR="
        ARGUMENTS+=(BOOTSTRAP=debootstrap FROM=none MIRROR="$mirror") ;;
    *://*) ARGUMENTS+=(BOOTSTRAP="${BASE%%://*}" FROM="${BASE#*://}") ;;
    *)
        [ -e "$BASE" ] || fail "--base $BASE: no such image; known: docker://IMAGE, debootstrap, or a path"
        ARGUMENTS+=(BOOTSTRAP=localimage FROM="$(realpath -- "$BASE")") ;;
    esac
}

find_python() {  # find_python [VERSION]: sets PIP, a python with pip, of that version if one is given
    local candidate version
    for candidate in ${PYTHON:-} "$HERE"/../.venv{,-login}/bin/python "python$PYTHON_VERSION" python3; do
        version=$("$candidate" -c 'import sys, pip; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        [ -z "${1:-}" ] || [ "$version" = "$1" ] || continue
        PIP=("$candidate" -m pip --disable-pip-version-check) PIP_PYTHON=$version
        return 0
    done
    return 1
}

download_for_other_python() {  # wheels for the image's Python, with a pip of another one; sdists become wheels if they are pure
    local minor platform=() source
    for minor in $(seq 36 -1 5); do platform+=(--platform "manylinux_2_${minor}_$(uname -m)"); done
    platform+=(--platform "manylinux2014_$(uname -m)" --platform "linux_$(uname -m)")
    "${PIP[@]}" download --no-deps --prefer-binary --python-version "$PYTHON_VERSION" --implementation cp --abi cp311 \
        --abi abi3 --abi none "${platform[@]}" -r "$LOCK_FILE" -d "$1" || return
    for source in "$1"/*.tar.gz "$1"/*.zip; do
        [ -e "$source" ] || continue
        "${PIP[@]}" wheel --no-deps --use-pep517 --ignore-requires-python "$source" -w "$1" || return
        rm "$source"
    done
    ! find "$1" -name '*.whl' | grep -- "-cp${PIP_PYTHON/./}-" ||
        { echo "PIP: these can be built by Python $PYTHON_VERSION only"; return 1; }
}

torch_build() {  # cpu or cuda: what the wheel in folder $1 is
    "${PIP[0]}" - "$1" <<< '
import pathlib, sys, zipfile
[wheel] = pathlib.Path(sys.argv[1]).glob("torch-*.whl")
archive = zipfile.ZipFile(wheel)
[metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
lines = archive.read(metadata).decode().splitlines()
print("cuda" if any(line.startswith(("Requires-Dist: nvidia-", "Requires-Dist: cuda-")) for line in lines) else "cpu")'
}

wheelhouse() {  # sets WHEELS: all packages of the lock as wheels; fetched once
    WHEELS=$SCRATCH/wheelhouse-$LOCK-$(hash "$LOCK_FILE")
    [ ! -d "$WHEELS" ] || return 0
    local partial=$WHEELS.$MINE.partial found
    find_python "$PYTHON_VERSION" || find_python || fail "no Python with pip on this host to download wheels with; set PYTHON="
    echo "wheels: $(grep -c == "$LOCK_FILE") packages, with pip of Python $PIP_PYTHON"
    if [ "$PIP_PYTHON" = "$PYTHON_VERSION" ]; then
        "${PIP[@]}" wheel --no-deps -r "$LOCK_FILE" -w "$partial" >> "$LOG" 2>&1 || explain_pip
    else
        download_for_other_python "$partial" >> "$LOG" 2>&1 || explain_pip
    fi
    found=$(torch_build "$partial")
    [ "$found" = "$LOCK" ] || fail "pip found torch's $found build for the $LOCK lock: name an index or folder that has the" \
        "$LOCK build (PIP_EXTRA_INDEX_URL=, PIP_FIND_LINKS=), or use --lock $found"
    mv -T "$partial" "$WHEELS" 2>/dev/null || [ -d "$WHEELS" ]
}

said() { grep -aoE "$1" "$LOG" | tail -1; }

explain_full() {
    [ -z "$(said 'No space left on device|Disk quota exceeded')" ] ||
        fail "disk or quota full: $(megabytes_free "$SCRATCH") MB free in $SCRATCH, $(megabytes_free "$IMAGES") MB in $IMAGES (log: $LOG)"
}

explain_pip() {
    local line
    explain_full
    line=$(said '^(ERROR|PIP): .*' || said '.+' || echo "pip failed")
    fail "the wheels of $(basename "$LOCK_FILE") could not be fetched: ${line#*: } (log: $LOG)"
}

base_is_absent() {
    grep -aqE 'pinging container registry|dial tcp|no such host|i/o timeout|manifest unknown|unauthorized|^E: (Failed|Invalid|Couldn)' "$LOG"
}

explain_build() {  # one line from apptainer's log
    local line
    explain_full
    ! line=$(said '^BASE: .*') || fail "--base $BASE: ${line#BASE: } (log: $LOG)"
    if grep -aq 'Running testscript' "$LOG" && ! grep -aq 'Creating SIF file' "$LOG"; then
        line=$(said '^[A-Za-z_.]*(Error|Exception|Timeout)[A-Za-z]*: .*' || last_error < "$LOG")
        fail "the image was built, but its own test failed: $line (log: $LOG)"
    fi
    line=$(said '^E: .*' || last_error < "$LOG")
    ! base_is_absent ||
        fail "the base $BASE cannot be reached: $(said '(dial tcp|lookup|manifest unknown|unauthorized|E: ).*' || echo "$line");" \
            "without a network use --base IMAGE, on Debian --base debootstrap (log: $LOG)"
    fail "${RUNTIME##*/} could not build the image: ${line#*: } (log: $LOG)"
}

compression() {  # zstd packs three times faster than gzip; an old mksquashfs lacks it
    grep -qw zstd <<< "$(mksquashfs -help 2>&1)" && grep -q -- --mksquashfs-args <<< "$("$RUNTIME" build --help)" || return 0
    printf '%s\n' --mksquashfs-args '-comp zstd -Xcompression-level 3'
}

unpack_base() {  # users without subordinate ids cannot build from an image file, but from its folder
    local folder=$SCRATCH/base.$MINE.partial
    [ -f "$BASE" ] && [ "$(id -u)" != 0 ] || return 0
    "$RUNTIME" build --fix-perms --sandbox "$folder" "$BASE" >> "$LOG" 2>&1 || explain_build
    ARGUMENTS+=(FROM="$folder")
}

build_image() {
    local options argument
    mapfile -t options < <(compression)
    [ "$(id -u)" = 0 ] && ! root_is_limited || options+=(--fakeroot)
    unpack_base
    for argument in "${ARGUMENTS[@]}"; do options+=(--build-arg "$argument"); done
    # the definition names its files relative to this folder
    (cd "$HERE" && "$RUNTIME" build --bind "$WHEELS:/mnt" "${options[@]}" "$PARTIAL" textocvp.def) >> "$LOG" 2>&1
}

build_from_debootstrap() {  # if no base was asked for and the default cannot be reached
    [ -z "$ASKED" ] && base_is_absent && command -v debootstrap >/dev/null && [ -n "${MIRROR:-$(apt_mirror)}" ] || return 1
    echo "the base $BASE cannot be reached: building from debootstrap (some minutes; log: $LOG)"
    BASE=debootstrap
    resolve_base
    : > "$LOG"
    build_image
}

publish() {  # the sidecar first: an image is never without it
    local version; version=$("$RUNTIME" --version)
    cat > "$PARTIAL.json" <<- END
	{
	  "digest": "$(sha256sum "$PARTIAL" | cut -d' ' -f1)",
	  "bytes": $(stat -c %s "$PARTIAL"),
	  "lock": "$LOCK",
	  "key": "$KEY",
	  "base": "${BASE//[\"\\]/_}",
	  "built": "$(date -u +%Y-%m-%dT%H:%M:%SZ)",
	  "apptainer": "$version"
	}
	END
    mv "$PARTIAL.json" "$IMAGE.json"
    mv "$PARTIAL" "$IMAGE"
}

prepare() {
    local needed free
    find_runtime "${APPTAINER:-}"
    mkdir -p "$IMAGES" "$SCRATCH/cache" 2>/dev/null || fail "cannot write into $IMAGES or $SCRATCH"
    needed=$([ "$LOCK" = cuda ] && echo 18000 || echo 4500)
    free=$(megabytes_free "$SCRATCH")
    [ "$free" -ge "$needed" ] || fail "$free MB free in $SCRATCH, but a build needs about $needed; use --scratch DIR"
    sweep "$IMAGES"/.textocvp-*."$(hostname -s)"-*.partial* "$SCRATCH"/*."$(hostname -s)"-*.partial
    trap 'remove "$PARTIAL" "$PARTIAL.json" "$SCRATCH"/*."$MINE".partial' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    export APPTAINER_TMPDIR=$SCRATCH/build.$MINE.partial APPTAINER_CACHEDIR=$SCRATCH/cache
    export SINGULARITY_TMPDIR=$APPTAINER_TMPDIR SINGULARITY_CACHEDIR=$APPTAINER_CACHEDIR
    mkdir "$APPTAINER_TMPDIR"
    : > "$LOG"
}

main() {
    parse "$@"
    KEY=$(hash "$LOCK_FILE" "$HERE/textocvp.def" "$HERE/selftest.py")
    [ "$ACTION" != key ] || { echo "$KEY"; return; }
    name_files
    if is_current; then
        echo "unchanged: $IMAGE (base $(field "$IMAGE.json" base), built $(field "$IMAGE.json" built))"
        return
    fi
    ASKED=$BASE
    resolve_base
    [ "$ACTION" != dry ] || { printf '%s\n' "would build $IMAGE" "base $BASE" "scratch $SCRATCH"; return; }
    prepare
    wheelhouse
    echo "image: $IMAGE from $BASE (some minutes; log: $LOG)"
    build_image || build_from_debootstrap || explain_build
    publish
    echo "built: $IMAGE, $(($(stat -c %s "$IMAGE") / 1000000)) MB, sha256 $(field "$IMAGE.json" digest)"
}

main "$@"; exit  # in one line: this file may change while it runs
