#!/bin/sh
# Says how far the setup of a host is, a line each: cloud-init, the data volume, the engine; its last log lines
# when it failed. Run as root by way of SSH; the argument is where the volume is mounted.
set -u
data=$1

state=$(cloud-init status 2>/dev/null | sed -n 's/^status: //p')
echo "cloud-init ${state:-unknown}"
if device=$(findmnt -n -o SOURCE "$data"); then
    # The volume may have grown. A file system that fills its volume is left alone.
    resize2fs "$device" >/dev/null 2>&1
    echo "data $device"
fi
log() {
    sed 's/^/log /'
}
if version=$(docker version -f '{{.Server.Version}}' 2>/dev/null); then
    echo "engine $version"
else
    case $state in
    error*) ;;
    *) journalctl -q -n 30 -o cat -u docker 2>/dev/null | log ;;
    esac
fi
case $state in
error*) tail -n 30 /var/log/cloud-init-output.log | log ;;
esac
exit 0
