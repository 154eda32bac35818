# tools/lib.sh
#     What the scripts in tools/ share: where the tree is, which server, how to speak and to fail.
#
# Sourced by bash with `set -euo pipefail`.  Reads PG_CONFIG like the Makefiles do.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say()
{
	echo "== $*"
}

die()
{
	echo "$(basename "$0"): $*" >&2
	exit 1
}

# Runs a command as root: directly, or through sudo.
as_root()
{
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "this needs root: run it as root or install sudo: $*"
	fi
}

# The same choice as tools/flags.mk makes.
find_pg_config()
{
	if [ -n "${PG_CONFIG:-}" ]; then
		echo "$PG_CONFIG"
	elif [ -x /usr/lib/postgresql/15/bin/pg_config ]; then
		echo /usr/lib/postgresql/15/bin/pg_config
	else
		{ ls -d /usr/lib/postgresql/*/bin/pg_config 2>/dev/null || echo pg_config; } | sort -V | tail -n 1
	fi
}

# Builds the tree and installs it into the server, with sudo only if that place is not ours.
build_and_install()
{
	local quiet=(--silent --no-print-directory)
	local install=(make "${quiet[@]}" -C "$top" install "PG_CONFIG=$PG_CONFIG")

	say "building for $("$PG_CONFIG" --version)"
	export PG_CONFIG
	make "${quiet[@]}" --jobs="$(nproc)" -C "$top" all
	if [ -w "$("$PG_CONFIG" --pkglibdir)" ] && [ -w "$("$PG_CONFIG" --bindir)" ] &&
		[ -w "$("$PG_CONFIG" --sharedir)/extension" ]; then
		"${install[@]}"
	else
		say "installing into $("$PG_CONFIG" --pkglibdir) needs root"
		as_root "${install[@]}"
	fi
}
