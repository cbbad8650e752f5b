#!/usr/bin/env bash
# Unpack an image into a folder, which starts faster than the file and needs no FUSE on the nodes.
#
#   containers/unpack.sh IMAGE [DIR]      IMAGE.sif -> DIR, by default the folder IMAGE beside the file
#
# An image's sidecar goes along as DIR/.textocvp-image.json. A folder that already contains this image is left unchanged.
# Environment: APPTAINER (apptainer or singularity).
set -euo pipefail
# shellcheck source=containers/common.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/common.sh"
PATH=$PATH:/usr/sbin:/sbin

[[ $# =~ ^[12]$ && $1 != -* ]] || { sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2; }
IMAGE=$1 FOLDER=${2:-${1%.sif}}
[ -f "$IMAGE" ] || fail "the image $IMAGE does not exist; build it with make image"
[ "$FOLDER" != "$IMAGE" ] || fail "the name of $IMAGE does not end in .sif: name the folder to unpack it into"
[ -f "$IMAGE.json" ] || fail "$IMAGE.json is missing: was $IMAGE built by containers/build.sh?"
if cmp -s "$IMAGE.json" "$FOLDER/.textocvp-image.json"; then
    echo "unchanged: $FOLDER"
    exit 0
fi
[ ! -e "$FOLDER" ] || [ -f "$FOLDER/.textocvp-image.json" ] || fail "$FOLDER exists and is not an unpacked image; remove it"
find_runtime "${APPTAINER:-}"
PARENT=$(dirname -- "$FOLDER") NAME=$(basename -- "$FOLDER")
mkdir -p "$PARENT"
sweep "$PARENT/.$NAME.$(hostname -s)"-*.partial
PARTIAL=$PARENT/.$NAME.$(hostname -s)-$$.partial
trap 'remove "$PARTIAL"' EXIT
trap 'exit 130' INT; trap 'exit 143' TERM
OPTIONS=(--fix-perms --sandbox)
! root_is_limited || OPTIONS+=(--fakeroot)
# its temporary files beside the folder: /tmp may be small, or memory
SAID=$(APPTAINER_TMPDIR=$PARENT SINGULARITY_TMPDIR=$PARENT "$RUNTIME" --quiet build "${OPTIONS[@]}" "$PARTIAL" "$IMAGE" 2>&1) ||
    fail "$IMAGE could not be unpacked: $(last_error <<< "$SAID") ($(megabytes_free "$PARENT") MB free in $PARENT)"
cp "$IMAGE.json" "$PARTIAL/.textocvp-image.json"
remove "$FOLDER"
mv -T "$PARTIAL" "$FOLDER"
echo "unpacked: $FOLDER, $(du -sm "$FOLDER" | cut -f1) MB"
