/* The guests' UDP service, which busybox lacks: every datagram to port 7 goes back to its sender, IPv4 and IPv6. */
#include <netinet/in.h>
#include <sys/socket.h>

int main(void)
{
    static char data[65536];
    struct sockaddr_in6 here = { .sin6_family = AF_INET6, .sin6_port = htons(7) };
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);

    if (bind(fd, (struct sockaddr *)&here, sizeof here) < 0)
        return 1;
    for (;;) {
        struct sockaddr_in6 peer;
        socklen_t length = sizeof peer;
        ssize_t size = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&peer, &length);

        if (size >= 0)
            sendto(fd, data, size, 0, (struct sockaddr *)&peer, length);
    }
}
