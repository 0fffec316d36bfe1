/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The bio layer: disks without request queues (device mapper, md, zram, brd, NVMe multipath heads),
 * from block_bio_queue to the end of the bio. Included by blkiolat.bpf.c, whose devices, cells, flows and
 * in-flight table it uses. The object is loaded a second time for it, with maps of its own: the request layer
 * neither shares memory with it nor loads these programs.
 *
 * What the kernel shows of a bio (block/bio.c, block/blk-core.c, block/blk-mq.c):
 *
 * - block_bio_queue comes once, with the disk that the submitter meant: BIO_TRACE_COMPLETION, set there,
 * keeps a bio that is resubmitted (the rest of a split, one that was remapped in place, a retry on another
 * path) from being shown again (fbbaf700e7b1, 4.12).
 * - bio_endio() shows block_bio_complete when the flag is still set and no part is left. bi_bdev may be a
 *   lower disk by then, and bi_size 0.
 * - blk_update_request() clears the flag ("completion has already been traced"): a bio that was remapped in
 *   place to a request-based disk (md raid0 without a clone, NVMe multipath) ends within a block_rq_complete.
 * - The front part of a split is a clone that was never queued; it inherits the flag, and its bi_private is
 * the bio that goes on. It is shown to complete on newer kernels (not on 5.10), and is no bio of its own
 * here.
 */
#ifndef BLKIOLAT_BIO_H
#define BLKIOLAT_BIO_H

/* Set before load: bits of the running kernel, which differ (see BioFacts in src/probe/facts.rs). */
const volatile __u32 bio_cloned_flag = 0;   /* 1 << BIO_CLONED */
const volatile __u32 bio_chain_flag = 0;    /* 1 << BIO_CHAIN */
const volatile __u32 rq_flush_seq_flag = 0; /* RQF_FLUSH_SEQ */

/* How many splits of splits are followed to the bio that was queued. */
#define MAX_SPLITS 3
/* Bios of one request; a request's segments bound them, and few drivers take more than 256. */
#define MAX_BIOS 512

/* What completes with each bio in the in-flight set of the same index: its size is gone at the end. */
struct bio_loads {
	__u64 way[WAYS]; /* operation << 32 | bytes */
};

struct bio_overflow {
	struct inflight entry; /* first: user space reads it alone */
	__u64 load;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bio_loads);
} bio_loads SEC(".maps");
HASH(bio_overflow, __u64, struct bio_overflow);

static __always_inline __u64 key_of_number(__u64 number)
{
	return number << 13 & ~0xffffULL;
}

/* Bios come in all sizes: four of the smallest stride share a set, and each may stand in any of its places.
 */
static __always_inline __u32 bio_set_index(__u64 key)
{
	return key >> (16 - 3 + 2) >> inflight_shift & inflight_mask;
}

static __always_inline __u64 load_of(struct bio *bio)
{
	__u32 bytes = bio->bi_iter.bi_size, operation = operation_of(bio->bi_opf);

	if (operation == OP_WRITE && !bytes)
		operation = OP_FLUSH; /* an empty write is a flush (REQ_PREFLUSH) */
	return (__u64)operation << 32 | bytes;
}

/* A bio whose completion was missed gives its place, and its part in the figures, to the next. */
static __noinline int take_over(struct inflight *entry, __u64 key, __u64 now)
{
	__u32 slot = (key & 0xffff) >> 1, before = (entry->key & 0xffff) >> 1;
	struct flow *flows;

	if (before < IGNORED_SLOT)
		COUNT_LOSS(missed_completions);
	entry->start_ns = now;
	if (before == slot)
		return 0;
	entry->key = key;
	flows = flows_of(before);
	if (flows)
		__sync_fetch_and_add(&flows->dropped, 1);
	count_issue(slot);
	return 0;
}

