/* A device in a process of its own: writes the content of a memfd into a pipe or a UNIX socket. */

#include "datapath.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int feed(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: datapath feed MEMFD DESCRIPTOR SIZE CHUNK\n");
        return 2;
    }
    int state = atoi(argv[2]), out = atoi(argv[3]);
    size_t size = strtoull(argv[4], NULL, 10), chunk = strtoull(argv[5], NULL, 10);
    const char *content = mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_POPULATE, state, 0);
    if (content == MAP_FAILED)
        fail("the state cannot be mapped");
    signal(SIGPIPE, SIG_IGN);
    for (size_t done = 0; done < size;) {
        ssize_t more = write(out, content + done, size - done < chunk ? size - done : chunk);
        if (more < 0 && errno == EINTR)
            continue;
        if (more <= 0)
            fail("nobody reads the state");
        done += more;
    }
    return 0;
}
