// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Measures every block request from its first issue to its final completion. Mechanism only:
 * which devices count, how large the maps are and what the figures mean is decided in src/probe.
 *
 * Two sets of programs fill the same maps: the btf_* programs tell requests apart by address, the
 * classic_* programs, for kernels without BTF, by device, sector and operation.
 */
#include "kernel.h"
#include "blkiolat.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Set before load, constant to the verifier. */
const volatile __u32 stripe_mask = 0;	 /* stripe = CPU number & stripe_mask */
const volatile __u32 inflight_mask = 0;	 /* sets in the in-flight table - 1 */
const volatile __u32 inflight_shift = 6; /* log2 of a request's stride, rounded down */
/*
 * Several contexts can update one stripe: CPUs share it, or this kernel lets a program interrupt
 * itself on a CPU (before 05b24ff9b2cf, 6.1).
 */
const volatile __u8 shared_stripes = 1;
/* How long a CPU leaves the maximum in flight unchecked. */
const volatile __u64 max_check_ns = 0;

/* The maps' sizes are set before load. */
#define MMAPABLE_ARRAY(name_, type_)               \
	struct {                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);  \
		__uint(map_flags, BPF_F_MMAPABLE); \
		__uint(max_entries, 1);            \
		__type(key, __u32);                \
		__type(value, type_);              \
	} name_ SEC(".maps")

#define HASH(name_, key_, value_)                \
	struct {                                 \
		__uint(type, BPF_MAP_TYPE_HASH); \
		__uint(max_entries, 1);          \
		__type(key, key_);               \
		__type(value, value_);           \
	} name_ SEC(".maps")

/* Numbers that are free; user space fills it and gives numbers back. */
#define FREE_LIST(name_)                           \
	struct {                                   \
		__uint(type, BPF_MAP_TYPE_QUEUE);  \
		__uint(max_entries, 1);            \
		__uint(value_size, sizeof(__u32)); \
	} name_ SEC(".maps")

MMAPABLE_ARRAY(inflight, struct inflight_set);
/* Requests that found their set full; rare. Key: an in-flight key >> 16. */
HASH(inflight_overflow, __u64, struct inflight);
HASH(pending, struct pending_key, struct pending);
MMAPABLE_ARRAY(devices, struct device); /* by device slot */
HASH(device_slots, __u64, __u32);	/* identity to device slot */
/*
 * Identity << 16 | CACHE_DISPLACED | device slot, by the low bits of the identity: saves the hash on each
 * issue, and a look at `displaced` and `overflowed`, which would be a cache line more.
 */
MMAPABLE_ARRAY(device_cache, __u64);
/* One element holds all stripes of a device or cell: a single look-up, and its size is set before load. */
#define MMAPABLE_ARRAY_OF_STRIPES(name_, type_)    \
	struct {                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);  \
		__uint(map_flags, BPF_F_MMAPABLE); \
		__uint(max_entries, 1);            \
		__uint(key_size, sizeof(__u32));   \
		__uint(value_size, sizeof(type_)); \
	} name_ SEC(".maps")

MMAPABLE_ARRAY_OF_STRIPES(flows, struct flow); /* by device slot */
MMAPABLE_ARRAY_OF_STRIPES(cells, struct cell); /* by cell number */
HASH(assigned_cells, __u32, __u32);	       /* device slot << 3 | operation to cell number */
FREE_LIST(free_slots);
FREE_LIST(free_cells);

struct losses losses SEC(".bss.losses") = {};
/* Whether a request ever found the place that it prefers taken: spares the search of the others. See
 * CACHE_DISPLACED. */
__u32 displaced SEC(".bss.losses") = 0;
/* Whether inflight_overflow was ever used: spares a search to completions without a record. */
__u32 overflowed SEC(".bss.losses") = 0;

#define COUNT_LOSS(field) __sync_fetch_and_add(&losses.field, 1)

