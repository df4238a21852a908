# shellcheck shell=bash
# What the scripts share. Sourced, never run.

WEFT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WEFT_TARGET=${CARGO_TARGET_DIR:-$WEFT_ROOT/target}
# The file system exerciser and the POSIX cases (scripts/setup installs them there).
export WEFT_FSX=${WEFT_FSX:-$WEFT_TARGET/tools/bin/fsx}
export WEFT_PJDFSTEST=${WEFT_PJDFSTEST:-$WEFT_TARGET/tools/bin/pjdfstest}
PATH=$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin

# Newest installed PostgreSQL's directory of programs, or nothing.
pg_bin() {
	local dir newest=
	for dir in /usr/lib/postgresql/*/bin; do
		[[ -x $dir/initdb && -x $dir/pg_amcheck && -x $dir/pgbench ]] || continue
		[[ -z $newest || $(basename "$(dirname "$dir")") -gt $(basename "$(dirname "$newest")") ]] && newest=$dir
	done
	printf '%s' "$newest"
}

die() {
	printf '%s: %s\n' "$(basename "$0")" "$*" >&2
	exit 1
}

need_root() {
	[[ $(id -u) -eq 0 ]] || die "run it as root: it mounts for another user (postgres) and starts servers as that user"
}

# A directory of our own on a real disk, that the user postgres may enter.
scratch_dir() {
	local dir
	dir=$(mktemp -d "${WEFT_E2E_BASE:-/var/tmp}/weft-$1.XXXXXX")
	chmod 755 "$dir"
	printf '%s' "$dir"
}