static __always_inline int on_bio_queue(struct bio *bio)
{
	struct gendisk *disk = bio_disk(bio);
	struct bio_overflow overflow = {};
	struct inflight_set *set;
	struct bio_loads *loads;
	struct bio_overflow *known;
	__u64 key, now, number;
	__u32 index, i;

	if (!disk || disk->queue->mq_ops)
		return 0;
	/*
	 * A disk that is not measured has records too, so that a bio that it remaps in place is known for one
	 * of its own when it completes on a disk that is.
	 */
	key = key_of_number(number_of(bio)) | (__u64)slot_of_disk(disk) << 1;
	index = bio_set_index(key);
	set = bpf_map_lookup_elem(&inflight, &index);
	loads = bpf_map_lookup_elem(&bio_loads, &index);
	if (!set || !loads)
		return 0;
	now = bpf_ktime_get_ns();
#pragma unroll
	for (i = 0; i < WAYS; i++) {
		if (same_request(set->way[i].key, key)) {
			loads->way[i] = load_of(bio);
			return take_over(&set->way[i], key, now);
		}
	}
	number = key >> 16;
	if (overflowed) {
		known = bpf_map_lookup_elem(&bio_overflow, &number);
		if (known) {
			known->load = load_of(bio);
			return take_over(&known->entry, key, now);
		}
	}
#pragma unroll
	for (i = 0; i < WAYS; i++) {
		if (set->way[i].key)
			continue;
		if (__sync_val_compare_and_swap(&set->way[i].key, 0, KEY_CLAIMED))
			continue;
		set->way[i].start_ns = now;
		loads->way[i] = load_of(bio);
		*(volatile __u64 *)&set->way[i].key = key;
		count_issue((key & 0xffff) >> 1);
		return 0;
	}
	overflow.entry.key = key;
	overflow.entry.start_ns = now;
	overflow.load = load_of(bio);
	overflowed = 1;
	if (bpf_map_update_elem(&bio_overflow, &number, &overflow, BPF_ANY))
		COUNT_LOSS(inflight_table_full);
	else
		count_issue((key & 0xffff) >> 1);
	return 0;
}

/* Whether a bio has a record. Not static: verified once, whatever the number of calls. */
__noinline int bio_is_known(__u64 key)
{
	__u32 index = bio_set_index(key), i;
	struct inflight_set *set = bpf_map_lookup_elem(&inflight, &index);
	__u64 number = key >> 16;

	if (!set)
		return 0;
#pragma unroll
	for (i = 0; i < WAYS; i++)
		if (same_request(set->way[i].key, key))
			return 1;
	return overflowed && bpf_map_lookup_elem(&bio_overflow, &number);
}

/* Counts the end of a bio and removes its record. 0: it has none. */
__noinline int end_bio(__u64 key, __u64 now, __u32 failed)
{
	__u32 index = bio_set_index(key), slot, i;
	struct inflight_set *set = bpf_map_lookup_elem(&inflight, &index);
	struct bio_loads *loads = bpf_map_lookup_elem(&bio_loads, &index);
	__u64 number = key >> 16, start_ns = 0, load = 0;
	struct bio_overflow *overflow;
	bool found = false;

	if (!set || !loads)
		return 0;
#pragma unroll
	for (i = 0; i < WAYS; i++) {
		if (!found && same_request(set->way[i].key, key)) {
			found = true;
			slot = (set->way[i].key & 0xffff) >> 1;
			start_ns = set->way[i].start_ns;
			load = loads->way[i];
			*(volatile __u64 *)&set->way[i].key = 0;
		}
	}
	if (!found) {
		if (!overflowed)
			return 0;
		overflow = bpf_map_lookup_elem(&bio_overflow, &number);
		if (!overflow)
			return 0;
		slot = (overflow->entry.key & 0xffff) >> 1;
		start_ns = overflow->entry.start_ns;
		load = overflow->load;
		bpf_map_delete_elem(&bio_overflow, &number);
	}
	if (slot < IGNORED_SLOT)
		count_completion(slot, load >> 32, elapsed(start_ns, now), (__u32)load, failed, now);
	return 1;
}

/*
 * The verifier forbids arithmetic on typed pointers but for their difference, and on plain addresses that
 * with a pointer: this turns a plain address into what number_of() makes of a pointer.
 */
static __always_inline __u64 number_offset(__u64 *ctx)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), ctx);
	return number_of((void *)ctx[0]) - address;
}

/* What a clone is a part of, as a plain address: newer verifiers give a void pointer a type. */
static __always_inline __u64 whole_of(struct bio *bio)
{
	__u64 address = 0;

	bpf_core_read(&address, sizeof(address), &bio->bi_private);
	return address;
}

/* Whether a clone is a part, or a part of a part, of a bio that has a record. */
__noinline int is_part_of_known(__u64 address, __u64 offset)
{
	struct bio *bio = (void *)address;
	__u32 i;

	for (i = 0; i < MAX_SPLITS && bio; i++) {
		if (bio_is_known(key_of_number((__u64)bio + offset)))
			return 1;
		if (!(BPF_CORE_READ(bio, bi_flags) & bio_cloned_flag))
			break;
		bio = BPF_CORE_READ(bio, bi_private);
	}
	return 0;
}