static __always_inline void add(__u64 *counter, __u64 value)
{
	if (shared_stripes)
		__sync_fetch_and_add(counter, value);
	else
		*counter += value;
}

static __always_inline __u32 stripe(void)
{
	return bpf_get_smp_processor_id() & stripe_mask;
}

/* All stripes of a device. */
static __always_inline struct flow *flows_of(__u32 slot)
{
	return bpf_map_lookup_elem(&flows, &slot);
}

/*
 * A kernel address as a plain number: the verifier forbids arithmetic on typed pointers, but the
 * difference of two pointers is a number (needs CAP_PERFMON). 2^51 bytes are told apart, more
 * than any machine's memory spans.
 */
static __always_inline __u64 number_of(const void *address)
{
	__u64 number = (__u64)address;
	void *origin = &losses;

	asm volatile("%0 -= %1" : "+r"(number) : "r"(origin));
	return number;
}

/* ---- devices ---- */

/*
 * What a disk is known by, 48 bits. diskseq is never used twice. Before 5.15 the address serves, together
 * with the number, because another disk may soon have the address; user space forgets it when the disk is
 * removed, and a last request can make it known once more.
 */
static __always_inline __u64 identity_of(struct gendisk *disk)
{
	__u64 number;

	if (bpf_core_field_exists(disk->diskseq))
		return disk->diskseq & 0xffffffffffffULL;
	number = (__u64)(__u32)disk->major << 20 | (__u32)disk->first_minor;
	return (number_of(disk) << 13 >> 16 ^ number << 16) & 0xffffffffffffULL;
}

static __always_inline __u32 cache_index(__u64 identity)
{
	/* The classic probe's identity is dev_t, an old kernel's an address: fold the high bits in. */
	return (identity ^ identity >> 8 ^ identity >> 20) & (CACHE_ENTRIES - 1);
}

/* Finds or makes the cache entry's low half of a disk that is not in the cache; IGNORED_SLOT when no slot is
 * free. */
static __noinline __u32 register_device(__u64 identity, __u32 major, __u32 minor, const void *name)
{
	__u32 index = cache_index(identity), slot;
	struct device *device;
	__u32 *known;
	__u64 *cached;

	known = bpf_map_lookup_elem(&device_slots, &identity);
	if (!known) {
		if (bpf_map_pop_elem(&free_slots, &slot)) {
			COUNT_LOSS(device_table_full);
			return IGNORED_SLOT;
		}
		device = bpf_map_lookup_elem(&devices, &slot);
		if (!device)
			return IGNORED_SLOT;
		device->identity = identity;
		device->major = major;
		device->minor = minor;
		if (name)
			bpf_probe_read_kernel_str(device->name, sizeof(device->name), name);
		if (bpf_map_update_elem(&device_slots, &identity, &slot, BPF_NOEXIST) == 0)
			__sync_fetch_and_add(&device->generation, 1);
		else /* another CPU was faster, or the map is full */
			bpf_map_push_elem(&free_slots, &slot, BPF_ANY);
		known = bpf_map_lookup_elem(&device_slots, &identity);
		if (!known) {
			COUNT_LOSS(device_table_full);
			return IGNORED_SLOT;
		}
	}
	slot = *known | (displaced ? CACHE_DISPLACED : 0);
	cached = bpf_map_lookup_elem(&device_cache, &index);
	if (cached)
		*cached = identity << 16 | slot;
	return slot;
}

/* The low half of a disk's cache entry. */
static __always_inline __u32 cached_half(__u64 identity, bool *hit)
{
	__u32 index = cache_index(identity);
	__u64 *cached = bpf_map_lookup_elem(&device_cache, &index);

	*hit = cached && *cached >> 16 == identity;
	return *hit ? *cached & 0xffff : IGNORED_SLOT;
}

static __always_inline __u32 slot_in(__u32 half)
{
	return half & ~CACHE_DISPLACED;
}

/* Whether user space said that the disk is not measured. */
static __noinline bool is_ignored(__u64 identity)
{
	__u32 *slot = bpf_map_lookup_elem(&device_slots, &identity);

	return slot && *slot >= IGNORED_SLOT;
}

