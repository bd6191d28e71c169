#!/bin/sh
# at_sys.sh TREE SHADOW COMMAND...: run COMMAND where TREE stands at the kernel's place of powercap. For tools that read
# nowhere else. To be run in a mount namespace of its own (`unshare -m`): nothing outside that changes.
# SHADOW is an empty folder, for machines without that place: an overlay over /sys/class adds it.
set -e
tree=$1 shadow=$2
shift 2
if [ ! -d /sys/class/powercap ]; then
  mkdir -p "$shadow/powercap"
  mount -t overlay overlay -o "lowerdir=$shadow:/sys/class" /sys/class
fi
mount --bind "$tree" /sys/class/powercap
if [ -d /sys/devices/virtual/powercap ]; then
  mount --bind "$tree" /sys/devices/virtual/powercap
fi
exec "$@"
