// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * The race's own programs: the bracket that measures what stands between its two halves, and the
 * subjects that are no program of their own.
 *
 * The kernel calls a tracepoint's programs in the order in which they were attached. begin_* is
 * attached before a subject and end_* after it, so the time from one to the other is the subject's,
 * with dispatch and the record that a classic tracepoint builds. Tracepoints are called with
 * preemption disabled: both halves run on one CPU.
 */
#include "kernel.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define LOOP_MAJOR 7

/* Times are counted exactly up to here, in nanoseconds; a longer one was interrupted. */
#define LONGEST_NS 16384

enum hook {
	HOOK_ISSUE,
	HOOK_COMPLETE,
	HOOKS
};

/* What one CPU measured at one hook. Only its own CPU writes it; user space takes differences. */
struct times {
	__u64 begun_ns;
	__u64 longer;
	__u32 count[LONGEST_NS]; /* by nanoseconds */
};

/* By CPU * HOOKS + hook. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct times);
} times SEC(".maps");

static __always_inline struct times *own_times(enum hook hook)
{
	__u32 index = bpf_get_smp_processor_id() * HOOKS + hook;

	return bpf_map_lookup_elem(&times, &index);
}

static __always_inline int begin(enum hook hook)
{
	struct times *own = own_times(hook);

	if (own)
		own->begun_ns = bpf_ktime_get_ns();
	return 0;
}

static __always_inline int end(enum hook hook, struct request *rq)
{
	__u64 now = bpf_ktime_get_ns(), taken;
	struct times *own = own_times(hook);
	struct gendisk *disk;

	if (!own || !own->begun_ns)
		return 0;
	taken = now - own->begun_ns;
	own->begun_ns = 0;
	/* Only now: looking at the disk before would warm the subject's cache. */
	disk = request_disk(rq);
	if (!disk || disk->major != LOOP_MAJOR)
		return 0;
	if (taken < LONGEST_NS)
		own->count[taken]++;
	else
		own->longer++;
	return 0;
}

SEC("tp_btf/block_rq_issue")
int begin_issue(__u64 *ctx)
{
	return begin(HOOK_ISSUE);
}

SEC("tp_btf/block_rq_complete")
int begin_complete(__u64 *ctx)
{
	return begin(HOOK_COMPLETE);
}

SEC("tp_btf/block_rq_issue")
int end_issue(__u64 *ctx)
{
	return end(HOOK_ISSUE, (struct request *)ctx[0]);
}

SEC("tp_btf/block_rq_complete")
int end_complete(__u64 *ctx)
{
	return end(HOOK_COMPLETE, (struct request *)ctx[0]);
}

/* ---- what being called costs ---- */

SEC("tp_btf/block_rq_issue")
int empty_issue(__u64 *ctx)
{
	return 0;
}

SEC("tp_btf/block_rq_complete")
int empty_complete(__u64 *ctx)
{
	return 0;
}

SEC("tp/block/block_rq_issue")
int empty_classic_issue(void *ctx)
{
	return 0;
}

SEC("tp/block/block_rq_complete")
int empty_classic_complete(void *ctx)
{
	return 0;
}

/* ---- the floor: no latency can be known without reading a clock twice ---- */

SEC("tp_btf/block_rq_issue")
int floor_issue(__u64 *ctx)
{
	bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/block_rq_complete")
int floor_complete(__u64 *ctx)
{
	bpf_ktime_get_ns();
	return 0;
}

/*
 * ---- the design of the script that blkiolatd grew out of ----
 *
 * Classic tracepoints, the time of issue in a hash by device and sector, a hash of counters by device
 * and log2 slot. Nothing else: no operations, bytes, sums, maxima or errors.
 */

/* Where these two fields begin has never changed; the others have. */
struct record {
	__u64 common;
	__u32 dev;
	__u64 sector;
};

struct start_key {
	__u64 sector;
	__u32 dev;
	__u32 pad;
};

struct slot_key {
	__u32 dev;
	__u32 slot;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, struct start_key);
	__type(value, __u64);
} start SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, struct slot_key);
	__type(value, __u64);
} slots SEC(".maps");

static __always_inline __u32 log2_of(__u64 value)
{
	__u32 bit, result = 0;

#pragma unroll
	for (bit = 32; bit; bit >>= 1) {
		if (value >> bit) {
			value >>= bit;
			result += bit;
		}
	}
	return result;
}

SEC("tp/block/block_rq_issue")
int original_issue(struct record *record)
{
	struct start_key key = {.sector = record->sector, .dev = record->dev};
	__u64 now = bpf_ktime_get_ns();

	bpf_map_update_elem(&start, &key, &now, BPF_ANY);
	return 0;
}

SEC("tp/block/block_rq_complete")
int original_complete(struct record *record)
{
	struct start_key key = {.sector = record->sector, .dev = record->dev};
	struct slot_key slot = {.dev = record->dev};
	__u64 *began = bpf_map_lookup_elem(&start, &key), *count, zero = 0;

	if (!began)
		return 0;
	slot.slot = log2_of((bpf_ktime_get_ns() - *began) / 1000);
	count = bpf_map_lookup_elem(&slots, &slot);
	if (!count) {
		bpf_map_update_elem(&slots, &slot, &zero, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&slots, &slot);
	}
	if (count)
		__sync_fetch_and_add(count, 1);
	bpf_map_delete_elem(&start, &key);
	return 0;
}
