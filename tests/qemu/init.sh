#!/bin/sh
# The guest's first and only script: network, services, and a line on the console once a second as a sign of life.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
for module in $(cat /modules/order); do
    insmod "/modules/$module.ko"
done
echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
ip link set dev lo up
ip link set dev eth0 up
ip address add 10.99.0.2/24 dev eth0
ip address add fd99::2/64 dev eth0
httpd -h /www
udp_echo &
nc -ll -p 7 -e /bin/cat &
nc -ll -p 9 -e /bin/different &
echo "services are up"
tick=0
while sleep 1; do
    tick=$((tick + 1))
    echo "tick $tick"
done
