#!/bin/bash
# The dead-man's switch: powers this machine off once its operator has been silent for too long.
#
# A process of its own, which outlives the agent and every connection. Only an operator's beat resets it. Time is
# the machine's uptime, so that a clock that is set changes nothing. Where there is systemd, that starts it again
# when it is killed, and after a reboot; elsewhere it is two processes, each of which starts the other.
#
#     arm TTL COMMAND     install it and start it; TTL 0 has it wait without end, and without a COMMAND the one of
#                         before stays
#     listen TTL COMMAND  the same, then beat, and again for each line of standard input, the TTL from now on
#     keep, watch         what runs
#
# It comes as text in $script: over SSH on standard input, and at boot in the machine's user-data. It answers
#
#     ::armed KEEPER               systemd or processes
#     ::failed KIND MESSAGE        KIND is rejected (will fail again) or transient
#     ok                           to each beat
#
# A machine that is processes of somebody's computer says so by SKYWARD_VM. There it never asks for root, never
# touches systemd, and knows one way to end: the machine's own. Nobody's laptop is powered off.

set -u
umask 077
PATH=$PATH:/usr/sbin:/sbin
LOOKS=6         # expired so often in a row: a machine that was suspended hears its operator first
FORCE_AFTER=12  # looks until a power-off that hangs is done by force
unit=skyward-deadman
prefix=${SKYWARD_DEADMAN_PREFIX:-}  # tests put a whole file system below a folder
become=         # how a command is run as root
is_prepared=no  # root armed it at boot, and the user of the connection may not become root

failed() { # KIND MESSAGE
    printf '::failed %s %s\n' "$1" "$2"
    exit 1
}

