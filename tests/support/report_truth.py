"""What `blkiolat report --format json` must say, computed from the records alone.

Written from docs/record.md, without a look at the program: plain sums, and percentiles from the
list of all buckets. Reads plain .jsonl files (arguments), writes one JSON object per row.
"""

import json
import math
import sys
from collections import defaultdict

UNIT_US = 0.125


def bounds(index):
    """Lower bound and width of a bucket, in microseconds."""
    if index < 16:
        return index * UNIT_US, UNIT_US
    if index == 528:
        return 2**36 * UNIT_US, 0.0
    octave, place = index // 16 - 1, index % 16
    return (16 + place) * 2**octave * UNIT_US, 2**octave * UNIT_US


def percentile(counts, share, largest):
    rank = max(1, math.ceil(share * sum(counts.values())))
    for index in sorted(counts):
        rank -= counts[index]
        if rank <= 0:
            low, width = bounds(index)
            return min(low + width / 2, largest)


def main(paths):
    time = defaultdict(float)
    rows = defaultdict(lambda: defaultdict(float))
    counts = defaultdict(lambda: defaultdict(int))
    for path in paths:
        for line in open(path, encoding="utf-8"):
            record = json.loads(line)
            host = record["host"]
            time[host] += record["window_s"]
            for device in record["latency_histogram"]:
                for op, stats in device["ops"].items():
                    for name in (op, "all"):
                        key = (host, device["device_name"], name)
                        row = rows[key]
                        row["count"] += stats["total"]
                        row["bytes"] += stats["bytes"]
                        row["errors"] += stats["errors"]
                        row["sum_us"] += stats["sum_us"]
                        row["max_us"] = max(row["max_us"], stats["max_us"])
                        for index, count in zip(*stats["fine"]):
                            counts[key][index] += count
                rows[host, device["device_name"], "all"]["requeues"] += device["requeues"]
            for device in record["inflight"]:
                row = rows[host, device["device_name"], "all"]
                row["inflight_sum"] += device["mean"] * record["window_s"]
                row["inflight_max"] = max(row["inflight_max"], device["max"])
                row["oldest_us"] = max(row["oldest_us"], device["oldest_us"])
    for key, row in rows.items():
        host, device, op = key
        seconds = time[host]
        result = {
            "host": host,
            "device": device,
            "operation": op,
            "count": row["count"],
            "bytes": row["bytes"],
            "errors": row["errors"],
            "iops": row["count"] / seconds,
            "mb_per_s": row["bytes"] / 1e6 / seconds,
            "mean_us": row["sum_us"] / row["count"],
            "max_us": row["max_us"],
        }
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)):
            result[name + "_us"] = percentile(counts[key], share, row["max_us"])
        if op == "all":
            result["requeues"] = row["requeues"]
            result["inflight_mean"] = row["inflight_sum"] / seconds
            result["inflight_max"] = row["inflight_max"]
            result["oldest_us"] = row["oldest_us"]
        print(json.dumps(result))


main(sys.argv[1:])