static __always_inline __u32 half_of_disk(struct gendisk *disk)
{
	__u64 identity = identity_of(disk);
	bool hit;
	__u32 half = cached_half(identity, &hit);

	if (unlikely(!hit))
		return register_device(identity, disk->major, disk->first_minor, disk->disk_name);
	return half;
}

/* The device slot of a disk; IGNORED_SLOT for one that is filtered out or has no place. */
static __always_inline __u32 slot_of_disk(struct gendisk *disk)
{
	return slot_in(half_of_disk(disk));
}

/* Notes, before it happens, that a request of this disk will not stand where it prefers. */
static __noinline void mark_displaced(__u64 identity)
{
	__u32 index = cache_index(identity);
	__u64 *cached = bpf_map_lookup_elem(&device_cache, &index);

	displaced = 1;
	if (cached && *cached >> 16 == identity)
		__sync_fetch_and_or(cached, CACHE_DISPLACED);
}

/* ---- counting, shared by both probes ---- */

static __always_inline __u32 operation_of(__u32 cmd_flags)
{
	__u32 operation = cmd_flags & REQ_OP_MASK;

	if (operation <= REQ_OP_DISCARD)
		return operation; /* the first four are numbered alike */
	return operation == REQ_OP_SECURE_ERASE ? OP_DISCARD : OP_OTHER;
}

/*
 * Compares the device's requests in flight with the maximum so far: before a completion, because
 * that is what ends a peak. Issues are summed before completions, so the figure never exceeds what
 * was in flight at one moment. Reading the other CPUs' stripes costs a cache miss each, so a CPU does
 * it at most once in max_check_ns.
 */
static __always_inline void check_max(struct flow *stripes, struct flow *own, __u64 now)
{
	__u64 inflight = 0;
	__u32 i;

	if (now - own->checked_ns < max_check_ns)
		return;
	own->checked_ns = now;
	for (i = 0; i <= stripe_mask; i++)
		inflight += *(volatile __u64 *)&stripes[i].issued;
	for (i = 0; i <= stripe_mask; i++)
		inflight -= *(volatile __u64 *)&stripes[i].completed;
	inflight -= stripes[0].dropped;
	if ((__s64)inflight > (__s64)own->max_inflight)
		own->max_inflight = inflight;
}

static __always_inline void count_issue(__u32 slot)
{
	struct flow *stripes = flows_of(slot);

	if (stripes)
		add(&stripes[stripe()].issued, 1);
}

/* Gives an operation of a device its cells, the same whichever CPU is first; 0 when none are free. */
static __noinline __u32 assign_cell(__u32 slot, __u32 operation)
{
	struct device *device = bpf_map_lookup_elem(&devices, &slot);
	__u32 key = slot << 3 | operation, number, *known;

	if (!device || operation >= OPERATIONS)
		return 0;
	known = bpf_map_lookup_elem(&assigned_cells, &key);
	if (!known) {
		if (bpf_map_pop_elem(&free_cells, &number))
			return 0;
		if (bpf_map_update_elem(&assigned_cells, &key, &number, BPF_NOEXIST))
			bpf_map_push_elem(&free_cells, &number, BPF_ANY);
		known = bpf_map_lookup_elem(&assigned_cells, &key);
		if (!known)
			return 0;
	}
	number = *known + 1;
	device->cell[operation] = number;
	return number;
}

static __always_inline struct cell *cell_of(struct flow *own, __u32 slot, __u32 operation, __u32 stripe)
{
	struct cell *stripes;
	__u32 index;

	OPAQUE(operation);
	if (operation >= OPERATIONS)
		return NULL;
	index = own->cell[operation];
	if (unlikely(!index)) {
		index = assign_cell(slot, operation);
		if (!index) {
			COUNT_LOSS(device_table_full);
			return NULL;
		}
		own->cell[operation] = index;
	}
	index--;
	stripes = bpf_map_lookup_elem(&cells, &index);
	return stripes ? &stripes[stripe] : NULL;
}

