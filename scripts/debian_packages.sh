#!/bin/sh
# Installs the Debian packages of missing commands or paths; the arguments are command:package or path:package. Does
# nothing where it cannot install: the tests that need a missing program say so.
set -eu
command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || exit 0
missing=
for sign_and_package; do
    sign=${sign_and_package%%:*}
    # Unquoted, because a path may contain wildcards.
    # shellcheck disable=SC2086
    command -v "$sign" >/dev/null || ls -d $sign >/dev/null 2>&1 || missing="$missing ${sign_and_package##*:}"
done
[ -n "$missing" ] || exit 0
echo "Installing the Debian packages$missing …"
apt-get update -q >/dev/null
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >/dev/null
