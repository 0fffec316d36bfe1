/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The few kernel types that the programs use, written by hand. preserve_access_index makes every
 * access a CO-RE relocation: the fields are found by name in the BTF of the running kernel, so
 * neither order nor completeness matters here. Each difference between kernels stands here, with
 * the commit that made it, and nowhere else.
 */
#ifndef BLKIOLAT_KERNEL_H
#define BLKIOLAT_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed int __s32;
typedef signed long long __s64;
typedef _Bool bool;
#define true 1
#define false 0

/* for bpf_helper_defs.h */
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

/* uapi/linux/bpf.h */
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_QUEUE = 22,
};
enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_F_MMAPABLE = 1U << 10,
};

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define DISK_NAME_LEN 32

/* include/linux/blk_types.h: bits of request.cmd_flags, unchanged since 4.10 but for the names. */
#define REQ_OP_MASK 0xff
enum {
	REQ_OP_READ = 0,
	REQ_OP_WRITE = 1,
	REQ_OP_FLUSH = 2,
	REQ_OP_DISCARD = 3,
	REQ_OP_SECURE_ERASE = 5,
};

/* include/linux/blk-mq.h; a request is idle until its driver starts it. */
enum mq_rq_state {
	MQ_RQ_IDLE = 0,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct request_queue;

struct gendisk {
	int major;
	int first_minor;
	char disk_name[DISK_NAME_LEN];
	struct request_queue *queue;
	__u64 diskseq; /* cf179948554a, 5.15 */
};

struct request_queue {
	struct gendisk *disk; /* d152c682f03c, 5.15 */
	const void *mq_ops;   /* NULL: the disk takes bios as they are */
};

struct block_device {
	struct gendisk *bd_disk;
};

struct bvec_iter {
	unsigned int bi_size;
};

typedef struct {
	int counter;
} atomic_t;

struct bio {
	struct bio *bi_next;
	struct block_device *bi_bdev; /* 309dca309fc3, 5.12 */
	unsigned int bi_opf;
	unsigned short bi_flags;
	__u8 bi_status;
	atomic_t __bi_remaining;
	struct bvec_iter bi_iter;
	void *bi_private;
};

struct request {
	struct request_queue *q;
	unsigned int cmd_flags;
	unsigned int rq_flags;
	unsigned int __data_len;
	struct bio *bio;
	enum mq_rq_state state;
};

/* struct request before f3fa33acca9f (5.17) removed rq_disk. */
struct request___rq_disk {
	struct gendisk *rq_disk;
};

/*
 * What is read of the classic tracepoints' records. A kernel without BTF does not describe them, and their
 * offsets differ: libbpf is given them as types, made from the tracepoints' format files
 * (src/probe/record_types.rs).
 */
struct issue_record {
	__u32 dev;
	__u64 sector;
	__u32 bytes;
	char rwbs[3];
};

struct requeue_record {
	__u32 dev;
	__u64 sector;
	__u32 nr_sector;
	char rwbs[3];
};

struct complete_record {
	__u32 dev;
	__u64 sector;
	__u32 nr_sector;
	__s32 error; /* an errno; `errors` before 8a7d267b4a2c (5.16) */
	char rwbs[3];
};

#pragma clang attribute pop

/* The disk that a request is for; NULL for passthrough without a disk (trap: not device 0). */
static __always_inline struct gendisk *request_disk(struct request *rq)
{
	struct request___rq_disk *old = (void *)rq;

	if (bpf_core_field_exists(old->rq_disk))
		return old->rq_disk;
	return rq->q->disk;
}

/* The disk that a bio is on its way to; NULL before it has one. bi_bdev: 309dca309fc3 (5.12). */
static __always_inline struct gendisk *bio_disk(struct bio *bio)
{
	struct block_device *device = bio->bi_bdev;

	return device ? device->bd_disk : NULL;
}

#endif
