#!/usr/bin/env bash
# services.sh - part of lab.sh: a private PostgreSQL, MariaDB and Redis, on 127.0.0.1 only, with their data in a folder
# that the caller names. None is the distribution's service.

# The login role of the fleets' databases. Superuser: NocoBase's backup and restore want it, and the cluster is private.
LAB_DB_USER=noco
LAB_DB_PASSWORD=noco
# Each syncs files before it answers, while other fleets keep processors and disk busy: within 30 s one was not there in a test.
LAB_SERVICE_SECONDS=120

# lab_as_postgres DIR COMMAND...: PostgreSQL refuses to run as root, so root becomes the user postgres for it.
lab_as_postgres() {
  local dir=$1; shift
  if [ "$(id -u)" = 0 ]; then (cd "$dir" && runuser -u postgres -- "$@"); else (cd "$dir" && "$@"); fi
}

# lab_service_name KIND DIR: a name for WORK/run, made from the folder.
lab_service_name() { echo "$1-$(basename "$2")"; }

# lab_postgres_up DIR PORT: a cluster in DIR/data that trusts everyone on 127.0.0.1:PORT.
lab_postgres_up() {
  lab_home || return 1
  local dir=${1:?folder} port=${2:?port} bin name
  bin=$(lab_postgres_bin) || { lab_fail "PostgreSQL is not installed: call lab_need_packages"; return 1; }
  mkdir -p "$dir" || return 1
  dir=$(cd "$dir" && pwd)
  name=$(lab_service_name postgres "$dir")
  [ "$(id -u)" != 0 ] || chown postgres "$dir"
  lab_as_postgres "$dir" test -w . ||
    { lab_fail "the user postgres cannot reach $dir: choose a work folder that others may enter"; return 1; }
  if [ ! -f "$dir/data/PG_VERSION" ]; then
    lab_logged "$LAB_HOME/log/$name-initdb.log" lab_as_postgres "$dir" \
      "$bin/initdb" -D "$dir/data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 || return 1
  fi
  if ! lab_as_postgres "$dir" "$bin/pg_ctl" -D "$dir/data" status >/dev/null 2>&1; then
    # No socket file: its path has a length limit that a deep work folder would break.
    lab_as_postgres "$dir" "$bin/pg_ctl" -D "$dir/data" -l "$dir/server.log" -w -t "$LAB_SERVICE_SECONDS" -o \
      "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=300" start \
      >"$LAB_HOME/log/$name-start.log" 2>&1 ||
      { lab_fail_with "PostgreSQL did not start on port $port" "$LAB_HOME/log/$name-start.log" "$dir/server.log"; return 1; }
  fi
  lab_remember "$name" "$(head -n 1 "$dir/data/postmaster.pid")" || return 1
  echo "$dir" >"$LAB_HOME/run/$name.dir"
  echo "$port" >"$LAB_HOME/run/postgres.port"
  if [ "$(lab_sql postgres "select count(*) from pg_roles where rolname = '$LAB_DB_USER'")" = 0 ]; then
    lab_sql postgres "create role $LAB_DB_USER login superuser password '$LAB_DB_PASSWORD'" >/dev/null || return 1
  fi
}

# lab_postgres_down DIR
lab_postgres_down() {
  lab_home || return 1
  local dir=${1:?folder} bin name
  name=$(lab_service_name postgres "$dir")
  bin=$(lab_postgres_bin) || return 0
  if [ -f "$dir/data/postmaster.pid" ]; then
    lab_as_postgres "$dir" "$bin/pg_ctl" -D "$dir/data" -m fast -w -t "$LAB_SERVICE_SECONDS" stop >/dev/null 2>&1 ||
      lab_as_postgres "$dir" "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null 2>&1 || true
  fi
  rm -f "$LAB_HOME/run/$name.pid" "$LAB_HOME/run/$name.dir"
}

# lab_redis_up DIR PORT: nothing is kept on disk.
lab_redis_up() {
  lab_home || return 1
  local dir=${1:?folder} port=${2:?port} name deadline
  command -v redis-server >/dev/null || { lab_fail "Redis is not installed: call lab_need_packages"; return 1; }
  mkdir -p "$dir" || return 1
  dir=$(cd "$dir" && pwd)
  name=$(lab_service_name redis "$dir")
  if ! lab_pid "$name" >/dev/null; then
    # The end of an old log would be taken for the new one.
    rm -f "$dir/redis.pid" "$dir/redis.log"
    redis-server --bind 127.0.0.1 --port "$port" --dir "$dir" --daemonize yes --pidfile "$dir/redis.pid" \
      --save '' --appendonly no --logfile "$dir/redis.log" >/dev/null
    deadline=$((SECONDS + LAB_SERVICE_SECONDS))
    until [ -s "$dir/redis.pid" ] && lab_remember "$name" "$(cat "$dir/redis.pid")" 2>/dev/null; do
      if [ "$SECONDS" -ge "$deadline" ] || grep -q 'Failed listening on port' "$dir/redis.log" 2>/dev/null; then
        lab_fail_with "Redis did not start on port $port" "$dir/redis.log"
        return 1
      fi
      sleep 0.05
    done
  fi
  deadline=$((SECONDS + LAB_SERVICE_SECONDS))
  until [ "$(redis-cli -h 127.0.0.1 -p "$port" ping 2>/dev/null)" = PONG ]; do
    [ "$SECONDS" -lt "$deadline" ] || { lab_fail "Redis on port $port does not answer"; return 1; }
    sleep 0.05
  done
}

