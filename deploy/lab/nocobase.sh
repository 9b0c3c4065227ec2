#!/usr/bin/env bash
# nocobase.sh - part of lab.sh: NocoBase from npm, the folders and settings of its nodes, and nodes run by hand.

# lab_nocobase_install VERSION DIR: about 40 s and 1.2 GB. Built beside DIR and renamed when whole, so that DIR either is
# complete (it holds .complete) or does not exist.
lab_nocobase_install() {
  lab_home || return 1
  local version=${1:?version} dir=${2:?folder} partial log
  if [ -f "$dir/.complete" ]; then lab_say "NocoBase $version is in $dir"; return 0; fi
  [ ! -e "$dir" ] || { lab_fail "$dir exists but is no complete installation (no .complete in it): move it away"; return 1; }
  mkdir -p "$(dirname "$dir")" || return 1
  dir=$(cd "$(dirname "$dir")" && pwd)/$(basename "$dir")
  (
    # Two callers at once: the second waits, and then finds it done.
    flock 9
    [ ! -f "$dir/.complete" ] || exit 0
    partial=$dir.partial
    log=$LAB_HOME/log/nocobase-$version
    rm -rf "$partial"
    lab_say "installing NocoBase $version into $dir (1/3: the project folder)"
    lab_logged "$log-create.log" lab_in "$(dirname "$dir")" npx -y "create-nocobase-app@$version" \
      "$(basename "$partial")" -d postgres --skip-dev-dependencies || exit 1
    lab_nocobase_project "$partial" "$version" || exit 1
    lab_say "installing NocoBase $version (2/3: its packages, 1.2 GB)"
    # --ignore-engines: one transitive package claims a later Node than NocoBase itself needs.
    lab_logged "$log-yarn.log" lab_in "$partial" yarn install --production --ignore-engines --non-interactive \
      --network-timeout 600000 || exit 1
    [ -f "$partial/node_modules/@nocobase/app/lib/index.js" ] || { lab_fail "the installation has no app in it"; exit 1; }
    lab_say "installing NocoBase $version (3/3: done, $(du -sh "$partial" | cut -f 1))"
    date -u +%FT%TZ >"$partial/.complete"
    mv -T "$partial" "$dir"
  ) 9>"$dir.lock"
}

# lab_in DIR COMMAND...
lab_in() { (cd "$1" && shift && "$@"); }

# lab_nocobase_project DIR VERSION: a name of its own, xlsx from npm (upstream names an address outside npm), and the two
# settings that the packages' install scripts read.
lab_nocobase_project() {
  node - "$1/package.json" "$2" <<'JS' || return 1
const fs = require("fs"), [file, version] = process.argv.slice(2), project = JSON.parse(fs.readFileSync(file));
project.name = "nocobase-" + version.replace(/[^0-9a-z]/gi, "-");
project.resolutions = { ...project.resolutions, xlsx: "0.18.5" };
fs.writeFileSync(file, JSON.stringify(project, null, 2));
JS
  printf 'APP_ENV=production\nDB_DIALECT=postgres\n' >"$1/.env"
}

