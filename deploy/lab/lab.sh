#!/usr/bin/env bash
# lab.sh - a shell library that brings up a whole NocoBase fleet on one machine: Debian packages, a private PostgreSQL or
# MariaDB and a private Redis on 127.0.0.1, a real NocoBase from npm, and one folder per node. It is sourced by the quick
# start and by the tests with the real NocoBase; it knows nothing of Soloist.
#
#   source deploy/lab/lab.sh
#   lab_init WORK                          everything below lives under the folder WORK (created when missing)
#   lab_need_packages [DATABASE]           Redis, curl, and PostgreSQL or the DATABASE mariadb: installed only when missing,
#                                          their services left off
#   lab_need_mariadb                       MariaDB alone, likewise
#   lab_need_yarn                          yarn 1.x, in WORK/tools when the machine has none
#   lab_postgres_up DIR PORT               services.sh: a private cluster; lab_postgres_down DIR
#   lab_redis_up DIR PORT                  services.sh: a private Redis; lab_redis_down DIR
#   lab_mariadb_up DIR PORT                services.sh: a private MariaDB; lab_mariadb_down DIR; lab_mariadb_sql PORT SQL
#   lab_mariadb_database PORT NAME         services.sh: an empty database there
#   lab_mariadb_user PORT NAME DATABASE    services.sh: a login of its own for one node
#   lab_database_create NAME               services.sh: an empty database in PostgreSQL; lab_database_drop NAME;
#                                          lab_sql NAME SQL
#   lab_nocobase_install VERSION DIR       nocobase.sh: NocoBase from npm (about 40 s and 1.2 GB, once)
#   lab_nocobase_next SRC DST VERSION      nocobase.sh: SRC again under a later version number, for upgrades
#   lab_nocobase_broken SRC DST VERSION    nocobase.sh: one whose upgrade fails half-way
#   lab_node_release SRC NODE VERSION      nocobase.sh: a version of the code in a node's folder, hard-linked
#   lab_node_folder SRC DST                nocobase.sh: a code folder without a node around it, hard-linked
#   lab_env_file FILE FLEET KEY=VALUE...   nocobase.sh: the .env of one node
#   lab_node_start NAME FOLDER [ARG...]    nocobase.sh: one node by hand, as an operator without Soloist would
#   lab_node_wait PORT SECONDS             nocobase.sh: until its health endpoint says 200
#   lab_stop NAME, lab_down                stop one, stop all that this work folder started
#
# Every function may be called again: what is there stays, what runs keeps running.

set -euo pipefail

LAB_SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# How long a stopped process may take before SIGKILL.
LAB_STOP_SECONDS=${LAB_STOP_SECONDS:-30}
LAB_YARN_VERSION=1.22.22

lab_say() { printf 'lab: %s\n' "$*" >&2; }
lab_fail() { printf 'lab: error: %s\n' "$*" >&2; return 1; }

# lab_fail_with MESSAGE FILE...: the end of each file comes before the message, which fails and so ends whoever has set -e.
lab_fail_with() {
  local message=$1 file; shift
  for file in "$@"; do
    lab_say "the end of $file:"
    tail -n 8 "$file" >&2 || true
  done
  lab_fail "$message"
}

# lab_init WORK: choose the work folder.
lab_init() {
  local work=${1:?lab_init needs the work folder}
  mkdir -p "$work/run" "$work/log" || return 1
  LAB_HOME=$(cd "$work" && pwd)
  export LAB_HOME
}

lab_home() { [ -n "${LAB_HOME:-}" ] || lab_fail "call lab_init WORK first"; }

# lab_logged LOG COMMAND...: run the command with its output in LOG; on failure show the end of it.
lab_logged() {
  local log=$1; shift
  mkdir -p "$(dirname "$log")"
  "$@" >"$log" 2>&1 && return 0
  local status=$?
  lab_say "failed with status $status: $*"
  lab_say "the end of $log:"
  tail -n 25 "$log" >&2
  return "$status"
}

# ---------------------------------------------------------------- packages

# Where Debian keeps PostgreSQL's server programs (they are not on the PATH).
lab_postgres_bin() {
  local bin
  bin=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -type d -name bin 2>/dev/null | sort -V | tail -n 1)
  if [ -n "$bin" ] && [ -x "$bin/initdb" ]; then echo "$bin"; return 0; fi
  bin=$(command -v initdb) && dirname "$bin"
}

# lab_need_packages [DATABASE]: install what is missing, with the server postgres (the default) or mariadb. The
# distribution's own services are neither started nor left enabled.
lab_need_packages() {
  local missing=() database=${1:-postgres}
  [ "$database" != postgres ] || lab_postgres_bin >/dev/null || missing+=(postgresql)
  command -v redis-server >/dev/null && command -v redis-cli >/dev/null || missing+=(redis-server)
  command -v curl >/dev/null || missing+=(curl)
  command -v flock >/dev/null || missing+=(util-linux)
  command -v node >/dev/null || { lab_fail "Node.js 20 or later with npm is needed: install it first"; return 1; }
  command -v npx >/dev/null || { lab_fail "npx is needed: it comes with npm"; return 1; }
  lab_install ${missing[@]+"${missing[@]}"} || return 1
  [ "$database" != mariadb ] || lab_need_mariadb
}

