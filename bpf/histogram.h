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

/* log2_table[n] is the position of n's highest set bit; BPF has no instruction for it. */
#define LOG2_16(n) n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n
static const unsigned char log2_table[256] = {
    0,		0,	    1,		1,	    2,		2,	    2,		2,
    3,		3,	    3,		3,	    3,		3,	    3,		3,
    LOG2_16(4), LOG2_16(5), LOG2_16(5), LOG2_16(6), LOG2_16(6), LOG2_16(6), LOG2_16(6), LOG2_16(7),
    LOG2_16(7), LOG2_16(7), LOG2_16(7), LOG2_16(7), LOG2_16(7), LOG2_16(7), LOG2_16(7),
};

/* Makes the compiler forget what it knows of x, so that it keeps the check that the verifier needs. */
#define OPAQUE(x) asm volatile("" : "+r"(x))

/* Index of the bucket, 0 to OVERFLOW_BUCKET, that holds a latency of ns nanoseconds. */
static inline __attribute__((always_inline)) unsigned int bucket_of_ns(unsigned long long ns)
{
	unsigned long long units = ns < DIV_LIMIT ? ns * DIV_MAGIC >> DIV_SHIFT : ns / UNIT_NS;
	unsigned int exponent, shift, top;

	if (units < SUB_BUCKETS)
		return units;
	if (units < 1ULL << 8)
		shift = 0;
	else if (units < 1ULL << 16)
		shift = 8;
	else if (units < 1ULL << 24)
		shift = 16;
	else if (units < 1ULL << 32)
		shift = 24;
	else if (units < 1ULL << MAX_EXPONENT)
		shift = 32;
	else
		return OVERFLOW_BUCKET;
	top = units >> shift;
	OPAQUE(top);
	exponent = shift + log2_table[top & 0xff];
	return ((exponent - SUB_BITS + 1) << SUB_BITS) + (units >> (exponent - SUB_BITS) & (SUB_BUCKETS - 1));
}

#endif
