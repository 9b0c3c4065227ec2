#!/usr/bin/env bash
# quickstart.sh - a real three-node NocoBase fleet under Soloist on one machine, loopback only: a private database and Redis,
# three coordinators, three agents, NocoBase from npm, brought up on an empty database in the right order.
#
#   deploy/quickstart.sh [--version 2.2.15] [--dir FOLDER]   bring it all up and say how to use it
#   deploy/quickstart.sh --prepare                           everything but starting coordinators, agents and NocoBase
#   deploy/quickstart.sh --down                              stop everything and remove FOLDER
#
#   --database SERVER   postgres or mariadb              (default: postgres)
#   --dir FOLDER        where everything lives           (default: ./.quickstart in the checkout)
#   --port-offset N     added to every port              (default: 0)
#   --bin FOLDER        where Soloist's programs are     (default: target/release, built when missing)
#   --fleet NAME        name of the fleet                (default: quickstart)
#   --cache FOLDER      where NocoBase is installed once (default: FOLDER of --dir)
#
# Needs root on Debian for the packages that are missing, Node.js 20 with npm, and Rust unless --bin is given.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
fleet=quickstart version=2.2.15 work=$root/.quickstart offset=0 bin='' cache='' mode=up
server=postgres
usage() { sed -n '2,17p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'; }
while [ $# -gt 0 ]; do
  case $1 in
    --version) version=${2:?--version needs a version}; shift ;;
    --database) server=${2:?--database needs postgres or mariadb}; shift ;;
    --dir) work=${2:?--dir needs a folder}; shift ;;
    --port-offset) offset=${2:?--port-offset needs a number}; shift ;;
    --bin) bin=${2:?--bin needs a folder}; shift ;;
    --fleet) fleet=${2:?--fleet needs a name}; shift ;;
    --cache) cache=${2:?--cache needs a folder}; shift ;;
    --prepare) mode=prepare ;;
    --down) mode=down ;;
    -h | --help) usage; exit 0 ;;
    *) printf 'quickstart: unknown option %s\n\n' "$1" >&2; usage >&2; exit 64 ;;
  esac
  shift
done
case $server in
  postgres | mariadb) ;;
  *) printf 'quickstart: --database must be postgres or mariadb, not %s\n' "$server" >&2; exit 64 ;;
esac
[[ $offset =~ ^[0-9]+$ ]] || { printf 'quickstart: --port-offset needs a number, not %s\n' "$offset" >&2; exit 64; }

# shellcheck source=deploy/lab/lab.sh
source "$root/deploy/lab/lab.sh"
say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }

redis_port=$((16379 + offset))
grpc() { echo $((7400 + offset + $1)); }
http() { echo $((7500 + offset + $1)); }
agent() { echo $((7410 + offset + $1)); }
app() { echo $((13000 + offset + $1)); }
members="1 2 3" nodes="1 2 3"
database=nocobase
if [ "$server" = postgres ]; then db_name=PostgreSQL db_port=$((15432 + offset)); else db_name=MariaDB db_port=$((14306 + offset)); fi

stop_all() {
  # Agents first, so that nobody starts an app again; then the apps by their markers, then the rest.
  local n pid
  for n in $nodes; do lab_stop "soloist-agent-$n"; done
  for pid in $(grep -alz "^SOLOIST_NODE=$fleet/" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3); do
    tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -q "^SOLOIST_QUICKSTART=$LAB_HOME$" && kill -KILL "$pid" 2>/dev/null || true
  done
  for n in $members; do lab_stop "soloist-coordinator-$n"; done
  lab_down
}

write_configs() {
  local n list='' endpoints='' config
  for n in $members; do list+="$n = \"127.0.0.1:$(grpc "$n")\"
"; endpoints+="\"127.0.0.1:$(grpc "$n")\", "; done
  mkdir -p "$LAB_HOME/etc" "$LAB_HOME/data"
  for n in $members; do
    cat >"$LAB_HOME/etc/coordinator-$n.toml" <<TOML
id = $n
data = "$LAB_HOME/data/coordinator-$n"
listen = "127.0.0.1:$(grpc "$n")"
http = "127.0.0.1:$(http "$n")"

[members]
$list
TOML
  done
  if [ ! -f "$LAB_HOME/etc/credential" ]; then
    (umask 077; printf 'account = "admin@nocobase.com"\npassword = "admin123"\n' >"$LAB_HOME/etc/credential")
  fi
  for n in $nodes; do
    config=$LAB_HOME/etc/agent-$n.toml
    cat >"$config" <<TOML
fleet = "$fleet"
node = "node-$n"
data_dir = "$LAB_HOME/data/agent-$n"
coordinators = [${endpoints%, }]
http = "127.0.0.1:$(agent "$n")"

[release]
folder = "$LAB_HOME/nodes/node-$n/releases"
current = "$LAB_HOME/nodes/node-$n/current"
fetch = ["$root/deploy/nocobase/fetch-nocobase.sh"]

[app]
profile = "nocobase"
app_folder = "$LAB_HOME/nodes/node-$n/current"
env_file = "$LAB_HOME/nodes/node-$n/.env"
credential = "$LAB_HOME/etc/credential"

[app.env]
SOLOIST_QUICKSTART = "$LAB_HOME"
TOML
  done
}