# lab_need_mariadb: its server and its client, when they are missing; the service is left off.
lab_need_mariadb() {
  local missing=()
  command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null || missing+=(mariadb-server)
  command -v mariadb >/dev/null && command -v mariadb-dump >/dev/null || missing+=(mariadb-client)
  lab_install ${missing[@]+"${missing[@]}"}
}

# lab_install PACKAGE...: from Debian, without starting what is a service.
lab_install() {
  local missing=("$@")
  [ ${#missing[@]} -eq 0 ] && return 0
  lab_home || return 1
  [ "$(id -u)" = 0 ] || { lab_fail "these packages are missing, and only root can install them: ${missing[*]}"; return 1; }
  command -v apt-get >/dev/null || { lab_fail "no apt-get here; install these yourself: ${missing[*]}"; return 1; }
  lab_say "installing ${missing[*]}"
  lab_logged "$LAB_HOME/log/apt-update.log" apt-get update || return 1
  lab_without_services lab_logged "$LAB_HOME/log/apt-install.log" \
    env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" || return 1
  if command -v systemctl >/dev/null; then
    local package
    for package in "${missing[@]}"; do
      # mariadb-server has the service mariadb.
      systemctl disable "${package/mariadb-server/mariadb}" >/dev/null 2>&1 || true
    done
  fi
}

# lab_without_services COMMAND...: Debian asks /usr/sbin/policy-rc.d before it starts a service; 101 means "do not".
lab_without_services() {
  local policy=/usr/sbin/policy-rc.d ours=no status=0
  if [ ! -e "$policy" ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  "$@" || status=$?
  [ "$ours" = no ] || rm -f "$policy"
  return "$status"
}

# lab_need_yarn: NocoBase is installed with yarn 1.x; a private copy goes to WORK/tools.
lab_need_yarn() {
  lab_home || return 1
  local private=$LAB_HOME/tools/node_modules/.bin
  case "$(yarn --version 2>/dev/null || true)" in 1.*) return 0 ;; esac
  if [ ! -x "$private/yarn" ]; then
    lab_say "installing yarn $LAB_YARN_VERSION into $LAB_HOME/tools"
    mkdir -p "$LAB_HOME/tools"
    lab_logged "$LAB_HOME/log/yarn-itself.log" \
      npm install --prefix "$LAB_HOME/tools" --no-audit --no-fund "yarn@$LAB_YARN_VERSION" || return 1
  fi
  case ":$PATH:" in *":$private:"*) ;; *) export PATH="$private:$PATH" ;; esac
}

# ---------------------------------------------------------------- processes
# WORK/run/NAME.pid holds "PID START": a process is known by its number and its start time, never by its number alone.

# lab_start_time PID: field 22 of /proc/PID/stat, counted after the name, which may hold spaces. Fails for a zombie.
lab_start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # shellcheck disable=SC2086 # the fields are meant to be split
  set -- ${stat##*) }
  [ "$1" != Z ] && [ "$1" != X ] && echo "${20}"
}

# lab_remember NAME PID
lab_remember() {
  local start
  start=$(lab_start_time "$2") || { lab_fail "$1 (pid $2) is already gone"; return 1; }
  echo "$2 $start" >"$LAB_HOME/run/$1.pid"
}

# lab_pid NAME: prints the pid when that very process still runs.
lab_pid() {
  local pid start
  [ -f "$LAB_HOME/run/$1.pid" ] || return 1
  read -r pid start <"$LAB_HOME/run/$1.pid" || return 1
  [ "$(lab_start_time "$pid")" = "$start" ] && echo "$pid"
}

# lab_stop NAME: SIGTERM, wait, SIGKILL.
lab_stop() {
  lab_home || return 1
  local name=$1 pid deadline
  if pid=$(lab_pid "$name"); then
    kill -TERM "$pid" 2>/dev/null || true
    deadline=$((SECONDS + LAB_STOP_SECONDS))
    while lab_pid "$name" >/dev/null; do
      if [ "$SECONDS" -ge "$deadline" ]; then
        lab_say "$name (pid $pid) did not stop within $LAB_STOP_SECONDS s: SIGKILL"
        kill -KILL "$pid" 2>/dev/null || true
        deadline=$((SECONDS + LAB_STOP_SECONDS))
      fi
      sleep 0.05
    done
  fi
  rm -f "$LAB_HOME/run/$name.pid"
}

# lab_down: stop everything that this work folder started: nodes first, then Redis and the databases.
lab_down() {
  lab_home || return 1
  local file name services=()
  for file in "$LAB_HOME"/run/*.pid; do
    [ -e "$file" ] || continue
    name=$(basename "$file" .pid)
    case $name in redis-* | postgres-* | mariadb-*) services+=("$name") ;; *) lab_stop "$name" ;; esac
  done
  for name in ${services[@]+"${services[@]}"}; do
    case $name in
      postgres-*) lab_postgres_down "$(cat "$LAB_HOME/run/$name.dir")" ;;
      *) lab_stop "$name" ;;
    esac
  done
}

# shellcheck source=services.sh
source "$LAB_SOURCE/services.sh"
# shellcheck source=nocobase.sh
source "$LAB_SOURCE/nocobase.sh"
