/*
 * The bare relay: what any proxy in user space pays before it compares anything.
 *
 *     relay CLIENT PRIMARY SECONDARY [wait]   (names of interfaces)
 *
 * Three AF_PACKET sockets with the options, buffers and batches of colo_compare/ports/packet.py. The client's
 * frames go to both guests, the primary's to the client, the secondary's are thrown away.
 *
 * One thing it must do besides, or the second guest would refuse every connection and the relay had one guest
 * less to feed than the proxy: TCP's acknowledgement number, in frames for the secondary, is turned into that
 * guest's own space, and never beyond what it has sent; TSecr is set to zero, which every Linux accepts.
 * A few loads and stores a frame. Flows are told apart by the client's port alone.
 *
 * With "wait" it does what no proxy that compares can avoid: it lets the primary's frames wait until the secondary
 * has sent as many with payload, for 5 ms at most. For requests, one at a time; it still compares nothing.
 *
 * Prints "ready"; on SIGTERM how many frames came from each side.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif
#ifndef PACKET_VNET_HDR_SZ
#define PACKET_VNET_HDR_SZ 24
#endif

enum { CLIENT, PRIMARY, SECONDARY, RUN = 64, SLOT = 0x11000, AUX = 40, BUFFER = 64 << 20 };

static int header = 12; /* bytes of virtio-net header */
static int fds[3];
static struct mmsghdr messages[RUN];
static struct iovec vectors[RUN];
static char *slots, control[RUN][AUX];
static unsigned long counts[3], answers[3]; /* frames, and those with payload */
static volatile sig_atomic_t stopped;

struct flow {
    uint32_t first[3]; /* initial sequence numbers of the guests */
    uint32_t next;     /* what the secondary will send next */
};
static struct flow flows[1 << 16];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

static int open_port(const char *name)
{
    int one = 1, size = BUFFER, length = 12;
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0);
    struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    struct packet_mreq all = {.mr_type = PACKET_MR_PROMISC};
    at.sll_ifindex = all.mr_ifindex = if_nametoindex(name);
    if (fd < 0)
        die("socket");
    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one);
    setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &one, sizeof one);
    if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR_SZ, &length, sizeof length)) {
        header = 10;
        if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one))
            die("PACKET_VNET_HDR");
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    if (bind(fd, (struct sockaddr *)&at, sizeof at))
        die(name);
    setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all);
    return fd;
}

static int receive(int fd)
{
    for (int i = 0; i < RUN; i++) {
        vectors[i] = (struct iovec){slots + (size_t)i * SLOT, SLOT};
        messages[i].msg_hdr = (struct msghdr){
            .msg_iov = &vectors[i], .msg_iovlen = 1, .msg_control = control[i], .msg_controllen = AUX};
    }
    int got = recvmmsg(fd, messages, RUN, MSG_DONTWAIT, NULL);
    return got < 0 ? 0 : got;
}

static void forward(int fd, int count)
{
    for (int i = 0; i < count; i++) {
        vectors[i].iov_len = messages[i].msg_len ? messages[i].msg_len : vectors[i].iov_len;
        messages[i].msg_hdr.msg_control = NULL;
        messages[i].msg_hdr.msg_controllen = 0;
    }
    for (int at = 0; at < count;) {
        int sent = sendmmsg(fd, messages + at, count - at, MSG_DONTWAIT);
        if (sent > 0) {
            at += sent;
        } else if (errno == EAGAIN) {
            struct pollfd room = {fd, POLLOUT, 0};
            poll(&room, 1, -1);
        } else if (errno == ENOBUFS) {
            usleep(1000);
        } else {
            at++;
        }
    }
    for (int i = 0; i < count; i++) /* sendmmsg wrote there what it sent: the same */
        messages[i].msg_len = vectors[i].iov_len;
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t value;
    memcpy(&value, p, 4);
    return ntohl(value);
}