is_number() {
    case $1 in '' | *[!0-9]* | 0?*) return 1 ;; esac
    [ ${#1} -le 9 ]
}

as_root() {
    $become "$@"
}

can_be_root() {
    [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null && become="sudo -n"; }
}

# Sets kept (what stays after a reboot), ran (what does not) and command.
find_place() {
    if [ -n "${SKYWARD_VM:-}" ]; then
        command=skyward-power-off
        kept=$HOME/.skyward/deadman ran=$kept
        return
    fi
    kept=$prefix/var/lib/$unit ran=$prefix/run/$unit
    if ! can_be_root; then
        [ -p "$ran/beats" ] && is_prepared=yes && return
        failed rejected "user $(id -un) may not become root, so the machine cannot power itself off"
    fi
}

arm() { # TTL COMMAND
    command=$2
    is_number "$1" || failed rejected "$1 is no number of seconds"
    find_place
    : "${command:=$(as_root cat "$kept/command" 2>/dev/null)}"
    [ -n "$command" ] || failed transient "it is not known what powers this machine off"
    if [ $is_prepared = no ]; then
        command -v "${command%% *}" >/dev/null || failed rejected "there is no ${command%% *} on this machine"
        install "$1"
    fi
    start || failed transient "the dead-man's switch does not start"
    [ "$what" = arm ] || beat "$1"
}

install() { # TTL
    as_root mkdir -p "$kept" "$ran" && as_root chmod 755 "$kept" "$ran" || failed transient "cannot make $kept"
    if [ ! -p "$ran/beats" ]; then
        as_root mkfifo "$ran/beats" 2>/dev/null || [ -p "$ran/beats" ] || failed transient "cannot make $ran/beats"
    fi
    # Whoever may log in may beat; who does so with bad intent spends the account's money, which is theirs to spend.
    as_root chmod 666 "$ran/beats"
    # The first boot comes last where an operator has connected before it was through: that one knows better.
    [ "$what" = arm ] && as_root test -e "$kept/ttl" || keep_file ttl "$1"
    keep_file command "$command"
    if [ "$(as_root cat "$kept/deadman.sh" 2>/dev/null)" != "$script" ]; then
        keep_file deadman.sh "$script"
        ! runs || printf 'reload\n' 1<>"$ran/beats"
    fi
}

keep_file() { # NAME TEXT
    [ "$(as_root cat "$kept/$1" 2>/dev/null)" != "$2" ] || return 0
    local part=$kept/$1.part.$$  # the first boot and a connection may come together
    printf '%s\n' "$2" | as_root tee "$part" >/dev/null && as_root mv "$part" "$kept/$1" ||
        failed transient "cannot write $kept/$1: is the disk full?"
}

has_systemd() {
    [ -z "${SKYWARD_VM:-}" ] && [ -d "$prefix/run/systemd/system" ] && command -v systemctl >/dev/null
}

keeper() {
    if has_systemd; then echo systemd; else echo processes; fi
}

runs() {
    if has_systemd; then
        systemctl is-active --quiet $unit
    elif command -v flock >/dev/null; then
        ! as_root flock -s -n "$ran/lock" true 2>/dev/null  # shared: two that look do not take each other for it
    else
        as_root kill -0 "$(as_root cat "$ran/pid" 2>/dev/null)" 2>/dev/null
    fi
}

start() {
    ! runs || return 0
    if has_systemd; then
        start_unit
    else
        local session=setsid
        command -v setsid >/dev/null || session=
        $become $session nohup bash "$kept/deadman.sh" keep "$kept" "$ran" </dev/null >/dev/null 2>&1 &
        until_it_runs
    fi
}

until_it_runs() {
    local tries=0
    until runs; do
        [ $((tries += 1)) -le 150 ] || return 1
        sleep 0.1
    done
}

start_unit() {
    as_root tee "$prefix/etc/systemd/system/$unit.service" >/dev/null <<UNIT || return 1
[Unit]
Description=Powers this machine off when Skyward's operator has been silent for too long
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/bash $kept/deadman.sh watch $kept $ran
Restart=always
RestartSec=1
OOMScoreAdjust=-1000

[Install]
WantedBy=multi-user.target
UNIT
    as_root systemctl daemon-reload && as_root systemctl enable --quiet $unit && as_root systemctl restart $unit
}

beat() { # TTL
    [ -p "$ran/beats" ] || failed transient "$ran/beats is gone"
    printf 'beat %s\n' "$1" 1<>"$ran/beats"
}

listen() { # TTL COMMAND
    arm "$@"
    printf '::armed %s\n' "$(keeper)"
    local ttl
    while IFS= read -r ttl; do
        is_number "$ttl" && start && beat "$ttl" || exit 1
        echo ok
    done
}

# what runs

# Holds the lock, and has a watch: also a new one, when it is killed.
keep() {
    trap '' HUP
    as_root mkdir -p "$ran"
    if command -v flock >/dev/null; then
        exec 9>"$ran/lock"
        flock -w 5 9 || exit 0  # who looks whether it runs has it for a moment
    fi
    echo $$ 2>/dev/null >"$ran/pid"
    echo -1000 2>/dev/null >/proc/self/oom_score_adj
    while :; do
        SKYWARD_KEEPER=$$ bash "$kept/deadman.sh" watch "$kept" "$ran"
        sleep 1
    done
}

watch() {
    trap '' HUP
    mkdir -p "$ran"
    [ -p "$ran/beats" ] || { mkfifo "$ran/beats" && chmod 666 "$ran/beats"; }
    exec 3<>"$ran/beats"
    local line
    now=0 tick=0 expired=0 asked=0
    ttl=$(cat "$kept/ttl" 2>/dev/null)
    is_number "$ttl" || ttl=600
    tell_time
    heard=$now
    while :; do
        tick=$((ttl / 20))
        [ "$ttl" != 0 ] && [ $tick -le 5 ] || tick=5
        [ $tick -ge 1 ] || tick=1
        if IFS= read -r -t $tick -u 3 line; then hear "$line"; else look; fi
    done
}

# Where the time for a look is up in the middle of a line, the rest of it comes as a line of its own, which says
# nothing: "00" of "beat 600" must not be taken for another time to live.
hear() { # LINE
    if [ "$1" = reload ]; then
        exec bash "$kept/deadman.sh" watch "$kept" "$ran"
    fi
    local said=${1#beat }
    [ "$said" != "$1" ] && is_number "$said" || return
    tell_time
    heard=$now expired=0
    if [ "$said" != "$ttl" ]; then
        ttl=$said
        echo "$ttl" 2>/dev/null >"$kept/ttl.part.$$" && mv "$kept/ttl.part.$$" "$kept/ttl"
    fi
}

look() {
    if [ -n "${SKYWARD_KEEPER:-}" ] && ! kill -0 "$SKYWARD_KEEPER" 2>/dev/null; then
        exec 9>&-  # the lock was the keeper's
        exec bash "$kept/deadman.sh" keep "$kept" "$ran"
    fi
    tell_time
    if [ "$ttl" = 0 ] || [ $((now - heard)) -lt "$ttl" ]; then
        expired=0
        return
    fi
    expired=$((expired + 1))
    [ $expired -lt $LOOKS ] || power_off
}

# The seconds since boot, in now. A system without that counts the looks; a simulated cloud moves its own time.
tell_time() {
    local up shift=0
    if read -r up _ 2>/dev/null </proc/uptime; then
        now=${up%%.*}
    else
        now=$((now + tick))
    fi
    [ -z "${SKYWARD_VM:-}" ] || [ -z "${SKYWARD_CLOCK:-}" ] || read -r shift 2>/dev/null <"$SKYWARD_CLOCK"
    ! is_number "$shift" || now=$((now + shift))
}

power_off() {
    local command
    command=$(cat "$kept/command" 2>/dev/null)
    [ $((asked % 4)) != 0 ] || echo "the operator has been silent for $((now - heard)) s: $command"
    [ $((asked % 4)) != 0 ] || bash -c "$command" </dev/null 3>&- 9>&- &
    asked=$((asked + 1))
    [ $asked -lt $FORCE_AFTER ] || [ -n "${SKYWARD_VM:-}" ] || [ -n "$prefix" ] || by_force
}

by_force() {
    sync &
    poweroff -f </dev/null 3>&- 9>&- || echo o >/proc/sysrq-trigger
}

script=${script:-}
script=${script%$'\n'}
what=$1
case $what in
    arm)
        arm "$2" "$3"
        printf '::armed %s\n' "$(keeper)"
        ;;
    listen) listen "$2" "$3" ;;
    keep | watch)
        kept=$2 ran=$3
        "$what"
        ;;
esac
