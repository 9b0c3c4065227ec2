#!/usr/bin/env bash
# fetch-nocobase.sh - puts a version of NocoBase from npm into a folder: a ready-made fetch command for an agent's releases.
#
#   fetch-nocobase.sh VERSION FOLDER     FOLDER must be empty; it takes about a minute and 1.2 GB
#
# In the agent's configuration:
#
#   [release]
#   fetch = ["/opt/soloist/deploy/nocobase/fetch-nocobase.sh"]
#
# Needs Node.js 20 with npm. It uses the functions of deploy/lab beside it, so it runs in a checkout or a copy of deploy/; a
# symbolic link to it will do. Settings and storage are not part of a release: nothing of them stays in FOLDER.
set -euo pipefail

fail() { printf 'fetch-nocobase: %s\n' "$*" >&2; exit 1; }
if [ $# -ne 2 ]; then
  sed -n '2,12p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//' >&2
  exit 64
fi
version=$1
[ -d "$2" ] || fail "$2 is no folder: create it first"
folder=$(cd "$2" && pwd)
[ -z "$(ls -A "$folder")" ] || fail "$folder is not empty: empty it, or name another one"
command -v npx >/dev/null || fail "npx is needed: install Node.js 20 with npm"

# shellcheck source=deploy/lab/lab.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../lab/lab.sh"

# Logs and a yarn of its own lie here while it works.
lab_init "$folder/.lab"
lab_need_yarn
lab_nocobase_install "$version" "$folder/install"

shopt -s dotglob
mv "$folder"/install/* "$folder"/
rmdir "$folder/install"
rm -rf "$folder/.lab" "$folder/install.lock" "$folder/.env" "$folder/storage"
lab_say "NocoBase $version is fetched"
