/*
 * Measures what lies between both guests and the client: how long a frame takes that both send at once.
 *
 *     pulse CLIENT PRIMARY SECONDARY  FRAMES SIZE COUNT  INTERVAL_US
 *
 * The first three are packet sockets at the far ends of the proxy's interfaces; FRAMES is a file in memory with
 * COUNT frames of SIZE bytes each, by its descriptor. Each is sent by both guests, one every INTERVAL_US, and
 * waited for at the client. Gives nanoseconds from the second send until it is there, binary, 64 bits each; -1
 * for one that does not come within a second.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int64_t wait_for(int fd, const char *frame, long size)
{
    char got[2048];
    int64_t limit = now() + 1000000000LL;
    while (now() < limit) {
        struct pollfd ready = {fd, POLLIN, 0};
        if (poll(&ready, 1, 1000) <= 0)
            return -1;
        while (recv(fd, got, sizeof got, MSG_DONTWAIT) >= size) /* the client's own chatter is shorter */
            if (!memcmp(got + 54, frame + 54, size - 54))
                return now();
    }
    return -1;
}

int main(int argc, char **argv)
{
    long v[8];
    if (argc != 8)
        return 2;
    for (int i = 1; i < 8; i++)
        v[i] = atol(argv[i]);
    char *frames = mmap(NULL, v[5] * v[6], PROT_READ, MAP_SHARED, v[4], 0);
    if (frames == MAP_FAILED)
        return 1;
    int64_t due = now();
    for (long i = 0; i < v[6]; i++) {
        const char *frame = frames + i * v[5];
        due += v[7] * 1000;
        struct timespec until = {due / 1000000000LL, due % 1000000000LL};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        if (send(v[2], frame, v[5], 0) < 0 || send(v[3], frame, v[5], 0) < 0) {
            perror("send");
            return 1;
        }
        int64_t sent = now(), came = wait_for(v[1], frame, v[5]);
        int64_t took = came < 0 ? -1 : came - sent;
        fwrite(&took, sizeof took, 1, stdout);
    }
    return 0;
}
