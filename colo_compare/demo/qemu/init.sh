#!/bin/sh
# The guest's first and only script: network, services, and a line on the console five times a second as a sign of life.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do
    insmod "/modules/$module.ko"
done
echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
ip link set dev lo up
ip link set dev eth0 up
ip address add 10.99.0.2/24 dev eth0
ip address add fd99::2/64 dev eth0
httpd -h /www
services &
nc -ll -p 9 -e /bin/different &
# To listen they need a moment; the guest must not be called up before it can answer.
until grep -q ':1F90 ' /proc/net/tcp6 && grep -q ':0009 ' /proc/net/tcp /proc/net/tcp6; do
    sleep 0.1
done
echo "services are up"
tick=0
while sleep 0.2; do
    tick=$((tick + 1))
    echo "tick $tick"
done
