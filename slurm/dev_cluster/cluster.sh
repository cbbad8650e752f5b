#!/usr/bin/env bash
# A real Slurm with accounting on this one machine: munged, mariadbd, slurmdbd, slurmctld and a few slurmd.
#
#   slurm/dev_cluster/cluster.sh start|stop|purge|status|env
#
# Runs as root or as an ordinary user; everything it writes is in one folder, so several can run side by side.
#   DEV_CLUSTER_DIR    its folder        (.dev_cluster in the repository)
#   DEV_CLUSTER_PORT   first of 20 ports (27000)
#   DEV_CLUSTER_NODES  slurmd            (2)      DEV_CLUSTER_CPUS  per node (2)      DEV_CLUSTER_MEMORY_MB  per node (8000)
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
D=${DEV_CLUSTER_DIR:-$(dirname "$(dirname "$HERE")")/.dev_cluster}
mkdir -p "$(dirname "$D")"
D=$(cd "$(dirname "$D")" && pwd)/$(basename "$D")
PORT=${DEV_CLUSTER_PORT:-27000} NODES=${DEV_CLUSTER_NODES:-2} CPUS=${DEV_CLUSTER_CPUS:-2}
HOST_MB=$(awk '/^MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
MEMORY_MB=${DEV_CLUSTER_MEMORY_MB:-$((HOST_MB < 8000 ? HOST_MB : 8000))}
PACKAGES="slurm-wlm munge slurmdbd slurm-wlm-mysql-plugin mariadb-server"
PATH=$PATH:/usr/sbin:/sbin
export SLURM_CONF=$D/etc/slurm.conf

fail() { echo "error: $*" >&2; exit 2; }

require_programs() {
    local missing=()
    for program in munged mariadbd mariadb mariadb-admin mariadb-install-db slurmctld slurmd slurmdbd sbatch; do
        command -v "$program" >/dev/null || missing+=("$program")
    done
    compgen -G "/usr/lib*/*/slurm*/accounting_storage_mysql.so" >/dev/null ||
        compgen -G "/usr/lib*/slurm*/accounting_storage_mysql.so" >/dev/null || missing+=(accounting_storage_mysql.so)
    [ ${#missing[@]} -eq 0 ] || fail "a Slurm on this host needs ${missing[*]}; on Debian: apt-get install $PACKAGES"
    [ ${#D} -le 80 ] || fail "$D is too long a path for Unix sockets (80 characters at most): set DEV_CLUSTER_DIR"
}

# alive PIDFILE: the process is there and is that daemon (a number may have been given to another process since)
alive() {
    local daemon=${1##*/}
    [ -s "$1" ] && [ "$(cat "/proc/$(cat "$1")/comm" 2>/dev/null)" = "${daemon%%.*}" ]
}

wait_for() {  # wait_for SECONDS COMMAND...
    local tries=$(($1 * 5)); shift
    for _ in $(seq "$tries"); do "$@" >/dev/null 2>&1 && return 0; sleep 0.2; done
    echo "error: timed out waiting for: $*  (logs: $D/log)" >&2; return 1
}

fill() {  # fill NAME: template -> etc/NAME
    sed -e "s|@DIR@|$D|g" -e "s|@HOST@|$(hostname -s)|g" -e "s|@USER@|$(id -un)|g" -e "s|@NODES@|$NODES|g" \
        -e "s|@CPUS@|$CPUS|g" -e "s|@MEMORY_MB@|$MEMORY_MB|g" -e "s|@PORT_CTLD@|$PORT|g" \
        -e "s|@PORT_DBD@|$((PORT + 1))|g" -e "s|@PORT_DATABASE@|$((PORT + 2))|g" \
        -e "s|@PORT_FIRST_NODE@|$((PORT + 11))|g" -e "s|@PORT_LAST_NODE@|$((PORT + 10 + NODES))|g" \
        "$HERE/$1.template" > "$D/etc/$1"
}

configure() {
    mkdir -p "$D"/{etc,run,log,state,spool,db}
    chmod 755 "$D" "$D/etc" "$D/run"
    [ -s "$D/etc/munge.key" ] || (umask 077; head -c 1024 /dev/urandom > "$D/etc/munge.key")
    fill slurm.conf
    fill gres.conf
    (umask 077; fill slurmdbd.conf)
    echo "CgroupAutomount=no" > "$D/etc/cgroup.conf"
}

start_munge() {
    alive "$D/run/munged.pid" && return
    rm -f "$D"/run/munge.socket*
    munged --key-file="$D/etc/munge.key" --socket="$D/run/munge.socket" --pid-file="$D/run/munged.pid" \
        --log-file="$D/log/munged.log" --seed-file="$D/state/munge.seed" --num-threads=2
}

sql() { mariadb --no-defaults --socket="$D/run/mariadb.sock" -uroot "$@"; }

start_database() {
    alive "$D/run/mariadbd.pid" && return
    [ -d "$D/db/mysql" ] || mariadb-install-db --no-defaults --datadir="$D/db" --user="$(id -un)" \
        --auth-root-authentication-method=normal --skip-test-db > "$D/log/mariadb-install.log" 2>&1
    setsid mariadbd --no-defaults --user="$(id -un)" --datadir="$D/db" --socket="$D/run/mariadb.sock" \
        --bind-address=127.0.0.1 --port=$((PORT + 2)) --pid-file="$D/run/mariadbd.pid" \
        --innodb-buffer-pool-size=64M --innodb-log-file-size=16M --innodb-lock-wait-timeout=900 \
        --innodb-flush-log-at-trx-commit=0 --skip-log-bin > "$D/log/mariadbd.log" 2>&1 < /dev/null &
    wait_for 60 mariadb-admin --no-defaults --socket="$D/run/mariadb.sock" -uroot ping
    sql -e "create database if not exists slurm_acct"
    for host in 127.0.0.1 localhost; do
        sql -e "create user if not exists slurm@'$host' identified by 'slurm'; grant all on slurm_acct.* to slurm@'$host'"
    done
}

# A node that was drained, or marked down by an earlier stop, comes back only when it is resumed.
nodes_ready() {
    [ "$(sinfo -h -N -p main -o %t | grep -cE '^(idle|mix|alloc)$')" = "$NODES" ] && return
    scontrol update "nodename=n[1-$NODES]" state=resume
    return 1
}

start() {
    require_programs
    configure
    exec 9> "$D/run/lock"; flock 9
    start_munge 9>&-
    start_database 9>&-
    alive "$D/run/slurmdbd.pid" || slurmdbd 9>&-
    wait_for 60 sacctmgr -n show cluster
    alive "$D/run/slurmctld.pid" || slurmctld 9>&-
    wait_for 30 scontrol ping
    for i in $(seq "$NODES"); do alive "$D/run/slurmd.n$i.pid" || slurmd -N "n$i" 9>&-; done
    wait_for 30 nodes_ready
    sinfo
}

end_daemon() {
    alive "$1" || return 0
    local pid; pid=$(cat "$1")
    kill "$pid"
    for _ in $(seq 150); do [ -d "/proc/$pid" ] || return 0; sleep 0.1; done
    echo "warning: ${1##*/} $pid has not ended yet" >&2
}

queue_empty() { [ -z "$(squeue -h)" ]; }

stop() {
    if alive "$D/run/slurmctld.pid"; then  # the steps of a job outlive their slurmd: end them first
        timeout 10 squeue -h -o %A | sort -u | xargs -r timeout 10 scancel || true
        wait_for 30 queue_empty || true
    fi
    for daemon in "$D"/run/slurmd.*.pid "$D"/run/{slurmctld,slurmdbd,mariadbd,munged}.pid; do end_daemon "$daemon"; done
}

status() {
    [ -d "$D/run" ] || { echo "no dev cluster in $D"; return 1; }
    local down=0
    for daemon in "$D"/run/*.pid; do
        [ -e "$daemon" ] || { echo "stopped"; return 1; }
        if alive "$daemon"; then echo "up    $(basename "$daemon" .pid)"; else echo "down  $(basename "$daemon" .pid)"; down=1; fi
    done
    [ "$down" = 0 ] && sinfo -N
}

case ${1:-} in
start) start ;;
stop) [ -d "$D/run" ] && stop || echo "no dev cluster in $D" ;;
purge)
    [ -f "$D/etc/slurm.conf" ] || { echo "no dev cluster in $D"; exit 0; }
    stop
    rm -rf "${D:?}"/{etc,run,log,state,spool,db} ;;
status) status ;;
env) echo "export SLURM_CONF=$D/etc/slurm.conf" ;;
*) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
