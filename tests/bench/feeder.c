/*
 * Plays two guests and the client of a comparer: writes two streams, and keeps what comes out.
 *
 *     feeder PRIMARY SECONDARY OUT  SAID SIZE  SAID2 SIZE2  KEPT SIZE  LAG LEAD PATIENCE_MS
 *
 * The first three are connected sockets, SAID, SAID2 and KEPT files in memory, all by their descriptor. Neither
 * guest gets further ahead of the other than LEAD bytes; while the primary still speaks, the secondary stays
 * LAG bytes behind it. Ends when SIZE bytes have come out, or when nothing comes for so long after all was
 * written. Prints the bytes that came out, and nanoseconds until the last of them.
 *
 * In C because QEMU writes each frame by itself: a feeder in Python, at 20 us a turn, would be what is measured.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

static char *map(int fd, size_t size)
{
    char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return at;
}

static long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static size_t moved(ssize_t got)
{
    if (got < 0 && errno != EAGAIN) {
        perror("feeder");
        exit(2);
    }
    return got > 0 ? (size_t)got : 0;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

int main(int argc, char **argv)
{
    long v[13];
    if (argc != 13)
        return 2;
    for (int i = 1; i < 13; i++)
        v[i] = atol(argv[i]);
    size_t size = v[5], size2 = v[7], want = v[9], lag = v[10], lead = v[11];
    char *said = map(v[4], size), *said2 = map(v[6], size2), *kept = map(v[8], want);
    size_t ahead = 0, behind = 0, got = 0;
    long began = now(), last = began;

    while (got < want) {
        size_t before = ahead + behind + got;
        size_t room = least(size, behind + lag + lead);
        if (room > ahead)
            ahead += moved(send(v[1], said + ahead, room - ahead, MSG_DONTWAIT));
        size_t limit = ahead == size ? size2 : least(size2, ahead > lag ? ahead - lag : 0);
        if (limit > behind)
            behind += moved(send(v[2], said2 + behind, limit - behind, MSG_DONTWAIT));
        ssize_t came = recv(v[3], kept + got, want - got, MSG_DONTWAIT);
        if (came == 0)
            break;
        if (came > 0)
            last = now();
        got += moved(came);
        if (ahead + behind + got > before)
            continue;
        room = least(size, behind + lag + lead);
        limit = ahead == size ? size2 : least(size2, ahead > lag ? ahead - lag : 0);
        struct pollfd any[3] = {{v[3], POLLIN, 0}, {v[1], POLLOUT, 0}, {v[2], POLLOUT, 0}};
        if (room <= ahead)
            any[1].fd = -1;
        if (limit <= behind)
            any[2].fd = -1;
        if (poll(any, 3, v[12]) == 0)
            break;
    }
    printf("%zu %ld\n", got, last - began);
    return 0;
}
