#!/bin/sh
# Runs as root when an EC2 machine boots for the first time.
#
# Says on the machine's console which SSH host key it has. The operator reads the console through AWS's API
# before it connects, and accepts no other key. So the key's private half is made on the machine and never
# leaves it: what stands in user-data can be read through the API, and on the machine by every process.

set -u
folder=${SKYWARD_SSH_FOLDER:-/etc/ssh}
console=${SKYWARD_CONSOLE:-/dev/console}
key=$folder/ssh_host_ed25519_key

[ -s "$key.pub" ] || ssh-keygen -q -t ed25519 -N '' -f "$key"
read -r type public _ <"$key.pub"
# On a line of its own, and more than once: the kernel writes to the console as well.
for _ in 1 2 3; do
    printf '\nskyward-host-key %s %s.\n' "$type" "$public" >"$console"
done
