#!/bin/bash
# Makes a machine a node: a Python environment, Skyward's agent, and the agent running.
#
# It is unpacked beside its inputs into ~/.skyward/inbox and run there. Running it again is harmless and
# quick: each step looks first whether its work is done. Values, secret or not, come as files, never as
# arguments. What the operator reads on standard output:
#
#     ::step NAME                 a step begins; its own output follows
#     ::done NAME SECONDS         it is done
#     ::fail NAME KIND MESSAGE    it failed; KIND is rejected (will fail again) or transient
#     ::fact NAME VALUE           something the operator needs to know
#
# Inputs: python, environment (a digest), bundle (a digest), bundle.tar.gz, requirements.txt,
# indexes/pyproject.toml (if there are further indexes), apt (one package a line), variables (shell
# assignments), slots, executor, reuse (an option of the agent, or nothing).

set -uo pipefail
umask 077
exec 2>&1

inbox=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$HOME/.skyward
# A machine whose provider keeps environments for several machines says where; their name is their content.
environments=${SKYWARD_ENVIRONMENTS:-$root/envs}
environment=$environments/$(cat "$inbox/environment")
runtime=$root/runtime/$(cat "$inbox/bundle")
current=start
started=$SECONDS

fail() { # KIND MESSAGE
    echo "::fail $current $1 $2"
    exit 1
}

step() { # NAME FUNCTION
    current=$1
    started=$SECONDS
    echo "::step $current"
    "$2" || fail transient "step $current ended with status $?"
    echo "::done $current $((SECONDS - started))"
}

# One bootstrap at a time: an older one may still run when its operator was restarted.
exclusively() {
    command -v flock >/dev/null || return 0
    exec 9>"$root/bootstrap.lock"
    flock -w 600 9 || fail transient "another bootstrap has been running for 600 s"
}

workdir() {
    mkdir -p "$environments" "$root/runtime" "$root/agent" || fail transient "cannot make $root: is the disk full?"
    exclusively
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        fail rejected "apt packages need root, and user $(id -un) may not use sudo without a password"
    fi
}

apt_missing() {
    local package name
    while read -r package || [ -n "$package" ]; do
        name=${package%%=*}
        dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' || echo "$package"
    done <"$inbox/apt"
}

apt_packages() {
    local missing
    command -v apt-get >/dev/null || fail rejected "this machine has no apt-get; leave image.apt empty"
    mapfile -t missing < <(apt_missing)
    [ ${#missing[@]} -gt 0 ] || return 0
    export DEBIAN_FRONTEND=noninteractive
    local options=(-q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 --no-install-recommends)
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" "${missing[@]}" && return 0
    as_root apt-get update -q -o DPkg::Lock::Timeout=300
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" "${missing[@]}"
}

uv_installed() {
    export PATH="$root/bin:$HOME/.local/bin:$PATH"
    export UV_NO_WRAP=1 UV_NO_PROGRESS=1 NO_COLOR=1 UV_PYTHON_PREFERENCE=system
    if ! command -v uv >/dev/null; then
        command -v python3 >/dev/null || fail rejected "this machine has neither uv nor python3"
        python3 -m venv "$root/uv" 2>/dev/null && "$root/uv/bin/python" -m pip install --quiet 'uv>=0.9' ||
            python3 -m pip install --quiet --user --break-system-packages 'uv>=0.9' || return 1
        mkdir -p "$root/bin"
        [ ! -x "$root/uv/bin/uv" ] || ln -sf "$root/uv/bin/uv" "$root/bin/uv"
    fi
    uv --version
}

# Another machine of this computer may be making the same environment: then there is nothing to do but wait.
alone_with_environment() {
    command -v flock >/dev/null || return 0
    exec 8>"$environment.lock"
    until flock -w 5 8; do
        echo "another machine is making this environment; waiting for it"
    done
}

python_environment() {
    [ ! -e "$environment/.complete" ] || return 0
    alone_with_environment
    [ ! -e "$environment/.complete" ] || return 0
    uv venv --quiet --clear --python "$(cat "$inbox/python")" "$environment"
}

packages() {
    [ ! -e "$environment/.complete" ] || return 0
    local sources=(-r "$inbox/requirements.txt")
    [ ! -e "$inbox/indexes/pyproject.toml" ] || sources+=(-r "$inbox/indexes/pyproject.toml")
    uv pip install --python "$environment/bin/python" "${sources[@]}" || return 1
    touch "$environment/.complete"
    exec 8>&-
}

# The variables of the image, for the agent and all it runs. shellVars are commands and run here.
variables() {
    mv "$inbox/variables" "$root/variables" && chmod 600 "$root/variables"
    bash -c '. "$1"' variables "$root/variables" || fail rejected "a command of image.shellVars failed"
}

runtime_files() {
    if [ ! -e "$runtime/.complete" ]; then
        rm -rf "$runtime" && mkdir -p "$runtime" && tar -xzf "$inbox/bundle.tar.gz" -C "$runtime" || return 1
        touch "$runtime/.complete"
    fi
    rm -f "$inbox/bundle.tar.gz"
}

# A socket address holds about 100 characters, and some homes are deeper than that.
socket_path() {
    local path=$root/agent/socket
    if [ ${#path} -gt 90 ]; then
        local folder=${XDG_RUNTIME_DIR:-/tmp/skyward-$(id -u)}
        mkdir -p -m 700 "$folder" && [ -O "$folder" ] || return 1
        path=$folder/$(printf %s "$HOME" | cksum | cut -d' ' -f1).sock
    fi
    echo "$path"
}

agent() {
    local socket
    socket=$(socket_path) || fail rejected "there is no folder for the agent's socket"
    echo "$socket" >"$root/socket"
    # Also run by itself, when the agent has died: it starts one unless one runs.
    cat >"$root/start-agent.part" <<SCRIPT
#!/bin/bash
set -a; . "$root/variables"; set +a
export PYTHONPATH="$runtime\${PYTHONPATH:+:\$PYTHONPATH}" PATH="$environment/bin:\$PATH" VIRTUAL_ENV="$environment"
cd "$HOME"
exec "$environment/bin/python" -m skyward.agent --detach --home "$root/agent" --socket "$socket" \
    --slots $(cat "$inbox/slots") --executor $(cat "$inbox/executor") $(cat "$inbox/reuse") "\$@" 8>&- 9>&-
SCRIPT
    chmod 700 "$root/start-agent.part" && mv "$root/start-agent.part" "$root/start-agent"
    "$root/start-agent" --replace </dev/null || return 1
    echo "::fact socket $socket"
}

step workdir workdir
[ ! -s "$inbox/apt" ] || step apt apt_packages
step uv uv_installed
step python python_environment
step packages packages
step env variables
step runtime runtime_files
step agent agent