# lab_node_folder SRC DST: hard links for the bulk; what a node or an upgrade writes to becomes DST's own: the settings
# the page that every start rewrites, and every package.json that names a version.
lab_node_folder() {
  local src=${1:?source} dst=${2:?destination} partial
  [ ! -f "$dst/.complete" ] || return 0
  [ -f "$src/.complete" ] || { lab_fail "$src is no complete installation"; return 1; }
  [ ! -e "$dst" ] || { lab_fail "$dst exists but is no complete copy: move it away"; return 1; }
  mkdir -p "$(dirname "$dst")" || return 1
  partial=$dst.partial
  rm -rf "$partial"
  # SRC may be a link to the folder.
  src=$(cd "$src" && pwd -P) || return 1
  cp -al "$src" "$partial" || { lab_fail "cannot hard-link $src to $dst: both must lie on one file system"; return 1; }
  rm -rf "$partial/storage"
  lab_unlink "$partial/.env" "$partial/package.json" "$partial"/node_modules/@nocobase/*/package.json \
    "$partial/node_modules/@nocobase/app/dist/client/index.html" || return 1
  mv -T "$partial" "$dst"
}

# lab_node_release SRC NODE VERSION: SRC's code as a release of a node. NODE is the node's folder:
#
#   NODE/.env                    its settings
#   NODE/releases/VERSION/       a version of the code, hard-linked from SRC; its .env leads to the node's
#   NODE/current                 a link to the release that runs; made only when there is none
#
# Nothing that must outlive a release lies in one: storage and logs are elsewhere by the node's settings.
lab_node_release() {
  local src=${1:?source} node=${2:?folder of the node} version=${3:?version} release
  mkdir -p "$node/releases" || return 1
  release=$(cd "$node/releases" && pwd -P)/$version
  lab_node_folder "$src" "$release" || return 1
  # For whoever runs NocoBase's own commands by hand in the release.
  ln -sfn ../../.env "$release/.env" || return 1
  [ -L "$node/current" ] || ln -s "$release" "$node/current"
}

# lab_unlink FILE...: turn hard links into files of their own. Packages that are symbolic links are left alone.
lab_unlink() {
  local file
  for file in "$@"; do
    if [ -f "$file" ] && [ ! -L "$(dirname "$file")" ]; then
      cp -p "$file" "$file.own" && mv "$file.own" "$file" || return 1
    fi
  done
}

# lab_nocobase_next SRC DST VERSION [UP]: the same code under a later version number. Started with --quickstart on SRC's
# database it really upgrades it: NocoBase compares its packages' version with the database's. UP is the body of one more
# migration of a plugin that is always enabled: JavaScript, in which `sql` runs a statement on the app's database.
lab_nocobase_next() {
  local src=${1:?source} dst=${2:?destination} version=${3:?version} up=${4:-}
  [ ! -f "$dst/.complete" ] || return 0
  rm -rf "$dst.next"
  lab_node_folder "$src" "$dst.next" || return 1
  node - "$dst.next/node_modules/@nocobase" "$version" "$up" <<'JS' || return 1
const fs = require("fs"), path = require("path"), [root, version, up] = process.argv.slice(2);
for (const name of fs.readdirSync(root)) {
  const file = path.join(root, name, "package.json");
  if (fs.lstatSync(path.join(root, name)).isSymbolicLink() || !fs.existsSync(file)) continue;
  const own = JSON.parse(fs.readFileSync(file));
  own.version = version;
  fs.writeFileSync(file, JSON.stringify(own, null, 2));
}
// A migration runs once in a database, by its file's name.
const name = `20990101000000-lab-${version.replace(/[^0-9a-z]/gi, "-")}.js`;
if (up) fs.writeFileSync(path.join(root, "plugin-users/dist/server/migrations", name), `
const { Migration } = require("@nocobase/server");
module.exports = { __esModule: true, default: class extends Migration {
  on = "afterSync";
  async up() {
    const sql = (text) => this.db.sequelize.query(text);
    ${up}
  }
} };
`);
JS
  mv -T "$dst.next" "$dst"
}

# lab_nocobase_broken SRC DST VERSION: the same, but its upgrade fails half-way: a new table is there, a row of the table
# lab_words was changed if there is such a table, and the version is still the old one.
lab_nocobase_broken() {
  lab_nocobase_next "$1" "$2" "$3" '
    await sql("create table lab_half (id int)");
    const [found] = await sql("select 1 from information_schema.tables where table_name = \u0027lab_words\u0027");
    if (found.length) await sql("update lab_words set word = concat(\u0027half-way \u0027, word)");
    throw new Error("this release fails half-way");'
}

# lab_fleet_keys FLEET: secrets that all nodes of a fleet share, made once.
lab_fleet_keys() {
  local file=$1/keys.env
  [ ! -f "$file" ] || return 0
  mkdir -p "$1" || return 1
  (
    umask 077
    node -e '
      const key = (bytes) => require("crypto").randomBytes(bytes).toString("hex");
      console.log(`APP_KEY=${key(24)}\nAPP_AES_SECRET_KEY=${key(32)}`);' >"$file.new"
  ) && mv "$file.new" "$file"
}

# lab_env_file FILE FLEET KEY=VALUE...: the .env of one node. FLEET is the fleet's folder (keys, shared storage). Needed:
# APP_PORT, DB_PORT, DB_DATABASE, REDIS_PORT. Any other KEY=VALUE is added and wins over what is written here.
# SOCKET_PATH, PM2_HOME and PGAPPNAME are not set: whoever starts the node gives it its own.
lab_env_file() {
  local file=${1:?file} fleet=${2:?fleet folder} pair key
  shift 2
  local -A set=()
  for pair in "$@"; do set[${pair%%=*}]=${pair#*=}; done
  for key in APP_PORT DB_PORT DB_DATABASE REDIS_PORT; do
    [ -n "${set[$key]:-}" ] || { lab_fail "lab_env_file needs $key=..."; return 1; }
  done
  lab_fleet_keys "$fleet" || return 1
  fleet=$(cd "$fleet" && pwd)
  mkdir -p "$(dirname "$file")" "$fleet/storage/plugins" "$fleet/storage/uploads" || return 1
  local redis=redis://127.0.0.1:${set[REDIS_PORT]}
  unset 'set[REDIS_PORT]'
  rm -f "$file.new"
  # It holds secrets: for its owner only.
  {
    printf '%s\n' APP_ENV=production APP_HOST=127.0.0.1 API_BASE_PATH=/api/ TZ=UTC APP_LAUNCH_MODE=node
    cat "$fleet/keys.env"
    printf '%s\n' DB_DIALECT=postgres DB_HOST=127.0.0.1 "DB_USER=$LAB_DB_USER" "DB_PASSWORD=$LAB_DB_PASSWORD" DB_LOGGING=off
    printf '%s\n' INIT_ROOT_EMAIL=admin@nocobase.com INIT_ROOT_PASSWORD=admin123 INIT_ROOT_USERNAME=nocobase \
      INIT_ROOT_NICKNAME=SuperAdmin
    printf '%s\n' DISABLE_PKG_DOWNLOAD=true CACHE_DEFAULT_STORE=redis "CACHE_REDIS_URL=$redis/0" "REDIS_URL=$redis/4"
    printf '%s\n' "STORAGE_PATH=$fleet/storage" "LOGGER_BASE_PATH=$(cd "$(dirname "$file")" && pwd)/logs"
    for key in "${!set[@]}"; do printf '%s=%s\n' "$key" "${set[$key]}"; done | sort
  } | (umask 077 && lab_last_wins >"$file.new") && mv "$file.new" "$file"
}

# lab_last_wins: of several lines for one key only the last stays.
lab_last_wins() { tac | awk -F= '!seen[$1]++' | tac; }

# ---------------------------------------------------------------- nodes by hand

# lab_node_exec FOLDER ARG...: become the app, in a node's folder or in one that holds code and settings: NocoBase's own
# set-up of its environment, then exactly one process. (`yarn start` would be five, and a signal to the first would leave the
# app running.)
lab_node_exec() {
  local folder=$1 exports; shift
  [ ! -L "$folder/current" ] || folder=$folder/current
  cd "$folder" || return 1
  unset NODE_OPTIONS
  # Values are taken as they stand, without quotes: that is how lab_env_file writes them.
  local line
  while IFS= read -r line; do case $line in [A-Za-z]*=*) export "${line%%=*}=${line#*=}" ;; esac; done <.env
  exports=$(node -e '
    const log = console.log;
    console.log = () => {};
    const util = require(require("path").resolve("node_modules/@nocobase/cli-v1/src/util.js"));
    util.initEnv();
    util.generateAppDir();
    console.log = log;
    const quoted = (text) => "\x27" + text.replace(/\x27/g, "\x27\\\x27\x27") + "\x27";
    for (const key in process.env)
      if (/^[A-Za-z]\w*$/.test(key)) console.log(`export ${key}=${quoted(process.env[key])}`);') || return 1
  eval "$exports"
  exec node "$APP_PACKAGE_ROOT/lib/index.js" "$@"
}

# lab_node_start NAME FOLDER [ARG...]: start a node in the background and return at once. Settings that its .env does not
# hold may stand in the caller's environment.
lab_node_start() {
  lab_home || return 1
  local name=${1:?name} folder=${2:?folder} pid log
  shift 2
  if pid=$(lab_pid "$name"); then lab_say "$name already runs (pid $pid)"; return 0; fi
  log=$LAB_HOME/log/$name.log
  mkdir -p "$LAB_HOME/run/$name"
  (
    export SOCKET_PATH=$LAB_HOME/run/$name/gateway.sock PM2_HOME=$LAB_HOME/run/$name/pm2
    export PGAPPNAME=${PGAPPNAME:-by-hand-$name}
    lab_node_exec "$folder" start "$@"
  ) >"$log" 2>&1 </dev/null &
  lab_remember "$name" $!
}

# lab_health PORT: status and body of a node's health endpoint; 000 while nothing listens.
lab_health() {
  local body status
  body=$(curl -s -m 5 -w '\n%{http_code}' "http://127.0.0.1:$1/api/__health_check" || true)
  status=${body##*$'\n'}
  printf '%s\n%s\n' "$status" "${body%$'\n'*}"
}

# lab_node_wait PORT SECONDS
lab_node_wait() {
  local port=${1:?port} seconds=${2:?seconds} deadline answer
  deadline=$((SECONDS + seconds))
  while :; do
    answer=$(lab_health "$port")
    [ "${answer%%$'\n'*}" != 200 ] || return 0
    [ "$SECONDS" -lt "$deadline" ] || { lab_fail "port $port is not healthy after $seconds s: ${answer:0:300}"; return 1; }
    sleep 0.1
  done
}