/* Replace 4 bytes at p and mend the checksum (RFC 1624), unless it is still to be computed. */
static void put32(uint8_t *p, uint32_t value, uint8_t *sum, int partial)
{
    uint32_t old = get32(p), be = htonl(value);
    memcpy(p, &be, 4);
    if (partial)
        return;
    uint32_t s = (~(sum[0] << 8 | sum[1]) & 0xffff) + (~old >> 16 & 0xffff) + (~old & 0xffff);
    s += (value >> 16) + (value & 0xffff);
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    s = ~s;
    sum[0] = s >> 8;
    sum[1] = s;
}

/* Give the TCP header of an untagged IPv4 frame, else NULL. */
static uint8_t *tcp_of(int i)
{
    uint8_t *ip = (uint8_t *)vectors[i].iov_base + header + 14;
    if (messages[i].msg_len < (unsigned)header + 54 || ip[-2] != 8 || ip[-1] || ip[0] != 0x45 || ip[9] != 6)
        return NULL;
    return ip + 20;
}

/* Note what a guest said. */
static void note(int side, int count)
{
    for (int i = 0; i < count; i++) {
        uint8_t *tcp = tcp_of(i);
        if (!tcp)
            continue;
        struct flow *flow = &flows[tcp[2] << 8 | tcp[3]];
        uint32_t seq = get32(tcp + 4);
        int length = messages[i].msg_len - header - 34 - (tcp[12] >> 4) * 4; /* no padding on veth above 60 */
        if (tcp[13] & 2) {
            flow->first[side] = seq;
            length = 1;
        }
        answers[side] += length > 0 && !(tcp[13] & 2);
        if (side == SECONDARY && (int32_t)(seq + length - flow->next) > 0)
            flow->next = seq + length;
        if (side == SECONDARY && tcp[13] & 2)
            flow->next = seq + 1;
    }
}

/* Turn the client's frames into what the secondary understands. */
static void steer(int count)
{
    for (int i = 0; i < count; i++) {
        uint8_t *tcp = tcp_of(i);
        if (!tcp || !(tcp[13] & 0x10))
            continue;
        struct flow *flow = &flows[tcp[0] << 8 | tcp[1]];
        int partial = ((uint8_t *)vectors[i].iov_base)[0] & 1; /* VIRTIO_NET_HDR_F_NEEDS_CSUM */
        uint32_t ack = get32(tcp + 8) - flow->first[PRIMARY] + flow->first[SECONDARY];
        if ((int32_t)(ack - flow->next) > 0)
            ack = flow->next;
        put32(tcp + 8, ack, tcp + 16, partial);
        for (int at = 20, end = (tcp[12] >> 4) * 4; at < end && tcp[at];) {
            if (tcp[at] == 8)
                put32(tcp + at + 6, 0, tcp + 16, partial || (at & 1));
            at += tcp[at] == 1 ? 1 : tcp[at + 1] ? tcp[at + 1] : end;
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 4 && argc != 5)
        return 2;
    slots = mmap(NULL, (size_t)RUN * SLOT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 3; i++)
        fds[i] = open_port(argv[i + 1]);
    signal(SIGTERM, stop);
    puts("ready");
    fflush(stdout);
    for (int late = 0; !stopped;) {
        struct pollfd ready[3] = {{fds[0], POLLIN, 0}, {fds[1], POLLIN, 0}, {fds[2], POLLIN, 0}};
        int waits = argc == 5 && !late && answers[SECONDARY] <= answers[PRIMARY];
        if (waits)
            ready[PRIMARY].fd = -1;
        int found = poll(ready, 3, waits ? 5 : -1);
        late = waits && !found;
        if (found <= 0)
            continue;
        for (int side = SECONDARY; side >= CLIENT; side--) { /* what a guest says before what answers it */
            if (!ready[side].revents)
                continue;
            int got = receive(fds[side]);
            counts[side] += got;
            if (side != CLIENT)
                note(side, got);
            if (side == PRIMARY)
                forward(fds[CLIENT], got);
            if (side == CLIENT) {
                forward(fds[PRIMARY], got);
                steer(got);
                forward(fds[SECONDARY], got);
            }
        }
    }
    printf("%lu %lu %lu\n", counts[0], counts[1], counts[2]);
    return 0;
}