# lab_redis_down DIR
lab_redis_down() { lab_home || return 1; lab_stop "$(lab_service_name redis "${1:?folder}")"; }

# lab_mariadb_up DIR PORT: a server with its data in DIR/data. LAB_DB_USER may do everything in it.
lab_mariadb_up() {
  lab_home || return 1
  local dir=${1:?folder} port=${2:?port} name install deadline as=()
  install=$(command -v mariadb-install-db) || { lab_fail "MariaDB is not installed: call lab_need_mariadb"; return 1; }
  mkdir -p "$dir" || return 1
  dir=$(cd "$dir" && pwd)
  name=$(lab_service_name mariadb "$dir")
  if [ "$(id -u)" = 0 ]; then
    as=(--user=mysql)
    chown mysql "$dir"
    runuser -u mysql -- test -w "$dir" ||
      { lab_fail "the user mysql cannot reach $dir: choose a work folder that others may enter"; return 1; }
  fi
  if [ ! -f "$dir/data/.complete" ]; then
    rm -rf "$dir/data"
    lab_logged "$LAB_HOME/log/$name-install.log" "$install" --no-defaults ${as[@]+"${as[@]}"} --datadir="$dir/data" \
      --auth-root-authentication-method=normal --skip-test-db || return 1
    touch "$dir/data/.complete"
  fi
  if ! lab_pid "$name" >/dev/null; then
    printf '%s\n' "create user if not exists '$LAB_DB_USER'@'%' identified by '$LAB_DB_PASSWORD';" \
      "grant all on *.* to '$LAB_DB_USER'@'%' with grant option;" >"$dir/init.sql"
    chmod 644 "$dir/init.sql"
    # The socket's path is relative to the data: it has a length limit that a deep work folder would break.
    # With the performance schema a session's attributes can be asked for: the driver or the program that opened it.
    mariadbd --no-defaults ${as[@]+"${as[@]}"} --datadir="$dir/data" --bind-address=127.0.0.1 --port="$port" \
      --socket=mariadb.sock --skip-name-resolve --performance-schema=ON --max-connections=300 --init-file="$dir/init.sql" \
      </dev/null >"$dir/server.log" 2>&1 &
    lab_remember "$name" $! || return 1
  fi
  deadline=$((SECONDS + LAB_SERVICE_SECONDS))
  until lab_mariadb_sql "$port" 'select 1' >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$deadline" ] || ! lab_pid "$name" >/dev/null; then
      lab_fail_with "MariaDB did not start on port $port" "$dir/server.log"
      return 1
    fi
    sleep 0.05
  done
}

# lab_mariadb_down DIR
lab_mariadb_down() { lab_home || return 1; lab_stop "$(lab_service_name mariadb "${1:?folder}")"; }

# lab_mariadb_sql PORT SQL: statements as the role of the fleets' databases; columns are separated by tabs.
lab_mariadb_sql() {
  MYSQL_PWD=$LAB_DB_PASSWORD mariadb --no-defaults --protocol=tcp -h 127.0.0.1 -P "${1:?port}" -u "$LAB_DB_USER" -N -B \
    -e "${2:?statement}"
}

# lab_mariadb_database PORT NAME: an empty database; one that is there already stays as it is.
lab_mariadb_database() {
  lab_database_name "$2" || return 1
  lab_mariadb_sql "$1" "create database if not exists \`$2\` character set utf8mb4"
}

# lab_mariadb_user PORT NAME DATABASE: a login with the password of the fleets' role, that may do everything in one database
# and in those whose names begin alike: a backup may be tried out in one.
lab_mariadb_user() {
  lab_database_name "$3" || return 1
  lab_mariadb_sql "$1" "create user if not exists '$2'@'%' identified by '$LAB_DB_PASSWORD'; grant all on \`$3%\`.* to '$2'@'%'"
}

# ---------------------------------------------------------------- databases
# They live in the cluster that lab_postgres_up brought up last in this work folder.

# lab_sql DATABASE SQL: one statement as the superuser; rows come out unaligned, columns separated by |.
lab_sql() {
  lab_home || return 1
  local port
  port=$(cat "$LAB_HOME/run/postgres.port" 2>/dev/null) || { lab_fail "no PostgreSQL here: call lab_postgres_up"; return 1; }
  psql -X -q -At -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U postgres -d "${1:?database}" -c "${2:?statement}"
}

lab_database_name() {
  case ${1:?database} in *[!a-z0-9_]*) lab_fail "a database name here is made of a-z, 0-9 and _: $1" ;; esac
}

# lab_database_create NAME: an empty database; one that is there already stays as it is.
lab_database_create() {
  lab_database_name "$1" || return 1
  [ "$(lab_sql postgres "select count(*) from pg_database where datname = '$1'")" = 0 ] || return 0
  lab_sql postgres "create database $1 owner $LAB_DB_USER"
}

# lab_database_drop NAME: with whatever is connected to it.
lab_database_drop() {
  lab_database_name "$1" || return 1
  PGOPTIONS='-c client_min_messages=warning' lab_sql postgres "drop database if exists $1 with (force)"
}
