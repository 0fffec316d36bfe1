"""Bounds and quantiles of the record's fine histogram, from its description in docs/record.md."""

import math


def bounds_ns(index):
    """Lower bound (inclusive) and upper bound (exclusive) of a bucket."""
    if index < 16:
        return index * 125, (index + 1) * 125
    if index == 528:
        return 2**36 * 125, math.inf
    octave, place = index // 16 - 1, index % 16
    return (16 + place) * 2**octave * 125, (17 + place) * 2**octave * 125


def bucket_at(fine, share):
    """Index of the bucket that holds the request of this rank (share from 0 to 1)."""
    rank = max(1, math.ceil(share * sum(fine.values())))
    for index in sorted(fine):
        rank -= fine[index]
        if rank <= 0:
            return index
    raise ValueError("an empty histogram has no quantile")


def quantile(values, share):
    """The value of this rank in a list."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(share * len(ordered))) - 1]
