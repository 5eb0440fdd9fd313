#!/bin/sh
# Stops all containers and the engine and unmounts the data volume, before it is detached or the host is turned
# off. Run as root by way of SSH; the arguments are
# where the volume is mounted, and its name below /dev/disk/by-id.
set -u
data=$1
device=/dev/disk/by-id/$2

# The engine would leave them running (live-restore). Those that restart always do so with the next engine.
running=$(docker ps -q)
# shellcheck disable=SC2086 # one word for each container
[ -z "$running" ] || docker stop -t 60 $running >/dev/null
systemctl stop docker.socket docker.service containerd.service
sync
for folder in /var/lib/docker /var/lib/containerd "$data"; do
    ! mountpoint -q "$folder" || umount "$folder" || exit 1
done
# DigitalOcean mounts volumes a second time, below /mnt.
findmnt -n -r -o TARGET -S "$(readlink -f "$device")" | while read -r folder; do umount "$folder"; done
exit 0
