/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The contract between the BPF programs and src/probe: what lies in the maps. Rust's copy is
 * src/probe/layout.rs; both sides assert every size, and the maps are checked at load.
 */
#ifndef BLKIOLAT_H
#define BLKIOLAT_H

#include "histogram.h"

enum operation {
	OP_READ,
	OP_WRITE,
	OP_FLUSH,
	OP_DISCARD,
	OP_OTHER,
	OPERATIONS,
};

/* A device slot is 15 bits wide in an in-flight key. */
#define MAX_SLOTS 0x7fff
/* In the device cache: this device is not measured. */
#define IGNORED_SLOT 0x7fff
/* In the device cache, beside the slot: requests of this device may stand elsewhere than where they prefer.
 */
#define CACHE_DISPLACED 0x8000

#define CACHE_ENTRIES	4096
#define WAYS		4

/*
 * In-flight table: one request issued and not finally completed.
 * key = request address / 8 (48 bits) << 16 | device slot << 1 | requeued.
 * 0 is a free place, KEY_CLAIMED one whose owner has not written start_ns yet.
 */
#define KEY_CLAIMED  1ULL
#define KEY_REQUEUED 1ULL
/* Lowest bit of start_ns: user space cannot tell from sysfs whether such a request is in flight. */
#define START_UNCOUNTED 1ULL
struct inflight {
	__u64 key;
	__u64 start_ns;
};

/* One cache line: the places where one request may stand. */
struct inflight_set {
	struct inflight way[WAYS];
};

/* In flight of the classic probe: found by what the tracepoint prints. */
struct pending_key {
	__u64 sector;
	__u32 dev;
	__u16 operation;
	__u16 place; /* of a flush or another request without a sector, which look alike; else 0 */
};

struct pending {
	__u64 start_ns;
	__u32 bytes_left;
	__u16 slot;
	__u16 requeued;
};

/* How many requests of one operation that have no sector are told apart on one device. */
#define PLACES 16

/* A disk, written once by the program that first sees it; cell[] grows on demand. */
struct device {
	__u64 identity;
	__u32 major;
	__u32 minor;
	__u32 generation; /* odd while the slot is in use; the program adds 1 last, user space 1 to free it */
	__u32 cell[OPERATIONS]; /* number of the operation's cells + 1; 0 while it has none */
	__u32 pad[6];
	char name[32];
	__u32 pad_to_line[8];
};

/* Flow of requests of one device through one stripe (a CPU, or several that share it). */
struct flow {
	__u64 issued;
	__u64 completed;
	__u64 requeues;
	__u64 max_inflight; /* user space takes it by exchange with 0 */
	__u64 checked_ns;   /* when max_inflight was last compared */
	__u64 dropped;	    /* by user space, in the first stripe: records whose completions were missed */
	__u16 cell[OPERATIONS]; /* copy of device.cell: a completion needs no other line of the device */
	__u16 pad[3];
};

/* What one operation of one device did, on one stripe. All but max_ns only grow, and wrap. */
struct cell {
	__u64 bytes;
	__u64 sum_ns;
	__u64 max_ns; /* user space takes it by exchange with 0 */
	__u64 errors;
	__u32 buckets[BUCKETS];
	__u32 pad[7];
};

/* Losses since load; they only grow. */
struct losses {
	__u64 untracked_completions;
	__u64 inflight_table_full;
	__u64 device_table_full;
	__u64 missed_completions; /* seen when the request's place was used again */
};

_Static_assert(sizeof(struct inflight_set) == 64, "an in-flight set is a cache line");
_Static_assert(sizeof(struct device) == 128, "struct device");
_Static_assert(sizeof(struct flow) == 64, "a flow is a cache line");
_Static_assert(sizeof(struct cell) == 2176, "struct cell");
_Static_assert(sizeof(struct pending_key) == 16, "struct pending_key");
_Static_assert(sizeof(struct pending) == 16, "struct pending");
_Static_assert(sizeof(struct losses) == 32, "struct losses");

#endif