static __noinline void count_bytes(__u32 slot, __u32 operation, __u64 bytes)
{
	struct flow *flows = flows_of(slot);
	__u32 own = stripe();
	struct cell *cell;

	if (!flows)
		return;
	cell = cell_of(&flows[own], slot, operation, own);
	if (cell)
		add(&cell->bytes, bytes);
}

static __always_inline void count_in_cell(struct cell *cell, __u64 latency_ns, __u64 bytes, bool failed)
{
	__u32 bucket;

	bucket = bucket_of_ns(latency_ns);
	OPAQUE(bucket);
	if (bucket >= BUCKETS) /* never; for the verifier */
		return;
	add(&cell->bytes, bytes);
	add(&cell->sum_ns, latency_ns);
	if (latency_ns > cell->max_ns)
		cell->max_ns = latency_ns;
	if (failed)
		add(&cell->errors, 1);
	/* Last: a reader that counts this completion finds the rest, which it reads after it. */
	barrier();
	if (shared_stripes)
		__sync_fetch_and_add(&cell->buckets[bucket], 1);
	else
		cell->buckets[bucket]++;
}

static __always_inline void count_completion(__u32 slot, __u32 operation, __u64 latency_ns, __u64 bytes,
					     bool failed, __u64 now)
{
	__u32 own = stripe();
	struct flow *flows = flows_of(slot);
	struct cell *cell;

	if (!flows)
		return;
	check_max(flows, &flows[own], now);
	cell = cell_of(&flows[own], slot, operation, own);
	if (cell)
		count_in_cell(cell, latency_ns, bytes, failed);
	/* Last: a reader that sees it finds the rest, which it reads after it. */
	barrier();
	add(&flows[own].completed, 1);
}

static __always_inline void count_requeue(__u32 slot)
{
	struct flow *stripes = flows_of(slot);

	if (stripes)
		add(&stripes[stripe()].requeues, 1);
}

/* A request whose completion was missed is in flight no longer. */
static __noinline int count_missed(__u32 slot)
{
	struct flow *stripes = flows_of(slot);

	COUNT_LOSS(missed_completions);
	if (stripes)
		__sync_fetch_and_add(&stripes[0].dropped, 1);
	return 0;
}

/* Clocks of two CPUs may differ by a few nanoseconds: never below zero. */
static __always_inline __u64 elapsed(__u64 start_ns, __u64 now)
{
	return now > start_ns ? now - start_ns : 0;
}

/* ---- probe btf: requests told apart by address ---- */

/* How a free place is claimed: kernels before 5.12 have no atomic operation but addition. */
enum claim {
	CLAIM_CMPXCHG,
	CLAIM_STORE
};

static __always_inline __u64 key_of_request(struct request *rq)
{
	return number_of(rq) << 13 & ~0xffffULL;
}

/*
 * The set where a request stands, and the place there that it prefers. Neighbours in memory share a set: a
 * batch of requests, which have neighbouring tags, touches few cache lines.
 */
static __always_inline struct inflight_set *set_of_key(__u64 key, __u32 *preferred)
{
	__u64 place = key >> (16 - 3) >> inflight_shift;
	__u32 index = place / WAYS & inflight_mask;

	*preferred = place % WAYS;
	return bpf_map_lookup_elem(&inflight, &index);
}

static __always_inline bool same_request(__u64 held, __u64 key)
{
	return (held ^ key) >> 16 == 0;
}

/* The place that holds this request, whichever it is, or NULL. */
static __always_inline struct inflight *search_set(struct inflight_set *set, __u64 key)
{
	__u32 i;

#pragma unroll
	for (i = 0; i < WAYS; i++)
		if (same_request(set->way[i].key, key))
			return &set->way[i];
	return NULL;
}

