/* The 288 bytes before each chunk, the same that migpool/wire/devicestate.py writes. */

#include "datapath.h"

#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAGIC = 0x11223344,
    VERSION = 1,
    DEVICE_STATE = 0x40,
    IDSTR_AT = 12,
    IDSTR_SIZE = 256,
    INSTANCE_AT = 268,
    SIZE_AT = 272,
    CHUNK_AT = 276,
    CHUNK_HEADER = 12,
};

static void put(unsigned char *at, uint32_t value)
{
    value = htobe32(value);
    memcpy(at, &value, sizeof value);
}

static uint32_t get(const unsigned char *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return be32toh(value);
}

void pack_header(unsigned char *header, const struct chunk_header *fields)
{
    put(header, MAGIC);
    put(header + 4, VERSION);
    put(header + 8, DEVICE_STATE);
    memset(header + IDSTR_AT, 0, IDSTR_SIZE);
    snprintf((char *)header + IDSTR_AT, IDSTR_SIZE, "bench%u/vfio", fields->device);
    put(header + INSTANCE_AT, 0);
    put(header + SIZE_AT, fields->length + CHUNK_HEADER);
    put(header + CHUNK_AT, 0);
    put(header + CHUNK_AT + 4, fields->index);
    put(header + CHUNK_AT + 8, fields->config);
}

struct chunk_header parse_header(const unsigned char *header)
{
    struct chunk_header fields;
    char *end;

    if (get(header) != MAGIC || get(header + 4) != VERSION || get(header + 8) != DEVICE_STATE)
        fail("a packet header is wrong");
    if (strncmp((const char *)header + IDSTR_AT, "bench", 5))
        fail("a packet is for an unknown device");
    fields.device = strtoul((const char *)header + IDSTR_AT + 5, &end, 10);
    fields.length = get(header + SIZE_AT) - CHUNK_HEADER;
    fields.index = get(header + CHUNK_AT + 4);
    fields.config = get(header + CHUNK_AT + 8);
    return fields;
}