# The server, and in it an empty database. In MariaDB, where sessions have no names, each node signs in with a login of its own.
database_up() {
  local n
  if [ "$server" = postgres ]; then
    lab_postgres_up "$LAB_HOME/postgres" "$db_port"
    lab_database_create "$database"
    return
  fi
  lab_mariadb_up "$LAB_HOME/mariadb" "$db_port"
  lab_mariadb_database "$db_port" "$database"
  for n in $nodes; do lab_mariadb_user "$db_port" "noco_$n" "$database"; done
}

db_user() { if [ "$server" = postgres ]; then echo "$LAB_DB_USER"; else echo "noco_$1"; fi; }

# Whether the database has no table yet.
database_empty() {
  local found query='select 1 from information_schema.tables where table_schema ='
  if [ "$server" = postgres ]; then
    found=$(lab_sql "$database" "$query current_schema() limit 1" 2>/dev/null)
  else
    found=$(lab_mariadb_sql "$db_port" "$query '$database' limit 1" 2>/dev/null)
  fi
  [ -z "$found" ]
}

start_daemon() { # NAME PROGRAM CONFIG
  if lab_pid "$1" >/dev/null; then lab_say "$1 already runs"; return 0; fi
  setsid "$bin/$2" --config "$3" >>"$LAB_HOME/log/$1.log" 2>&1 </dev/null &
  lab_remember "$1" $!
}

wait_for() { # SECONDS TEXT COMMAND...
  local deadline=$((SECONDS + $1)) text=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $deadline ]; then
      printf 'quickstart: %s did not happen in time; logs are in %s\n' "$text" "$LAB_HOME/log" >&2
      return 1
    fi
    sleep 0.2
  done
}

if [ $mode = down ]; then
  if [ ! -d "$work" ]; then say "there is no $work: nothing to remove"; exit 0; fi
  lab_init "$work"
  say "stopping everything in $LAB_HOME"
  stop_all
  rm -rf "$LAB_HOME"
  say "stopped and removed"
  exit 0
fi

settings=$work/nodes/node-1/.env
if [ -f "$settings" ] && ! grep -qx "DB_DIALECT=$server" "$settings"; then
  printf 'quickstart: the fleet in %s has another database: remove it first with --down, or choose another --dir\n' "$work" >&2
  exit 64
fi

if [ -z "$bin" ]; then
  bin=$root/target/release
  if [ ! -x "$bin/soloist" ] || [ ! -x "$bin/soloist-agent" ] || [ ! -x "$bin/soloist-coordinator" ]; then
    say "building Soloist (about four minutes, once)"
    (cd "$root" && cargo build --release)
  fi
fi
bin=$(cd "$bin" && pwd)

lab_init "$work"
cache=${cache:-$LAB_HOME}
say "packages"
lab_need_packages "$server"
lab_need_yarn
say "NocoBase $version from npm (about a minute and 1.2 GB, once)"
lab_nocobase_install "$version" "$cache/nocobase/$version"
for n in $nodes; do lab_node_release "$cache/nocobase/$version" "$LAB_HOME/nodes/node-$n" "$version"; done
say "$db_name on 127.0.0.1:$db_port and Redis on 127.0.0.1:$redis_port"
database_up
lab_redis_up "$LAB_HOME/redis" "$redis_port"
for n in $nodes; do
  lab_env_file "$LAB_HOME/nodes/node-$n/.env" "$LAB_HOME/fleet" "APP_PORT=$(app "$n")" "DB_DIALECT=$server" "DB_PORT=$db_port" \
    "DB_DATABASE=$database" "DB_USER=$(db_user "$n")" "REDIS_PORT=$redis_port"
done
write_configs
[ $mode = prepare ] && exit 0

say "three coordinators and three agents"
for n in $members; do start_daemon "soloist-coordinator-$n" soloist-coordinator "$LAB_HOME/etc/coordinator-$n.toml"; done
for n in $nodes; do start_daemon "soloist-agent-$n" soloist-agent "$LAB_HOME/etc/agent-$n.toml"; done
SOLOIST_ENDPOINTS=127.0.0.1:$(grpc 1),127.0.0.1:$(grpc 2),127.0.0.1:$(grpc 3)
export SOLOIST_ENDPOINTS SOLOIST_FLEET=$fleet
enrolled() { "$bin/soloist" node list -o json | grep -c '"node"' | grep -q '^3$'; }
wait_for 60 "the enrolment of three agents" enrolled

if database_empty; then
  say "first start on an empty database: one node installs, then the others"
  "$bin/soloist" start --install --nodes node-1,node-2,node-3
else
  say "start"
  "$bin/soloist" start
fi
"$bin/soloist" status
cat <<TEXT

NocoBase runs on
  http://127.0.0.1:$(app 1)/   http://127.0.0.1:$(app 2)/   http://127.0.0.1:$(app 3)/
  account admin@nocobase.com, password admin123

Talk to the fleet:
  export SOLOIST_ENDPOINTS=$SOLOIST_ENDPOINTS SOLOIST_FLEET=$fleet PATH=$bin:\$PATH
  soloist status --follow
  soloist plugin enable @nocobase/plugin-map
  soloist run --solo -- curl -s http://127.0.0.1:$(app 1)/api/app:getInfo
Remove it all:
  $root/deploy/quickstart.sh --dir $LAB_HOME --port-offset $offset --down
TEXT