/*
 * The end of a bio with a request: of a bio that has a record, or of a part of it, which ends the whole when
 * no other part is left. `before` parts of the same whole end with this request, too, ahead of this one.
 * bio_endio() of the last part ends the whole without a word: its flag was cleared when the rest of it, which
 * keeps its address, ended with a request.
 */
__noinline int end_with_request(__u64 address, __u64 offset, __u64 now, __u32 failed, __u32 before)
{
	struct bio *bio = (void *)address;
	__u32 i;

	for (i = 0; i <= MAX_SPLITS && bio; i++) {
		__u32 flags = BPF_CORE_READ(bio, bi_flags);

		if (flags & bio_chain_flag) {
			if (BPF_CORE_READ(bio, __bi_remaining.counter) - (__s32)before > 1)
				break;
			before = 0;
		}
		if (end_bio(key_of_number((__u64)bio + offset), now, failed | BPF_CORE_READ(bio, bi_status)))
			break;
		if (!(flags & bio_cloned_flag))
			break;
		bio = BPF_CORE_READ(bio, bi_private);
	}
	return 0;
}

SEC("tp_btf/block_bio_queue")
int bio_queue(__u64 *ctx)
{
	return on_bio_queue((struct bio *)ctx[0]);
}

SEC("tp_btf/block_bio_complete")
int bio_complete(__u64 *ctx)
{
	struct request_queue *queue = (struct request_queue *)ctx[0];
	struct bio *bio = (struct bio *)ctx[1];
	struct gendisk *disk = bio_disk(bio);
	__u64 now = bpf_ktime_get_ns();

	/*
	 * The NVMe driver announces the first bio of each multipath request for the head's queue, before it
	 * ends and before its status is known (35fe0d12c8a3, 5.6). Its real end is in bio_request_complete.
	 */
	if (!disk || disk->queue != queue)
		return 0;
	if (end_bio(key_of_number(number_of(bio)), now, bio->bi_status != 0))
		return 0;
	if (queue->mq_ops || is_ignored(identity_of(disk)))
		return 0;
	if (bio->bi_flags & bio_cloned_flag && is_part_of_known(whole_of(bio), number_offset(ctx)))
		return 0;
	COUNT_LOSS(untracked_completions);
	return 0;
}

/* A walk along the bios of a request, as blk_update_request() does right after. */
struct bio_walk {
	__u64 address; /* of the next bio */
	__u64 whole;   /* of which the last one was a part */
	__u64 offset, now;
	__u32 left;   /* bytes that have completed */
	__u32 before; /* parts of the same whole that end with this request, ahead of the next */
	__u32 failed;
};

/* One step; 1 at the end. */
static long end_next_bio(__u32 step, struct bio_walk *walk)
{
	struct bio *bio = (void *)walk->address;
	__u64 whole = walk->address;
	__u32 size;

	(void)step;
	if (!bio)
		return 1;
	size = BPF_CORE_READ(bio, bi_iter.bi_size);
	if (size > walk->left)
		return 1;
	/* Parts of one whole are neighbours on the disk, and so in the request; the rest of it comes last. */
	if (BPF_CORE_READ(bio, bi_flags) & bio_cloned_flag && walk->address != walk->whole)
		whole = (__u64)BPF_CORE_READ(bio, bi_private);
	walk->before = whole == walk->whole ? walk->before + 1 : 0;
	walk->whole = whole;
	end_with_request(walk->address, walk->offset, walk->now, walk->failed, walk->before);
	walk->left -= size;
	walk->address = (__u64)BPF_CORE_READ(bio, bi_next);
	return walk->left == 0;
}

/* The bios that end with a request, or a part of it. Not a loop of its own: verifying that takes minutes. */
SEC("tp_btf/block_rq_complete")
int bio_request_complete(__u64 *ctx)
{
	struct request *rq = (struct request *)ctx[0];
	struct bio_walk walk = {};

	/* A write in a flush sequence ends when that does, which is shown by another completion of no bytes.
	 */
	if (!rq->bio || rq->rq_flags & rq_flush_seq_flag)
		return 0;
	walk.now = bpf_ktime_get_ns();
	walk.offset = number_offset(ctx);
	walk.failed = (__u32)ctx[1] != 0;
	walk.left = (__u32)ctx[2];
	bpf_core_read(&walk.address, sizeof(walk.address), &rq->bio);
	bpf_loop(MAX_BIOS, end_next_bio, &walk, 0);
	return 0;
}

#endif
