/*
 * Moves the state of devices from one process to another as migpool's data path does, in C: what Python is measured
 * against. The source is a child of the program, the destination its parent.
 *
 *     datapath move OPTION ...      prints one line of JSON: seconds, bytes, CPU seconds of both processes
 *     datapath feed ...             a device that writes its state into a pipe or a socket
 */

#define _GNU_SOURCE

#include "datapath.h"

#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TIME_LIMIT = 120 }; /* seconds until a program that hangs is ended */

void fail(const char *what)
{
    if (errno)
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
    else
        fprintf(stderr, "%s\n", what);
    exit(1);
}

/* Memory that begins on a page and whose pages are there already. */
void *page_aligned(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED)
        fail("out of memory");
    memset(memory, 1, size);
    return memory;
}

static void prepare(int sock, const struct options *options)
{
    int one = 1;
    if (options->unix_sockets)
        return;
    if (setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one))
        fail("TCP_NODELAY");
    if (setsockopt(sock, IPPROTO_TCP, TCP_CONGESTION, options->congestion, strlen(options->congestion)))
        fail("TCP_CONGESTION");
}

static int open_listener(const struct options *options, struct sockaddr_storage *address, socklen_t *length)
{
    struct sockaddr_in *in = (struct sockaddr_in *)address;
    sa_family_t family = options->unix_sockets ? AF_UNIX : AF_INET;

    memset(address, 0, sizeof *address);
    address->ss_family = family;
    /* With its family alone a UNIX socket is bound to an unused name in the abstract namespace. */
    socklen_t bound = options->unix_sockets ? sizeof family : sizeof *in;
    if (!options->unix_sockets)
        in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(family, SOCK_STREAM, 0);
    *length = sizeof *address;
    if (listener < 0 || bind(listener, (struct sockaddr *)address, bound) || listen(listener, MOST_CHANNELS) ||
        getsockname(listener, (struct sockaddr *)address, length))
        fail("no socket to listen on");
    return listener;
}

static void source_process(const struct options *options, const struct sockaddr_storage *address, socklen_t length,
                           int ready, int answer)
{
    int channels[MOST_CHANNELS];
    struct account account = {0};
    char byte;

    for (int number = 0; number < options->channels; number++) {
        channels[number] = socket(address->ss_family, SOCK_STREAM, 0);
        if (channels[number] < 0 || connect(channels[number], (const struct sockaddr *)address, length))
            fail("the destination does not answer");
        prepare(channels[number], options);
    }
    if (read(ready, &byte, 1) != 1)
        fail("the destination is not ready");
    run_source(options, channels, &account);
    if (write(answer, &account, sizeof account) != sizeof account)
        fail("the result cannot be passed on");
}

static void report(const struct account *source, const struct account *destination)
{
    printf("{\"seconds\": %.9f, \"bytes\": %llu, \"source_user\": %.6f, \"source_system\": %.6f, "
           "\"destination_user\": %.6f, \"destination_system\": %.6f}\n",
           (destination->nanoseconds - source->nanoseconds) * 1e-9, (unsigned long long)destination->bytes,
           source->user, source->system, destination->user, destination->system);
}

static int move(const struct options *options)
{
    struct sockaddr_storage address;
    socklen_t length;
    int ready[2], answer[2], channels[MOST_CHANNELS], status;
    struct account source, destination = {0};

    int listener = open_listener(options, &address, &length);
    if (pipe(ready) || pipe(answer))
        fail("no pipe can be made");
    pid_t child = fork();
    if (child < 0)
        fail("no process can be made");
    alarm(TIME_LIMIT);
    if (!child) {
        close(ready[1]);
        close(listener);
        source_process(options, &address, length, ready[0], answer[1]);
        exit(0);
    }
    close(answer[1]);
    for (int number = 0; number < options->channels; number++) {
        channels[number] = accept(listener, NULL, NULL);
        if (channels[number] < 0)
            fail("the source does not come");
        prepare(channels[number], options);
    }
    run_destination(options, channels, ready[1], &destination);
    if (read(answer[0], &source, sizeof source) != sizeof source || waitpid(child, &status, 0) != child || status)
        fail("the source has failed");
    errno = 0;
    if (source.bytes != destination.bytes)
        fail("not all that was sent has come");
    report(&source, &destination);
    return 0;
}

static int descriptors(char *text, int *found)
{
    int count = 0;
    for (char *word = strtok(text, ","); word && count < MOST_DEVICES; word = strtok(NULL, ","))
        found[count++] = atoi(word);
    return count;
}

static int choice(const char *text, const char *const *names)
{
    for (int number = 0; names[number]; number++)
        if (!strcmp(text, names[number]))
            return number;
    fprintf(stderr, "datapath: no such choice: %s\n", text);
    exit(2);
}

int main(int argc, char **argv)
{
    static const char *const readings[] = {"none", "pread", "read", "recv", "splice", NULL};
    static const char *const writings[] = {"none", "pwrite", "splice", NULL};
    static const char *const transports[] = {"tcp", "unix", NULL};
    static const struct option known[] = {
        {"read", required_argument, NULL, 'r'},     {"write", required_argument, NULL, 'w'},
        {"transport", required_argument, NULL, 't'}, {"congestion", required_argument, NULL, 'g'},
        {"channels", required_argument, NULL, 'n'},  {"devices", required_argument, NULL, 'd'},
        {"chunk", required_argument, NULL, 'c'},     {"size", required_argument, NULL, 's'},
        {"from", required_argument, NULL, 'f'},      {"to", required_argument, NULL, 'o'},
        {"busy", no_argument, NULL, 'b'},            {"workers", required_argument, NULL, 'k'},
        {NULL, 0, NULL, 0},
    };
    struct options options = {.congestion = "cubic", .channels = 2, .devices = 4, .chunk = 1 << 20, .size = 1 << 28};
    int option, from = 0, to = 0;

    if (argc > 1 && !strcmp(argv[1], "feed"))
        return feed(argc, argv);
    if (argc < 2 || strcmp(argv[1], "move")) {
        fprintf(stderr, "usage: datapath move|feed ...\n");
        return 2;
    }
    optind = 2;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'r': options.reading = choice(optarg, readings); break;
        case 'w': options.writing = choice(optarg, writings); break;
        case 't': options.unix_sockets = choice(optarg, transports); break;
        case 'g': options.congestion = optarg; break;
        case 'n': options.channels = atoi(optarg); break;
        case 'd': options.devices = atoi(optarg); break;
        case 'c': options.chunk = strtoull(optarg, NULL, 10); break;
        case 's': options.size = strtoull(optarg, NULL, 10); break;
        case 'f': from = descriptors(optarg, options.from); break;
        case 'o': to = descriptors(optarg, options.to); break;
        case 'k': options.workers = atoi(optarg); break;
        case 'b': options.busy = 1; break;
        default: return 2;
        }
    }
    if (options.devices < 1 || options.devices > MOST_DEVICES || options.channels < 1 ||
        options.channels > MOST_CHANNELS || options.chunk < 4096 || options.chunk % 4096 ||
        (options.reading != READ_NONE && from != options.devices) ||
        (options.writing != WRITE_NONE && to != options.devices)) {
        fprintf(stderr, "datapath: the options do not fit together\n");
        return 2;
    }
    return move(&options);
}