static __always_inline struct inflight *find_inflight(__u64 key)
{
	__u32 preferred;
	struct inflight_set *set = set_of_key(key, &preferred);

	if (!set)
		return NULL;
	if (same_request(set->way[preferred].key, key))
		return &set->way[preferred];
	return unlikely(displaced) ? search_set(set, key) : NULL;
}

static __noinline int claim_overflow(__u64 key, __u64 now)
{
	struct inflight entry = {.key = key, .start_ns = now};
	__u64 number = key >> 16;

	overflowed = 1;
	return bpf_map_update_elem(&inflight_overflow, &number, &entry, BPF_ANY);
}

static __noinline struct inflight *find_overflow(__u64 key)
{
	__u64 number = key >> 16;

	return bpf_map_lookup_elem(&inflight_overflow, &number);
}

static __always_inline bool claim(struct inflight *entry, __u64 key, __u64 now, enum claim how)
{
	if (entry->key)
		return false;
	if (how == CLAIM_CMPXCHG) {
		if (__sync_val_compare_and_swap(&entry->key, 0, KEY_CLAIMED))
			return false;
	}
	entry->start_ns = now;
	*(volatile __u64 *)&entry->key = key;
	return true;
}

/* Issued again: a request that is in flight already. */
static __noinline void on_reissue(struct inflight *entry, __u64 key, __u64 now, __u32 slot)
{
	/* After a requeue, which does not restart the clock ... */
	if (entry->key & KEY_REQUEUED) {
		entry->key = key;
		return;
	}
	/*
	 * ... or a request whose completion was missed: it still stands for one in flight,
	 * and this one takes over from it. Counted here, because the kernel does not count them
	 * all: on 6.18 a softirq's completions were now and then passed by without a trace, tens
	 * in a million requests under load.
	 */
	COUNT_LOSS(missed_completions);
	entry->start_ns = now;
	if ((entry->key ^ key) & 0xffff) { /* it was another device's */
		entry->key = key;
		count_issue(slot);
	}
}

/*
 * START_UNCOUNTED for a request that the kernel leaves out of /sys/block/X/inflight: a device flush, which
 * has no accounting of its own, and passthrough.
 */
static __always_inline __u64 is_uncounted(struct request *rq)
{
	__u32 operation = operation_of(rq->cmd_flags);

	return operation == OP_FLUSH || operation == OP_OTHER ? START_UNCOUNTED : 0;
}

static __always_inline int on_issue(struct request *rq, enum claim how)
{
	struct gendisk *disk = request_disk(rq);
	struct inflight *entry;
	struct inflight_set *set;
	__u32 half, slot, preferred, i;
	__u64 key, now;

	if (!disk)
		return 0;
	half = half_of_disk(disk);
	slot = slot_in(half);
	if (slot >= IGNORED_SLOT)
		return 0;
	key = key_of_request(rq) | slot << 1;
	set = set_of_key(key, &preferred);
	if (!set)
		return 0;
	now = (bpf_ktime_get_ns() & ~START_UNCOUNTED) | is_uncounted(rq);

	entry = NULL;
	if (unlikely(same_request(set->way[preferred].key, key))) {
		entry = &set->way[preferred];
	} else if (unlikely(how == CLAIM_CMPXCHG ? half & CACHE_DISPLACED : displaced)) {
		entry = search_set(set, key);
		if (!entry && overflowed)
			entry = find_overflow(key);
	}
	if (unlikely(entry)) {
		on_reissue(entry, key, now, slot);
		return 0;
	}
	if (claim(&set->way[preferred], key, now, how)) {
		count_issue(slot);
		return 0;
	}
	if (how == CLAIM_CMPXCHG)
		mark_displaced(identity_of(disk));
	else
		displaced = 1;
#pragma unroll
	for (i = 0; i < WAYS; i++) {
		if (claim(&set->way[i], key, now, how)) {
			count_issue(slot);
			return 0;
		}
	}
	if (claim_overflow(key, now))
		COUNT_LOSS(inflight_table_full);
	else
		count_issue(slot);
	return 0;
}

