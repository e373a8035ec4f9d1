/* The only program of an image made from nothing: it exchanges data with the lab's servers and clients.
 *
 *   peer call ADDRESS PORT FROM COUNT [tcp]
 *       over TCP and, without `tcp`, UDP, from the ports FROM to FROM + COUNT - 1:
 *       prints `call OWN SEEN`, the source here and at the server
 *   peer serve PORT
 *       TCP: prints `serving`, greets each client with its address, then echoes
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void must(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static struct sockaddr_in at(const char *address, int port)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
    must(inet_pton(AF_INET, address, &at.sin_addr) == 1, address);
    return at;
}

static int bound(int type, int port)
{
    int fd = socket(AF_INET, type, 0), yes = 1;
    struct sockaddr_in own = at("0.0.0.0", port);
    must(fd >= 0, "socket");
    must(!setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes), "SO_REUSEADDR");
    must(!bind(fd, (void *)&own, sizeof own), "bind");
    return fd;
}

/* On TCP the server speaks first, on UDP it answers. */
static void call(int type, struct sockaddr_in to, int from)
{
    int fd = bound(type, from);
    struct sockaddr_in own;
    socklen_t own_len = sizeof own;
    char seen[64] = "", address[INET_ADDRSTRLEN];
    struct timeval patience = { .tv_sec = 10 };
    must(!setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), "SO_RCVTIMEO");
    must(!connect(fd, (void *)&to, sizeof to), "connect");
    must(!getsockname(fd, (void *)&own, &own_len), "getsockname");
    must(type == SOCK_STREAM || send(fd, "x", 1, 0) == 1, "send");
    for (size_t len = 0; !strchr(seen, '\n');) {
        ssize_t more = recv(fd, seen + len, sizeof seen - 1 - len, 0);
        must(more > 0, "recv");
        len += more;
    }
    inet_ntop(AF_INET, &own.sin_addr, address, sizeof address);
    printf("call %s:%d %.*s\n", address, ntohs(own.sin_port), (int)strcspn(seen, "\n"), seen);
    close(fd);
}

static void serve(int port)
{
    int listening = bound(SOCK_STREAM, port);
    must(!listen(listening, 16), "listen");
    dprintf(STDOUT_FILENO, "serving\n");
    for (;;) {
        struct sockaddr_in client;
        socklen_t client_len = sizeof client;
        int fd = accept(listening, (void *)&client, &client_len);
        char address[INET_ADDRSTRLEN], bytes[4096];
        must(fd >= 0, "accept");
        inet_ntop(AF_INET, &client.sin_addr, address, sizeof address);
        dprintf(fd, "%s:%d\n", address, ntohs(client.sin_port));
        for (ssize_t len; (len = read(fd, bytes, sizeof bytes)) > 0;)
            must(write(fd, bytes, len) == len, "write");
        close(fd);
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "serve"))
        serve(atoi(argv[2]));
    if (argc < 6 || strcmp(argv[1], "call"))
        return fputs("usage: peer call ADDRESS PORT FROM COUNT [tcp] | peer serve PORT\n", stderr), 2;
    struct sockaddr_in to = at(argv[2], atoi(argv[3]));
    int from = atoi(argv[4]), count = atoi(argv[5]);
    for (int port = from; port < from + count; port++) {
        call(SOCK_STREAM, to, port);
        if (argc == 6)
            call(SOCK_DGRAM, to, port);
    }
    return 0;
}
