/* What a guest serves beside busybox: everything here says the same on both guests, except where it is asked to differ.
 *
 *   TCP and UDP 7   echo
 *   UDP 53          192 bytes made from the question, as long as a DNS answer
 *   TCP 11          "HOST PORT SOURCE-PORT\n": calls that host, and joins the two connections (0: a port of its own choice)
 *   TCP 12          the disk, past all caches: "PUT BLOCK TEXT\n" gives "OK\n", "GET BLOCK\n" gives the text; or "ERROR\n"
 *   TCP 6379        a key-value store: "SET KEY VALUE\n" gives "OK\n", "GET KEY\n" gives the value or "NONE\n"
 *   TCP 8080        HTTP with keep-alive; the same behind TLS on 8443, if built with it
 *                     GET /bytes/N     N bytes, of which byte 8*k..8*k+7 is k, big-endian
 *                     POST /digest     the CRC-32 of the body, in hexadecimal
 *                     POST /scribble/N write to N MiB of memory
 *                     GET /differ/N    every Nth answer of a connection has the guest's clock in it
 *
 * One thread for each connection: the order of answers on different connections may differ, within one it does not.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/ssl.h>
static SSL_CTX *tls;
#else
typedef void SSL;
#endif

enum { BLOCK = 65536, HEAD = 8192, KEYS = 4096, WORD = 128, MOST_MIB = 32 };

struct connection {
    int fd;
    SSL *ssl;
    size_t have; /* bytes read and not yet consumed, in `data` */
    char data[HEAD];
};

static ssize_t receive(struct connection *c, void *to, size_t size)
{
#ifdef WITH_TLS
    if (c->ssl)
        return SSL_read(c->ssl, to, size);
#endif
    return read(c->fd, to, size);
}

static int answer(struct connection *c, const void *from, size_t size)
{
    const char *at = from;

    while (size) {
#ifdef WITH_TLS
        ssize_t done = c->ssl ? SSL_write(c->ssl, at, size) : write(c->fd, at, size);
#else
        ssize_t done = write(c->fd, at, size);
#endif
        if (done <= 0)
            return -1;
        at += done;
        size -= done;
    }
    return 0;
}

/* Reads up to and including `end`, and makes a string of it; what comes behind stays in `data` at the place given. */
static char *read_until(struct connection *c, const char *end)
{
    char *found;

    while (c->data[c->have] = 0, !(found = strstr(c->data, end))) {
        ssize_t size = c->have < HEAD - 1 ? receive(c, c->data + c->have, HEAD - 1 - c->have) : 0;
        if (size <= 0)
            return NULL;
        c->have += size;
    }
    return found + strlen(end);
}

static void consume(struct connection *c, const char *rest)
{
    c->have -= rest - c->data;
    memmove(c->data, rest, c->have);
}

static void echo(struct connection *c)
{
    char block[BLOCK];
    ssize_t size;

    while ((size = receive(c, block, sizeof block)) > 0 && !answer(c, block, size))
        ;
}

static int send_bytes(struct connection *c, size_t size)
{
    static const size_t words = BLOCK / 8;
    uint64_t block[BLOCK / 8];

    for (size_t first = 0; first * 8 < size; first += words) {
        size_t left = size - first * 8;
        for (size_t k = 0; k < words; k++)
            block[k] = htobe64(first + k);
        if (answer(c, block, left < BLOCK ? left : BLOCK))
            return -1;
    }
    return 0;
}

static uint32_t crc32(uint32_t crc, const unsigned char *data, size_t size)
{
    static uint32_t table[256];

    if (!table[255])
        for (uint32_t n = 0; n < 256; n++) {
            uint32_t value = n;
            for (int bit = 0; bit < 8; bit++)
                value = value & 1 ? value >> 1 ^ 0xedb88320 : value >> 1;
            table[n] = value;
        }
    crc = ~crc;
    while (size--)
        crc = table[(crc ^ *data++) & 0xff] ^ crc >> 8;
    return ~crc;
}

