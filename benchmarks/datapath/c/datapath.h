/* What the parts of the C program share: options, the packet header, and how a failure ends the program. */

#ifndef DATAPATH_H
#define DATAPATH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <time.h>

enum { MOST_DEVICES = 64, MOST_CHANNELS = 64, HEADER_SIZE = 288, CONFIG_SIZE = 16 };

/* How a device's state is had at the source. */
enum reading {
    READ_NONE,   /* the buffer counts as filled: only the sockets are measured */
    READ_PREAD,  /* pread(2) from a memfd */
    READ_READ,   /* read(2) from a pipe until the chunk is full */
    READ_RECV,   /* recv(2) from a UNIX socket, MSG_WAITALL */
    READ_SPLICE, /* splice(2) from a memfd through a pipe into the channel */
};

/* What becomes of it at the destination. */
enum writing {
    WRITE_NONE,   /* nothing */
    WRITE_PWRITE, /* pwrite(2) into a memfd */
    WRITE_SPLICE, /* splice(2) from the channel through a pipe into a memfd; pwrite(2) for what comes out of order */
};

struct options {
    enum reading reading;
    enum writing writing;
    int unix_sockets;       /* 1: the channels are UNIX sockets; 0: TCP over loopback */
    const char *congestion; /* TCP congestion control of the channels */
    int busy;               /* 1: a thread computes beside it, in the source's process */
    int channels;
    int devices;
    int workers;   /* threads at the source; 0: one a device */
    size_t chunk;  /* bytes a chunk, a multiple of the page */
    uint64_t size; /* bytes of state a device */
    int from[MOST_DEVICES];
    int to[MOST_DEVICES];
};

/* What one process has to say. */
struct account {
    int64_t nanoseconds; /* CLOCK_MONOTONIC of the first read (source), of the end of the last write (destination) */
    uint64_t bytes;      /* of state, without headers and configs */
    double user;         /* CPU seconds since the migration was set up */
    double system;
};

/* The header of one chunk, in the byte order of the machine. */
struct chunk_header {
    uint32_t device;
    uint32_t index;
    uint32_t length; /* of the chunk, without headers */
    uint32_t config; /* 1: this is the device's config, its last index */
};

void pack_header(unsigned char *header, const struct chunk_header *fields);
struct chunk_header parse_header(const unsigned char *header);

void run_source(const struct options *options, const int *channels, struct account *account);
void run_destination(const struct options *options, const int *channels, int ready, struct account *account);
int feed(int argc, char **argv);

void *page_aligned(size_t size);
_Noreturn void fail(const char *what);

static inline int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* CPU time of this process so far, taken off (sign -1) or added (sign 1). */
static inline void count_cpu(struct account *account, int sign)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    account->user += sign * (usage.ru_utime.tv_sec + usage.ru_utime.tv_usec * 1e-6);
    account->system += sign * (usage.ru_stime.tv_sec + usage.ru_stime.tv_usec * 1e-6);
}

#endif
