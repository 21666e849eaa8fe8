/*
 * What guests and client do in the inline tables.
 *
 *     traffic serve                     TCP 5001: a stream that never ends; TCP 5002, UDP 5003: echo
 *     traffic bulk HOST SECONDS         prints bytes and nanoseconds
 *     traffic rr HOST SECONDS           64-byte requests, one at a time; gives nanoseconds, binary, 64 bits each
 *     traffic udp HOST SECONDS          small datagrams, WINDOW on their way; prints answers, ns, lost
 *
 * In C so that its own cost, which all peers share, does not hide the difference between them.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BULK = 5001, ECHO = 5002, DATAGRAM = 5003, MIB = 1 << 20, WINDOW = 64, SMALL = 22, REQUEST = 64 };

static char content[2 * MIB];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int open_socket(int type, const char *host, int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, size = 8 * MIB, fd = socket(AF_INET, type, 0);
    if (type == SOCK_DGRAM)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    if (host) {
        inet_pton(AF_INET, host, &at.sin_addr);
        if (connect(fd, (struct sockaddr *)&at, sizeof at))
            die("connect");
    } else {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(fd, (struct sockaddr *)&at, sizeof at))
            die("bind");
    }
    if (type == SOCK_STREAM)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* The byte at position n of the stream is the same in both guests, however they cut it. */
static void send_stream(int fd)
{
    for (size_t at = 0;;) {
        ssize_t sent = send(fd, content + at, MIB, 0);
        if (sent <= 0)
            return;
        at = (at + sent) % MIB;
    }
}

static void echo_stream(int fd)
{
    char data[REQUEST * 16];
    ssize_t got;
    while ((got = recv(fd, data, sizeof data, 0)) > 0)
        if (send(fd, data, got, 0) != got)
            return;
}

/* Give 0 in a child, which dies with its parent. */
static int child(void)
{
    int pid = fork();
    if (pid == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

static void serve_streams(int port, void (*serve)(int))
{
    int listener = open_socket(SOCK_STREAM, NULL, port);
    listen(listener, 64);
    if (child())
        return;
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0 && !child()) {
            int one = 1;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            serve(fd);
            exit(0);
        }
        close(fd);
    }
}

static char datagrams[WINDOW][SMALL * 2];
static struct sockaddr_in peers[WINDOW];
static struct iovec vectors[WINDOW];
static struct mmsghdr messages[WINDOW];

static void prepare(int named)
{
    for (int i = 0; i < WINDOW; i++) {
        vectors[i] = (struct iovec){datagrams[i], SMALL};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
        if (named) {
            messages[i].msg_hdr.msg_name = &peers[i];
            messages[i].msg_hdr.msg_namelen = sizeof peers[i];
        }
    }
}

static void serve(void)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    serve_streams(BULK, send_stream);
    serve_streams(ECHO, echo_stream);
    int fd = open_socket(SOCK_DGRAM, NULL, DATAGRAM);
    puts("ready");
    fflush(stdout);
    for (;;) {
        prepare(1);
        int got = recvmmsg(fd, messages, WINDOW, MSG_WAITFORONE, NULL);
        for (int at = 0; at < got;) {
            int sent = sendmmsg(fd, messages + at, got - at, 0);
            at += sent > 0 ? sent : 1;
        }
    }
}

static void bulk(const char *host, int64_t end)
{
    int fd = open_socket(SOCK_STREAM, host, BULK);
    int64_t began = now(), last = began, bytes = 0;
    end += began;
    while (last < end) {
        ssize_t got = recv(fd, content, MIB, 0);
        if (got <= 0)
            die("recv");
        bytes += got;
        last = now();
    }
    printf("%lld %lld\n", (long long)bytes, (long long)(last - began));
}

static void request_response(const char *host, int64_t end)
{
    int fd = open_socket(SOCK_STREAM, host, ECHO);
    char data[REQUEST];
    int64_t began = now(), last = began;
    for (uint64_t number = 0; last < began + end; number++) {
        memset(data, (int)number, sizeof data);
        memcpy(data, &number, sizeof number);
        int64_t sent = now();
        if (send(fd, data, sizeof data, 0) != sizeof data || recv(fd, data, sizeof data, MSG_WAITALL) != sizeof data)
            die("request");
        last = now();
        int64_t took = last - sent;
        fwrite(&took, sizeof took, 1, stdout);
    }
}

static void small_datagrams(const char *host, int64_t end)
{
    int fd = open_socket(SOCK_DGRAM, host, DATAGRAM);
    int64_t began = now(), last = began;
    int64_t number = 0, answers = 0, lost = 0;
    int room = WINDOW;
    prepare(0);
    while (last < began + end) {
        for (int i = 0; i < room; i++, number++)
            memcpy(datagrams[i], &number, sizeof number);
        for (int at = 0; at < room;) {
            int sent = sendmmsg(fd, messages + at, room - at, 0);
            at += sent > 0 ? sent : 1;
        }
        struct pollfd ready = {fd, POLLIN, 0};
        if (poll(&ready, 1, 200) == 0) {
            lost = number - answers;
            room = WINDOW;
            last = now();
            continue;
        }
        room = recvmmsg(fd, messages, WINDOW, MSG_DONTWAIT, NULL);
        if (room < 0)
            room = 0;
        answers += room;
        last = now();
    }
    printf("%lld %lld %lld\n", (long long)answers, (long long)(last - began), (long long)lost);
}

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof content; i++) /* the second half repeats the first */
        content[i] = (i % MIB) * 2654435761u >> 13;
    if (argc == 2 && !strcmp(argv[1], "serve"))
        serve();
    if (argc != 4)
        return 2;
    int64_t duration = atof(argv[3]) * 1e9;
    if (!strcmp(argv[1], "bulk"))
        bulk(argv[2], duration);
    else if (!strcmp(argv[1], "rr"))
        request_response(argv[2], duration);
    else if (!strcmp(argv[1], "udp"))
        small_datagrams(argv[2], duration);
    return 0;
}