static int head(struct connection *c, const char *status, size_t size)
{
    char text[WORD];

    return answer(c, text, sprintf(text, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n", status, size));
}

/* Reads the body of a POST, of which `data` may hold a part, and answers its digest. */
static int digest(struct connection *c, size_t left)
{
    unsigned char block[BLOCK];
    char text[16];
    size_t part = c->have < left ? c->have : left;
    uint32_t crc = crc32(0, (unsigned char *)c->data, part);

    consume(c, c->data + part);
    left -= part;
    while (left) {
        ssize_t size = receive(c, block, left < sizeof block ? left : sizeof block);
        if (size <= 0)
            return -1;
        crc = crc32(crc, block, size);
        left -= size;
    }
    sprintf(text, "%08x", crc);
    return head(c, "200 OK", 8) || answer(c, text, 8);
}

static int differ(struct connection *c, unsigned long number, unsigned long every)
{
    struct timespec now = { 0, 0 };
    char text[64];

    if (every && number % every == 0)
        clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    sprintf(text, "answer %010lu %016llx", number, now.tv_sec * 1000000000ULL + now.tv_nsec);
    return head(c, "200 OK", 34) || answer(c, text, 34);
}

/* Writes to so many MiB of memory, a little to each page. */
static int scribble(struct connection *c, unsigned long size)
{
    static volatile char memory[MOST_MIB << 20];
    static char what;

    if (size > MOST_MIB)
        return head(c, "413 Content Too Large", 0);
    what++;
    for (size_t at = 0; at < size << 20; at += 4096)
        memory[at] = what;
    return head(c, "200 OK", 0);
}

static void http(struct connection *c)
{
    unsigned long answers = 0;
    char *rest;

    while ((rest = read_until(c, "\r\n\r\n"))) {
        unsigned long number = 0;
        char *length = strcasestr(c->data, "content-length:");
        size_t body = length && length < rest ? strtoul(length + 15, NULL, 10) : 0;
        char kind[WORD] = "";
        int failed;

        sscanf(c->data, "%100[^0-9\r]%lu", kind, &number);
        consume(c, rest);
        if (!strcmp(kind, "GET /bytes/"))
            failed = head(c, "200 OK", number) || send_bytes(c, number);
        else if (!strcmp(kind, "GET /differ/"))
            failed = differ(c, ++answers, number);
        else if (!strcmp(kind, "POST /scribble/"))
            failed = scribble(c, number);
        else if (!strncmp(kind, "POST /digest", 12))
            failed = digest(c, body);
        else
            failed = head(c, "404 Not Found", 0);
        if (failed)
            return;
    }
}

static int answer_line(struct connection *c, char *said)
{
    strcat(said, "\n");
    return answer(c, said, strlen(said));
}

static void store(struct connection *c)
{
    static char keys[KEYS][WORD], values[KEYS][WORD];
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    char *rest;

    while ((rest = read_until(c, "\n"))) {
        char verb[8] = "", key[WORD] = "", value[WORD] = "", said[WORD + 1] = "NONE";
        unsigned place;

        sscanf(c->data, "%7s %127s %127s", verb, key, value);
        consume(c, rest);
        pthread_mutex_lock(&lock);
        place = crc32(0, (unsigned char *)key, strlen(key)) % KEYS;
        while (*keys[place] && strcmp(keys[place], key)) /* of a full store every look is a long one */
            place = (place + 1) % KEYS;
        if (!strcmp(verb, "SET")) {
            strcpy(keys[place], key);
            strcpy(values[place], value);
            strcpy(said, "OK");
        } else if (*keys[place])
            strcpy(said, values[place]);
        pthread_mutex_unlock(&lock);
        if (answer_line(c, said))
            return;
    }
}

/* Makes an address of a host and a port; gives its length, 0 where the host is none. */
static socklen_t address(struct sockaddr_in6 *to, const char *host, int port)
{
    struct sockaddr_in *to4 = (struct sockaddr_in *)to;

    memset(to, 0, sizeof *to);
    to->sin6_port = htons(port); /* in the same place for both families */
    if (inet_pton(AF_INET6, host, &to->sin6_addr) == 1) {
        to->sin6_family = AF_INET6;
        return sizeof *to;
    }
    to->sin6_family = AF_INET;
    return inet_pton(AF_INET, host, &to4->sin_addr) == 1 ? sizeof *to4 : 0;
}

static void disk(struct connection *c)
{
    char *block = aligned_alloc(4096, 4096), *rest;
    int fd = open("/dev/vda", O_RDWR | O_DIRECT | O_DSYNC);

    while ((rest = read_until(c, "\n"))) {
        char verb[8] = "", text[WORD] = "", said[WORD + 1] = "ERROR";
        unsigned long number = 0;

        sscanf(c->data, "%7s %lu %127s", verb, &number, text);
        consume(c, rest);
        memset(block, 0, 4096);
        if (!strcmp(verb, "GET")) {
            if (pread(fd, block, 4096, number * 4096) == 4096)
                snprintf(said, WORD, "%s", block);
        } else {
            strcpy(block, text);
            if (pwrite(fd, block, 4096, number * 4096) == 4096)
                strcpy(said, "OK");
        }
        if (answer_line(c, said))
            break;
    }
    close(fd);
    free(block);
}

static void call(struct connection *c)
{
    char *rest = read_until(c, "\n"), host[WORD], block[BLOCK];
    int port, source, yes = 1;
    struct sockaddr_in6 to, from;
    socklen_t length;

    if (!rest || sscanf(c->data, "%100s %d %d", host, &port, &source) != 3 || !(length = address(&to, host, port)))
        return;
    address(&from, to.sin6_family == AF_INET6 ? "::" : "0.0.0.0", source);
    int fd = socket(to.sin6_family, SOCK_STREAM, 0);
    struct pollfd ends[2] = { { .fd = c->fd, .events = POLLIN }, { .fd = fd, .events = POLLIN } };

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (!bind(fd, (struct sockaddr *)&from, length) && !connect(fd, (struct sockaddr *)&to, length))
        while (poll(ends, 2, -1) > 0) {
            int side = ends[0].revents ? 0 : 1;
            ssize_t size = read(ends[side].fd, block, sizeof block);
            if (size <= 0 || write(ends[1 - side].fd, block, size) != size)
                break;
        }
    close(fd);
}

struct service {
    int port;
    void (*serve)(struct connection *);
    int behind_tls;
};

struct client {
    const struct service *service;
    int fd;
};

static void *serve(void *argument)
{
    struct client client = *(struct client *)argument;
    struct connection *c = calloc(1, sizeof *c);
    int yes = 1;

    free(argument);
    c->fd = client.fd;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
#ifdef WITH_TLS
    if (client.service->behind_tls) {
        c->ssl = SSL_new(tls);
        SSL_set_fd(c->ssl, c->fd);
    }
    if (!c->ssl || SSL_accept(c->ssl) == 1)
#endif
        client.service->serve(c);
#ifdef WITH_TLS
    SSL_free(c->ssl);
#endif
    close(c->fd);
    free(c);
    return NULL;
}

static int bound(int type, int port)
{
    struct sockaddr_in6 here = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
    int fd = socket(AF_INET6, type, 0), yes = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&here, sizeof here) || (type == SOCK_STREAM && listen(fd, 1024))) {
        perror("services");
        exit(1);
    }
    return fd;
}

