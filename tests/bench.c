/*
 * What tests/bench measures ephport-nft against, without ephport-nft.
 *
 * Built with -DRECORD -shared and preloaded, it appends each datagram that a program sends to nfnetlink to the file
 * BENCH_RECORD. Built as a program:
 *
 *     bench replay FILE              sends these datagrams and reads all answers
 *     bench flows COUNT ADDRESS      sends COUNT UDP packets, each of another flow
 *     bench packets COUNT ADDRESS    sends COUNT UDP packets of one flow
 *
 * Flow i has the source 10.0.0.0 + i, from port 40000 on, and the destination ADDRESS + i.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <linux/netlink.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#ifdef RECORD

ssize_t sendto(int fd, const void *bytes, size_t len, int flags, const struct sockaddr *to, socklen_t to_len)
{
	typeof(sendto) *real = dlsym(RTLD_NEXT, "sendto");
	int protocol = -1, domain = -1;
	socklen_t size = sizeof protocol;

	getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size);
	getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
	if (domain == AF_NETLINK && protocol == NETLINK_NETFILTER) {
		FILE *file = fopen(getenv("BENCH_RECORD"), "ab");
		uint32_t prefix = len;

		if (!file || !fwrite(&prefix, sizeof prefix, 1, file) || !fwrite(bytes, len, 1, file) || fclose(file))
			abort();
	}
	return real(fd, bytes, len, flags, to, to_len);
}

#else

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* Reads the answers: to the end of a dump, else those that are there. */
static void answers(int fd, const struct nlmsghdr *request)
{
	static char buffer[1 << 16];
	int is_dump = (request->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
	ssize_t len;

	while ((len = recv(fd, buffer, sizeof buffer, is_dump ? 0 : MSG_DONTWAIT)) > 0) {
		struct nlmsghdr *answer = (void *)buffer;

		for (unsigned left = len; NLMSG_OK(answer, left); answer = NLMSG_NEXT(answer, left))
			if (answer->nlmsg_seq == request->nlmsg_seq &&
			    (answer->nlmsg_type == NLMSG_DONE || answer->nlmsg_type == NLMSG_ERROR) && is_dump)
				return;
	}
}

/* The begin of a batch names the generation that it is for, which is another one now: an attribute without meaning. */
static void without_generation(struct nlmsghdr *begin)
{
	enum { BATCH_BEGIN = NLMSG_MIN_TYPE, BODY = 4, NO_MEANING = 2 };

	if (begin->nlmsg_type == BATCH_BEGIN && begin->nlmsg_len > NLMSG_HDRLEN + BODY)
		((struct nlattr *)((char *)NLMSG_DATA(begin) + BODY))->nla_type = NO_MEANING;
}

static int replay(const char *path)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER), room = 256 << 20;
	FILE *file = fopen(path, "rb");
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	char *bytes = NULL;
	struct timeval patience = { .tv_sec = 10 };
	uint32_t len, had = 0;

	if (fd < 0 || !file)
		fail(path);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room))
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
	while (fread(&len, sizeof len, 1, file)) {
		if (len > had && !(bytes = realloc(bytes, had = len)))
			fail("realloc");
		if (!fread(bytes, len, 1, file))
			fail(path);
		without_generation((void *)bytes);
		if (sendto(fd, bytes, len, 0, (void *)&kernel, sizeof kernel) != (ssize_t)len)
			fail("sendto");
		answers(fd, (void *)bytes);
	}
	return 0;
}

static int flood(uint32_t count, int is_one, const char *address)
{
	struct {
		struct iphdr ip;
		struct udphdr udp;
		char data[18];
	} __attribute__((packed)) packet = {
		.ip = { .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP },
		.udp = { .dest = htons(443), .len = htons(sizeof packet - sizeof packet.ip) },
	};
	int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	uint32_t first = ntohl(inet_addr(address));
	struct sockaddr_in to = { .sin_family = AF_INET };

	if (fd < 0)
		fail("socket");
	for (uint32_t i = 0; i < count; i++) {
		uint32_t flow = is_one ? 0 : i;

		packet.ip.saddr = htonl(0x0a000000 + (flow & 0xffff));
		packet.udp.source = htons(40000 + (flow >> 16));
		packet.ip.daddr = to.sin_addr.s_addr = htonl(first + flow);
		if (sendto(fd, &packet, sizeof packet, 0, (void *)&to, sizeof to) < 0)
			fail("sendto");
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "replay"))
		return replay(argv[2]);
	if (argc == 4)
		return flood(strtoul(argv[2], NULL, 10), !strcmp(argv[1], "packets"), argv[3]);
	return 2;
}

#endif
