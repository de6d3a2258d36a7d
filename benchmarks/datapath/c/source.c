/* The source: workers that take one device after the other; who read a chunk sends it on an idle channel. */

#define _GNU_SOURCE

#include "datapath.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* Channels that nobody sends on, first in first out; and who sends. */
struct idle {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int channels[MOST_CHANNELS];
    int count;
    int senders; /* devices that have sent some chunks and not the last */
    int all;     /* how many channels there are */
};

struct saver {
    const struct options *options;
    struct idle *idle;
    int number;
    int pipe[2];
    int channel;    /* the one that it had last, -1 before */
    int64_t first; /* when its first read began */
    uint64_t done; /* bytes of state read so far */
    unsigned char *buffer;
    unsigned char header[HEADER_SIZE];
};

/* The one that the saver had last if it is idle, unless there are too few savers to use all channels like that. */
static int take_channel(struct idle *idle, int last)
{
    int place = 0;

    pthread_mutex_lock(&idle->lock);
    idle->senders += last < 0;
    while (!idle->count)
        pthread_cond_wait(&idle->changed, &idle->lock);
    for (int number = 0; idle->senders >= idle->all && number < idle->count; number++)
        if (idle->channels[number] == last)
            place = number;
    int channel = idle->channels[place];
    idle->count--;
    memmove(idle->channels + place, idle->channels + place + 1, (idle->count - place) * sizeof channel);
    pthread_mutex_unlock(&idle->lock);
    return channel;
}

static void give_channel(struct idle *idle, int channel, int was_last)
{
    pthread_mutex_lock(&idle->lock);
    idle->channels[idle->count++] = channel;
    idle->senders -= was_last;
    pthread_cond_signal(&idle->changed);
    pthread_mutex_unlock(&idle->lock);
}

/* Fill the saver's buffer, or its pipe, with the next chunk; returns its length, 0 at the end of the state. */
static size_t read_chunk(struct saver *saver)
{
    const struct options *options = saver->options;
    int fd = options->from[saver->number];
    uint64_t left = options->size - saver->done;
    size_t want = left < options->chunk ? left : options->chunk;
    size_t filled = 0;

    while (filled < want) {
        ssize_t got = 0;
        switch (options->reading) {
        case READ_NONE:
            got = want;
            break;
        case READ_PREAD:
            got = pread(fd, saver->buffer + filled, want - filled, saver->done + filled);
            break;
        case READ_READ:
            got = read(fd, saver->buffer + filled, want - filled);
            break;
        case READ_RECV:
            got = recv(fd, saver->buffer + filled, want - filled, MSG_WAITALL);
            break;
        case READ_SPLICE: {
            off_t at = saver->done;
            got = splice(fd, &at, saver->pipe[1], NULL, want, 0);
            want = got > 0 ? (size_t)got : want; /* as much as the pipe holds is a chunk */
            break;
        }
        }
        if (got < 0 && errno == EINTR)
            continue;
        if (!got)
            errno = 0;
        if (got <= 0)
            fail("the state of a device cannot be read to its end");
        filled += got;
    }
    saver->done += filled;
    return filled;
}

static void send_buffers(int channel, struct iovec *buffers, int count)
{
    while (count) {
        struct msghdr message = {.msg_iov = buffers, .msg_iovlen = count};
        ssize_t sent = sendmsg(channel, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            fail("a channel cannot be written");
        while (count && (size_t)sent >= buffers->iov_len) {
            sent -= buffers->iov_len;
            buffers++;
            count--;
        }
        if (count) {
            buffers->iov_base = (char *)buffers->iov_base + sent;
            buffers->iov_len -= sent;
        }
    }
}

static void send_spliced(struct saver *saver, int channel, size_t length)
{
    if (send(channel, saver->header, HEADER_SIZE, MSG_MORE | MSG_NOSIGNAL) != HEADER_SIZE)
        fail("a channel cannot be written");
    while (length) {
        ssize_t sent = splice(saver->pipe[0], NULL, channel, NULL, length, 0);
        if (sent <= 0)
            fail("a channel cannot be spliced into");
        length -= sent;
    }
}

static void send_chunk(struct saver *saver, uint32_t index, size_t length, int config)
{
    struct chunk_header fields = {saver->number, index, length, config};
    pack_header(saver->header, &fields);
    int channel = saver->channel = take_channel(saver->idle, saver->channel);
    if (saver->options->reading == READ_SPLICE && !config) {
        send_spliced(saver, channel, length);
    } else {
        struct iovec buffers[2] = {{saver->header, HEADER_SIZE}, {saver->buffer, length}};
        send_buffers(channel, buffers, 2);
    }
    give_channel(saver->idle, channel, config);
}

static void save(struct saver *saver)
{
    uint32_t index = 0;
    size_t length;

    saver->first = now();
    while ((length = read_chunk(saver)))
        send_chunk(saver, index++, length, 0);
    send_chunk(saver, index, CONFIG_SIZE, 1);
}

static struct saver savers[MOST_DEVICES];
static pthread_barrier_t start;

static void *work(void *argument)
{
    static atomic_int taken;
    const struct options *options = argument;
    int number;

    pthread_barrier_wait(&start);
    while ((number = atomic_fetch_add(&taken, 1)) < options->devices)
        save(&savers[number]);
    return NULL;
}

/* Computes until the process ends, as a device model in the same process would. */
static void *compute(void *argument)
{
    volatile uint64_t *number = argument;

    for (;;)
        *number = *number * 1103515245 % 2147483647;
    return NULL;
}

void run_source(const struct options *options, const int *channels, struct account *account)
{
    static struct idle idle = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    pthread_t workers[MOST_DEVICES];
    int count = options->workers && options->workers < options->devices ? options->workers : options->devices;

    for (int number = 0; number < options->channels; number++)
        give_channel(&idle, channels[number], 0);
    idle.all = options->channels;
    if (pthread_barrier_init(&start, NULL, count + 1))
        fail("no barrier can be made");
    for (int number = 0; number < options->devices; number++) {
        struct saver *saver = &savers[number];
        saver->options = options;
        saver->idle = &idle;
        saver->number = number;
        saver->channel = -1;
        saver->buffer = page_aligned(options->chunk);
        if (options->reading == READ_SPLICE) {
            if (pipe(saver->pipe))
                fail("no pipe can be made");
            fcntl(saver->pipe[1], F_SETPIPE_SZ, (int)options->chunk);
        }
    }
    for (int number = 0; number < count; number++)
        if (pthread_create(&workers[number], NULL, work, (void *)options))
            fail("no thread can be made");
    if (options->busy) {
        static volatile uint64_t number = 1;
        pthread_t computing;
        if (pthread_create(&computing, NULL, compute, (void *)&number) || pthread_detach(computing))
            fail("no thread can be made");
    }
    count_cpu(account, -1);
    pthread_barrier_wait(&start);
    for (int number = 0; number < count; number++)
        pthread_join(workers[number], NULL);
    for (int number = 0; number < options->devices; number++) {
        const struct saver *saver = &savers[number];
        account->bytes += saver->done;
        if (!account->nanoseconds || saver->first < account->nanoseconds)
            account->nanoseconds = saver->first;
    }
    count_cpu(account, 1);
}
