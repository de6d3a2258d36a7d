/*
 * The destination: a thread a channel. Whoever received the next chunk of a device writes it, and then what waits behind
 * it; a chunk that is not the next one is parked.
 */

#define _GNU_SOURCE

#include "datapath.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READY_BUFFERS = 64 };

struct chunk {
    unsigned char *buffer;
    size_t length;
    int config;
    struct chunk *below; /* the one under it in the stack of spare buffers */
};

struct loader {
    pthread_mutex_t lock;
    struct chunk **parked; /* by index */
    uint32_t most;         /* how many indices there can be */
    uint32_t next;
    int busy;     /* somebody writes the device */
    int finished; /* its config has come */
    uint64_t done;
    int64_t last; /* when its last write ended */
};

static const struct options *options;
static struct loader loaders[MOST_DEVICES];
static struct chunk *spare;
static pthread_mutex_t spare_lock = PTHREAD_MUTEX_INITIALIZER;

static struct chunk *new_chunk(void)
{
    struct chunk *chunk = calloc(1, sizeof *chunk);
    if (!chunk)
        fail("out of memory");
    chunk->buffer = page_aligned(options->chunk);
    return chunk;
}

static struct chunk *take_buffer(void)
{
    pthread_mutex_lock(&spare_lock);
    struct chunk *chunk = spare;
    if (chunk)
        spare = chunk->below;
    pthread_mutex_unlock(&spare_lock);
    return chunk ? chunk : new_chunk();
}

static void give_buffer(struct chunk *chunk)
{
    pthread_mutex_lock(&spare_lock);
    chunk->below = spare;
    spare = chunk;
    pthread_mutex_unlock(&spare_lock);
}

static void write_chunk(int device, struct chunk *chunk)
{
    struct loader *loader = &loaders[device];
    size_t written = 0;

    while (options->writing != WRITE_NONE && written < chunk->length) {
        ssize_t more = pwrite(options->to[device], chunk->buffer + written, chunk->length - written,
                              loader->done + written);
        if (more < 0 && errno == EINTR)
            continue;
        if (more <= 0)
            fail("the state of a device cannot be written");
        written += more;
    }
    loader->done += chunk->length;
    loader->last = now();
}

/* With the device's lock held and nobody at it: write whatever is next and here. */
static void drain(int device, struct loader *loader)
{
    struct chunk *chunk;

    while (loader->next < loader->most && (chunk = loader->parked[loader->next])) {
        pthread_mutex_unlock(&loader->lock);
        if (!chunk->config)
            write_chunk(device, chunk);
        int config = chunk->config;
        give_buffer(chunk);
        pthread_mutex_lock(&loader->lock);
        loader->finished |= config;
        loader->parked[loader->next++] = NULL;
    }
}

static void deliver(int device, uint32_t index, struct chunk *chunk)
{
    struct loader *loader = &loaders[device];

    pthread_mutex_lock(&loader->lock);
    if (index >= loader->most || index < loader->next || loader->parked[index])
        fail("a chunk has come twice, or is too many");
    loader->parked[index] = chunk;
    if (!loader->busy) {
        loader->busy = 1;
        drain(device, loader);
        loader->busy = 0;
    }
    pthread_mutex_unlock(&loader->lock);
}

static void splice_chunk(struct loader *loader, int device, int channel, const int *ends, size_t left)
{
    while (left) {
        ssize_t got = splice(channel, NULL, ends[1], NULL, left, 0);
        if (got <= 0)
            fail("a channel cannot be spliced from");
        left -= got;
        while (got) {
            off_t at = loader->done;
            ssize_t more = splice(ends[0], NULL, options->to[device], &at, got, 0);
            if (more <= 0)
                fail("the state of a device cannot be spliced");
            got -= more;
            loader->done += more;
        }
    }
    loader->last = now();
}

/* Moves the chunk past the buffers if it is the device's next and nobody is at the device; returns whether it was. */
static int pass(int device, uint32_t index, int channel, const int *ends, size_t length)
{
    struct loader *loader = &loaders[device];

    pthread_mutex_lock(&loader->lock);
    int next = !loader->busy && index == loader->next;
    if (next) {
        loader->busy = 1;
        pthread_mutex_unlock(&loader->lock);
        splice_chunk(loader, device, channel, ends, length);
        pthread_mutex_lock(&loader->lock);
        loader->next++;
        drain(device, loader);
        loader->busy = 0;
    }
    pthread_mutex_unlock(&loader->lock);
    return next;
}

/* Returns 0 at the end of the channel. */
static int receive_exactly(int channel, unsigned char *buffer, size_t size)
{
    size_t have = 0;
    while (have < size) {
        ssize_t got = recv(channel, buffer + have, size - have, MSG_WAITALL);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 || (!got && have))
            fail("a channel has broken");
        if (!got)
            return 0;
        have += got;
    }
    return 1;
}

static void *receive(void *argument)
{
    int channel = *(const int *)argument;
    int ends[2];
    unsigned char header[HEADER_SIZE];

    if (pipe(ends))
        fail("no pipe can be made");
    fcntl(ends[1], F_SETPIPE_SZ, (int)options->chunk);

    while (receive_exactly(channel, header, HEADER_SIZE)) {
        struct chunk_header fields = parse_header(header);
        if (fields.device >= (uint32_t)options->devices || fields.length > options->chunk)
            fail("a packet does not fit");
        if (options->writing == WRITE_SPLICE && !fields.config &&
            pass(fields.device, fields.index, channel, ends, fields.length))
            continue;
        struct chunk *chunk = take_buffer();
        chunk->length = fields.length;
        chunk->config = fields.config;
        if (fields.length && !receive_exactly(channel, chunk->buffer, fields.length))
            fail("a channel has ended in the middle of a chunk");
        deliver(fields.device, fields.index, chunk);
    }
    return NULL;
}

void run_destination(const struct options *given, const int *channels, int ready, struct account *account)
{
    pthread_t threads[MOST_CHANNELS];

    options = given;
    for (int number = 0; number < READY_BUFFERS; number++)
        give_buffer(new_chunk());
    for (int number = 0; number < options->devices; number++) {
        struct loader *loader = &loaders[number];
        pthread_mutex_init(&loader->lock, NULL);
        /* Where a splice ends in the middle of a chunk there are more of them; a page each is the most. */
        loader->most = options->size / 4096 + 2;
        loader->parked = calloc(loader->most, sizeof *loader->parked);
        if (!loader->parked)
            fail("out of memory");
    }
    for (int number = 0; number < options->channels; number++)
        if (pthread_create(&threads[number], NULL, receive, (void *)&channels[number]))
            fail("no thread can be made");
    count_cpu(account, -1);
    if (write(ready, "", 1) != 1)
        fail("the source has gone");
    for (int number = 0; number < options->channels; number++)
        pthread_join(threads[number], NULL);
    count_cpu(account, 1);
    errno = 0;
    for (int number = 0; number < options->devices; number++) {
        if (!loaders[number].finished)
            fail("the channels have ended before the state");
        account->bytes += loaders[number].done;
        if (loaders[number].last > account->nanoseconds)
            account->nanoseconds = loaders[number].last;
    }
}
