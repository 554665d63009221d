/*
 * delay.c - a network link with a delay, for kernels without netem: delay NAMESPACE NAMESPACE MICROSECONDS.
 *
 * Makes the TUN device "bench0" in both network namespaces, and carries each packet from one to the other that many
 * microseconds after it was sent. Prints "ready" when both devices are there; ends with its standard input.
 */
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define PACKET_BYTES_MAX 65536u
#define PACKETS_MAX 1024u /* on their way in one direction; a power of two. The device's queue holds what is above. */
#define NS_PER_S 1000000000u

struct packet {
    uint64_t due_ns;
    size_t length;
    char data[PACKET_BYTES_MAX];
};

struct direction {
    int from;
    int to;
    uint64_t delay_ns;
    unsigned int first; /* packets first to end-1, modulo PACKETS_MAX, are on their way */
    unsigned int end;
    struct packet *packets;
};

static void fail(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static int make_device(const char *namespace)
{
    char path[256];
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI, .ifr_name = "bench0"};
    int fd;
    int tun;

    snprintf(path, sizeof(path), "/run/netns/%s", namespace);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) < 0) {
        fail(path);
    }
    close(fd);
    tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tun < 0 || ioctl(tun, TUNSETIFF, &request) < 0) {
        fail("/dev/net/tun");
    }
    return tun;
}

/* Take what has been sent, while there is room. */
static void take_packets(struct direction *direction)
{
    while (direction->end - direction->first < PACKETS_MAX) {
        struct packet *packet = &direction->packets[direction->end % PACKETS_MAX];
        ssize_t length = read(direction->from, packet->data, sizeof(packet->data));

        if (length <= 0) {
            return;
        }
        packet->length = (size_t)length;
        packet->due_ns = now_ns() + direction->delay_ns;
        direction->end++;
    }
}

static void deliver_packets(struct direction *direction)
{
    while (direction->first != direction->end) {
        struct packet *packet = &direction->packets[direction->first % PACKETS_MAX];

        if (packet->due_ns > now_ns()) {
            return;
        }
        if (write(direction->to, packet->data, packet->length) < 0) {
            perror("lost a packet");
        }
        direction->first++;
    }
}

static void wait_for_packets(struct direction *direction)
{
    bool has_room = direction->end - direction->first < PACKETS_MAX;
    struct pollfd poll = {.fd = direction->from, .events = (short)(has_room ? POLLIN : 0)};
    uint64_t now = now_ns();
    struct timespec timeout = {0};
    uint64_t due_ns = 0;

    if (direction->first != direction->end) {
        due_ns = direction->packets[direction->first % PACKETS_MAX].due_ns;
        due_ns = due_ns > now ? due_ns - now : 0;
        timeout = (struct timespec){.tv_sec = (time_t)(due_ns / NS_PER_S), .tv_nsec = (long)(due_ns % NS_PER_S)};
    }
    ppoll(&poll, 1, direction->first != direction->end ? &timeout : NULL, NULL);
}

static void *carry(void *argument)
{
    struct direction *direction = argument;

    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* else each packet is up to 50 us late */
    for (;;) {
        wait_for_packets(direction);
        take_packets(direction);
        deliver_packets(direction);
    }
    return NULL;
}

static void start(struct direction *direction, int from, int to, uint64_t delay_ns)
{
    pthread_t thread;

    *direction = (struct direction){
        .from = from, .to = to, .delay_ns = delay_ns, .packets = calloc(PACKETS_MAX, sizeof(struct packet))};
    if (direction->packets == NULL || pthread_create(&thread, NULL, carry, direction) != 0) {
        fail("delay");
    }
}

int main(int argc, char **argv)
{
    static struct direction directions[2];
    uint64_t delay_ns;
    int ends[2];
    char byte;

    if (argc != 4) {
        fprintf(stderr, "usage: delay NAMESPACE NAMESPACE MICROSECONDS\n");
        return EXIT_FAILURE;
    }
    delay_ns = strtoull(argv[3], NULL, 10) * 1000u;
    for (int i = 0; i < 2; i++) {
        ends[i] = make_device(argv[i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        start(&directions[i], ends[i], ends[1 - i], delay_ns);
    }
    puts("ready");
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    return EXIT_SUCCESS;
}