static _Noreturn void *accept_all(void *argument)
{
    const struct service *service = argument;
    int fd = bound(SOCK_STREAM, service->port);
    pthread_attr_t attributes;

    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 4 * BLOCK);
    for (;;) {
        struct client *client = malloc(sizeof *client);
        pthread_t thread;

        *client = (struct client){ service, accept(fd, NULL, NULL) };
        if (client->fd < 0 || pthread_create(&thread, &attributes, serve, client)) {
            close(client->fd);
            free(client);
        }
    }
}

static _Noreturn void *answer_datagrams(void *argument)
{
    int port = *(int *)argument, fd = bound(SOCK_DGRAM, port);
    unsigned char data[BLOCK];

    for (;;) {
        struct sockaddr_in6 peer;
        socklen_t length = sizeof peer;
        ssize_t size = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&peer, &length);

        if (size < 0)
            continue;
        if (port == 53) {
            uint32_t crc = htonl(crc32(0, data, size));
            for (size_t at = 0; at < 192; at += sizeof crc)
                memcpy(data + at, &crc, sizeof crc);
            size = 192;
        }
        sendto(fd, data, size, 0, (struct sockaddr *)&peer, length);
    }
}

int main(void)
{
    static struct service services[] = { { 7, echo, 0 }, { 11, call, 0 }, { 12, disk, 0 }, { 6379, store, 0 }, { 8080, http, 0 },
#ifdef WITH_TLS
                                         { 8443, http, 1 },
#endif
    };
    static int datagrams[] = { 7, 53 };
    pthread_t thread;

    signal(SIGPIPE, SIG_IGN);
    crc32(0, NULL, 0); /* its table is made before there are two threads */
#ifdef WITH_TLS
    tls = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_file(tls, "/etc/tls.pem", SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls, "/etc/tls.pem", SSL_FILETYPE_PEM) != 1)
        return 1;
#endif
    for (size_t n = 0; n < sizeof services / sizeof *services; n++)
        pthread_create(&thread, NULL, accept_all, &services[n]);
    for (size_t n = 0; n < sizeof datagrams / sizeof *datagrams; n++)
        pthread_create(&thread, NULL, answer_datagrams, &datagrams[n]);
    pthread_exit(NULL);
}
