/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Which bucket a latency belongs to: the kernel's half of src/histogram.rs, which explains the
 * shape. Nothing here is particular to BPF; tests/histogram.rs compiles this header for the host
 * and compares it with the Rust half.
 */
#ifndef BLKIOLAT_HISTOGRAM_H
#define BLKIOLAT_HISTOGRAM_H

#define UNIT_NS		125ULL
#define SUB_BITS	4
#define SUB_BUCKETS	(1 << SUB_BITS)
#define MAX_EXPONENT	36
#define OVERFLOW_BUCKET ((MAX_EXPONENT - SUB_BITS + 1) * SUB_BUCKETS)
#define BUCKETS		(OVERFLOW_BUCKET + 1)

/*
 * floor(n / 125) as one multiplication: exact for n < 2^31, because
 * DIV_MAGIC * 125 - 2^38 = 56 and 2^31 * 56 < 2^38. A division takes up to 40 cycles.
 */
#define DIV_MAGIC 2199023256ULL
#define DIV_SHIFT 38
#define DIV_LIMIT (1ULL << 31)

/* Hexadecimal digit n, from the right, is log2(n): BPF has no instruction for it, and a table in memory is a
 * cache line more. */
#define LOG2_DIGITS 0x3333333322221100ULL

/* Makes the compiler forget what it knows of x, so that it keeps the check that the verifier needs. */
#define OPAQUE(x) asm volatile("" : "+r"(x))

/* Index of the bucket, 0 to OVERFLOW_BUCKET, that holds a latency of ns nanoseconds. */
static inline __attribute__((always_inline)) unsigned int bucket_of_ns(unsigned long long ns)
{
	unsigned long long units = ns < DIV_LIMIT ? ns * DIV_MAGIC >> DIV_SHIFT : ns / UNIT_NS;
	unsigned long long top, shift, exponent;

	if (units < SUB_BUCKETS)
		return units;
	if (units < 1ULL << 8)
		exponent = 0;
	else if (units < 1ULL << 16)
		exponent = 8;
	else if (units < 1ULL << 24)
		exponent = 16;
	else if (units < 1ULL << 32)
		exponent = 24;
	else if (units < 1ULL << MAX_EXPONENT)
		exponent = 32;
	else
		return OVERFLOW_BUCKET;
	top = units >> exponent;
	shift =
	    (15 - top) >> 61 & 4; /* 4 if top is above 15, without a branch that is as often wrong as right */
	exponent += shift + (LOG2_DIGITS >> (top >> shift << 2) & 0xf);
	return ((exponent - SUB_BITS + 1) << SUB_BITS) + (units >> (exponent - SUB_BITS) & (SUB_BUCKETS - 1));
}

#endif