/*
 * A completion without a record is expected of a request that was never issued (it failed before
 * that, or it is an empty flush), of the second completion, of no bytes, of a write that went through the
 * flush machinery and of any request of request-based device mapper (end_clone_bio(), then dm_end_request()),
 * and of a device that is not measured.
 */
static __noinline int no_record(struct request *rq, __u32 nr_bytes)
{
	struct gendisk *disk = request_disk(rq);
	__u32 operation = operation_of(rq->cmd_flags);

	if (!disk || rq->state == MQ_RQ_IDLE)
		return 0;
	if (!nr_bytes && !rq->__data_len && operation != OP_FLUSH && operation != OP_OTHER)
		return 0;
	if (!is_ignored(identity_of(disk)))
		COUNT_LOSS(untracked_completions);
	return 0;
}

static __always_inline int on_complete(struct request *rq, bool failed, __u32 nr_bytes)
{
	__u64 now = bpf_ktime_get_ns(), key = key_of_request(rq), start_ns, number;
	__u32 operation = operation_of(rq->cmd_flags), slot;
	struct inflight *entry = find_inflight(key);
	bool in_overflow = false;

	if (unlikely(!entry)) {
		if (overflowed)
			entry = find_overflow(key);
		if (!entry)
			return no_record(rq, nr_bytes);
		in_overflow = true;
	}
	slot = (entry->key & 0xffff) >> 1;
	/* blk_update_request() reports each part before it lowers __data_len: only the last one ends it. */
	if (unlikely(nr_bytes < rq->__data_len)) {
		count_bytes(slot, operation, nr_bytes);
		return 0;
	}
	start_ns = entry->start_ns;
	if (unlikely(in_overflow)) {
		number = key >> 16;
		bpf_map_delete_elem(&inflight_overflow, &number);
	} else {
		*(volatile __u64 *)&entry->key = 0;
	}
	/* The second completion, of no bytes, of a write that went through the flush machinery: the first was
	 * missed. */
	if (unlikely(!nr_bytes) && operation != OP_FLUSH && operation != OP_OTHER)
		return count_missed(slot);
	count_completion(slot, operation, elapsed(start_ns, now), nr_bytes, failed, now);
	return 0;
}

static __always_inline int on_requeue(struct request *rq)
{
	__u64 key = key_of_request(rq);
	struct inflight *entry;

	/*
	 * Not issued, or not again since it was given back: __blk_mq_requeue_request() reports that, too.
	 * What has its place is what another request left there whose completion was missed.
	 */
	if (rq->state == MQ_RQ_IDLE)
		return 0;
	entry = find_inflight(key);
	if (!entry && overflowed)
		entry = find_overflow(key);
	if (!entry)
		return 0;
	entry->key |= KEY_REQUEUED;
	count_requeue((entry->key & 0xffff) >> 1);
	return 0;
}

/*
 * a54895fa (5.11, and stable 5.10.137) dropped the first argument, the request_queue, of
 * block_rq_issue and block_rq_requeue. block_rq_complete never had it.
 */
SEC("tp_btf/block_rq_issue")
int btf_issue(__u64 *ctx)
{
	return on_issue((struct request *)ctx[0], CLAIM_CMPXCHG);
}

SEC("tp_btf/block_rq_issue")
int btf_issue_no_cmpxchg(__u64 *ctx)
{
	return on_issue((struct request *)ctx[0], CLAIM_STORE);
}

SEC("tp_btf/block_rq_issue")
int btf_issue_queue(__u64 *ctx)
{
	return on_issue((struct request *)ctx[1], CLAIM_STORE);
}

SEC("tp_btf/block_rq_requeue")
int btf_requeue(__u64 *ctx)
{
	return on_requeue((struct request *)ctx[0]);
}

SEC("tp_btf/block_rq_requeue")
int btf_requeue_queue(__u64 *ctx)
{
	return on_requeue((struct request *)ctx[1]);
}

/* The error is an errno before 8a7d267b4a2c (5.16) and a blk_status_t since; 0 is success in both. */
SEC("tp_btf/block_rq_complete")
int btf_complete(__u64 *ctx)
{
	return on_complete((struct request *)ctx[0], (__u32)ctx[1] != 0, (__u32)ctx[2]);
}

/*
 * ---- probe tracepoint: requests told apart by device, sector and operation ----
 *
 * trace_call_bpf() lets one such program run at a time on a CPU, whichever it is: one that interrupts
 * another is skipped, which the kernel counts only in newer versions. What was missed shows when
 * the same sector is used again.
 */

/* The operation in rwbs, which blk_fill_rwbs() begins with an F for a preflush. */
static __always_inline __u32 operation_in(char first, char second, char third)
{
	if (first == 'F' && (second == 'W' || second == 'R' || second == 'D' || second == 'N')) {
		first = second;
		second = third;
	}
	switch (first) {
	case 'R':
		return OP_READ;
	case 'W':
		return second == 'Z' ? OP_OTHER : OP_WRITE; /* WZ: write-zeroes, since 6.18 */
	case 'F':
		return OP_FLUSH;
	case 'D':
		return OP_DISCARD;
	default:
		return OP_OTHER;
	}
}

/*
 * A completion prints the raw sector, an issue 0 instead of -1 (passthrough, flush); a flush and
 * a passthrough request have no sector of their own.
 */
static __always_inline void fill_key(struct pending_key *key, __u32 dev, __u64 sector, __u32 operation)
{
	key->dev = dev;
	key->operation = operation;
	key->sector = sector == ~0ULL || operation == OP_FLUSH ? 0 : sector;
}

#define KEY_OF(record)                                                                     \
	({                                                                                 \
		struct pending_key key_ = {};                                              \
		fill_key(&key_, record->dev, record->sector,                               \
			 operation_in(record->rwbs[0], record->rwbs[1], record->rwbs[2])); \
		key_;                                                                      \
	})

/* The slot of a device that is known only by number; user space finds its name. */
static __always_inline __u32 slot_of_dev(__u32 dev)
{
	bool hit;
	__u32 half = cached_half(dev, &hit);

	return slot_in(hit ? half : register_device(dev, dev >> 20, dev & 0xfffff, NULL));
}

/* Requests that the tracepoints give no sector: several in flight look alike. */
static __always_inline bool looks_alike(__u32 operation)
{
	return operation == OP_FLUSH || operation == OP_OTHER;
}

/*
 * Of requests that look alike, the one issued last: the sum of their latencies is right whichever of
 * them completes, and one whose completion was missed stays below the others and spoils none of them.
 */
static __noinline struct pending *find_newest(struct pending_key *key)
{
	struct pending *entry;
	__u32 place;

	for (place = PLACES; place > 0; place--) {
		key->place = place - 1;
		entry = bpf_map_lookup_elem(&pending, key);
		if (entry)
			return entry;
	}
	return NULL;
}

/* The request that key describes, and its place in the key; NULL when there is none. */
static __always_inline struct pending *find_pending(struct pending_key *key)
{
	if (unlikely(looks_alike(key->operation)))
		return find_newest(key);
	return bpf_map_lookup_elem(&pending, key);
}

/* Its place is taken: by another that looks alike, by itself before a requeue, or by a missed completion. */
static __noinline void issue_again(struct pending_key *key, struct pending *fresh)
{
	struct pending *old = find_pending(key);
	__u32 place;

	if (old && old->requeued) {
		old->requeued = 0;
		old->bytes_left = fresh->bytes_left; /* it can have been merged with others meanwhile */
		return;
	}
	if (old && looks_alike(key->operation)) {
		/* Another CPU can take the place meanwhile. */
		for (place = key->place + 1; place < PLACES; place++) {
			key->place = place;
			if (bpf_map_update_elem(&pending, key, fresh, BPF_NOEXIST) == 0) {
				count_issue(fresh->slot);
				return;
			}
		}
		old = bpf_map_lookup_elem(&pending, key);
	}
	if (!old) {
		/* It has completed meanwhile, or the map is full. */
		key->place = 0;
		if (bpf_map_update_elem(&pending, key, fresh, BPF_NOEXIST) == 0)
			count_issue(fresh->slot);
		else
			COUNT_LOSS(inflight_table_full);
		return;
	}
	/* This request takes over from the one whose completion was missed, and the loss is counted. */
	*old = *fresh;
	COUNT_LOSS(missed_completions);
}

SEC("tp/block/block_rq_issue")
int classic_issue(struct issue_record *record)
{
	struct pending_key key = KEY_OF(record);
	__u64 now = bpf_ktime_get_ns();
	struct pending fresh;
	__u32 slot;

	if (!key.dev) /* passthrough without a disk */
		return 0;
	slot = slot_of_dev(key.dev);
	if (slot >= IGNORED_SLOT)
		return 0;
	fresh.slot = slot;
	fresh.start_ns = (now & ~START_UNCOUNTED) | (looks_alike(key.operation) ? START_UNCOUNTED : 0);
	fresh.bytes_left = record->bytes;
	fresh.requeued = 0;
	if (bpf_map_update_elem(&pending, &key, &fresh, BPF_NOEXIST) == 0)
		count_issue(slot);
	else
		issue_again(&key, &fresh);
	return 0;
}

SEC("tp/block/block_rq_requeue")
int classic_requeue(struct requeue_record *record)
{
	struct pending_key key = KEY_OF(record);
	struct pending *entry = find_pending(&key);

	/* Not issued, or not again since it was given back: that is reported, too. */
	if (!entry || entry->requeued)
		return 0;
	/*
	 * Not issued either: it has the sector of one whose completion was missed. One of the same size
	 * cannot be told from it. Passthrough prints no sectors.
	 */
	if (!looks_alike(key.operation) && entry->bytes_left != (__u64)record->nr_sector << 9)
		return 0;
	entry->requeued = 1;
	count_requeue(entry->slot);
	return 0;
}

/*
 * Takes the record of the request that key describes; false when there is none. Completions on several CPUs
 * can find the same of those that look alike: the one that did not get it looks again.
 */
static __noinline bool take_pending(struct pending_key *key, struct pending *taken)
{
	struct pending *entry;
	__u32 tries;

	for (tries = 0; tries < PLACES; tries++) {
		entry = find_pending(key);
		if (!entry)
			return false;
		*taken = *entry;
		if (bpf_map_delete_elem(&pending, key) == 0)
			return true;
	}
	return false;
}

SEC("tp/block/block_rq_complete")
int classic_complete(struct complete_record *record)
{
	__u64 now = bpf_ktime_get_ns(), bytes = (__u64)record->nr_sector << 9;
	struct pending_key key = KEY_OF(record);
	bool failed = record->error;
	struct pending taken = {};

	/* A write of no bytes is the end of a flush sequence, which was not issued; its sector can be
	 * another's. */
	if (!key.dev || (key.operation == OP_WRITE && !bytes))
		return 0;
	if (!take_pending(&key, &taken)) {
		if (!is_ignored(key.dev))
			COUNT_LOSS(untracked_completions);
		return 0;
	}
	if (key.operation == OP_OTHER) {
		bytes = taken.bytes_left; /* passthrough completes whole, and prints no sectors */
	} else if (bytes < taken.bytes_left) {
		/* The rest completes under the sector where it begins. */
		taken.bytes_left -= bytes;
		key.sector += bytes >> 9;
		if (bpf_map_update_elem(&pending, &key, &taken, BPF_ANY))
			COUNT_LOSS(inflight_table_full);
		count_bytes(taken.slot, key.operation, bytes);
		return 0;
	}
	count_completion(taken.slot, key.operation, elapsed(taken.start_ns, now), bytes, failed, now);
	return 0;
}

#include "bio.h"
