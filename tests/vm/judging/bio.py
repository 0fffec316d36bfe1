"""The bio layer: what tests/vm/guest/bio.sh left, compared with fio's counts, the kernel's in /sys/block/*/stat, what failed for its
reader, and the timer of the null_blk disks below. A bio may be missing only if the audit says so.
"""

import collections
import json

from .case import read_stats
from .histogram import bounds_ns

# The timer of the null_blk disks: what is read or written there cannot take less. zram, brd and NVMe have none.
TIMER_US = 500
TIMED = ("linear", "striped", "raid0", "raid1", "uncounted", "stacked")
# Fields of /sys/block/X/stat, from 0.
READS, READ_SECTORS, WRITES, WRITE_SECTORS = 0, 2, 4, 6
# Disks whose driver counts every bio once, and those that count its parts: sectors agree in both.
WHOLE, PARTS = ("linear", "zram", "held"), ("linear", "zram", "striped", "raid0")


class Tests:
    """What is wrong with each case, in the order of the cases."""

    def __init__(self):
        self.faults = {}

    def check(self, case, what, good, why):
        """'why' says what was found and what was expected."""
        self.faults.setdefault(case, []).extend([] if good else [f"{what}: {why}"])


class Records:
    """Sums of some records of one layer."""

    def __init__(self, records):
        self.records = records
        self.audit = collections.Counter()
        self.disks = {}
        for record in records:
            self.audit.update(record["audit"])
            for entry in record["latency_histogram"]:
                for name, values in entry["ops"].items():
                    total = self.disks.setdefault(entry["device_name"], {}).setdefault(name, collections.Counter())
                    for key in ("total", "bytes", "sum_us", "errors"):
                        total[key] += values[key]
                    low = bounds_ns(values["fine"][0][0])[0] / 1000
                    total["least_us"] = min(low, total["least_us"]) if total["least_us"] else low

    def of(self, disk, operation):
        """Sums of one operation of a disk."""
        return self.disks.get(disk, {}).get(operation, collections.Counter())

    def missed(self):
        """What the audit says was not seen."""
        return sum(self.audit.values())


def compare_fio(tests, case, disk, bios, jobs):
    """A disk's sums and fio's, which knows of no layer: of all cases of one disk together."""
    missed = bios.missed()
    wanted = collections.Counter()
    for job in jobs:
        for name in ("read", "write"):
            wanted[name] += job[name]["total_ios"]
            wanted[name, "bytes"] += job[name]["io_bytes"]
            wanted[name, "us"] += job[name]["total_ios"] * job[name]["lat_ns"]["mean"] / 1000
        wanted["flush"] += job["sync"]["total_ios"]
    for name in ("read", "write", "flush"):
        own = bios.of(disk, name)
        tests.check(case, f"{name}s", 0 <= wanted[name] - own["total"] <= missed,
                    f"recorded {own['total']}, fio {wanted[name]}, the audit says {missed} were missed")
        if name == "flush" or missed:
            continue
        tests.check(case, f"{name} bytes", own["bytes"] == wanted[name, "bytes"],
                    f"recorded {own['bytes']}, fio {wanted[name, 'bytes']}")
        # fio's clock starts before the bio is queued and stops after it has ended.
        tests.check(case, f"{name} time", own["sum_us"] <= wanted[name, "us"] * 1.001,
                    f"recorded {own['sum_us']} us, fio {wanted[name, 'us']}")
        if case in TIMED and own["total"]:
            tests.check(case, f"{name} floor", own["least_us"] * 17 / 16 >= TIMER_US,
                        f"the fastest took {own['least_us']} us, the timer takes {TIMER_US}")


def compare_stat(tests, case, disk, bios, kernel):
    """A disk's sums and the kernel's count."""
    if bios.missed():
        return
    read, write, flush = (bios.of(disk, name) for name in ("read", "write", "flush"))
    if case in WHOLE:
        tests.check(case, "stat", [read["total"], write["total"] + flush["total"]] == [kernel[READS], kernel[WRITES]],
                    f"recorded {read['total']}, {write['total']} + {flush['total']}; the kernel {kernel}")
    if case in PARTS:
        sectors = [read["bytes"] // 512, write["bytes"] // 512]
        tests.check(case, "sectors in stat", sectors == [kernel[READ_SECTORS], kernel[WRITE_SECTORS]],
                    f"recorded {sectors}, the kernel {kernel}")
    if case == "striped":
        tests.check(case, "parts", kernel[READS] == 8 * read["total"],
                    f"the kernel counted {kernel[READS]} parts of {read['total']} reads of 256 KiB in chunks of 32 KiB")


def compare_held(tests, names, out, bios, window):
    """Bios that hang are seen while they hang, and counted with their whole time."""
    first, last = (int((out / name).read_text()) for name in ("held-from", "held-until"))
    ages = [(entry["count"], entry["oldest_us"]) for record in bios.records if window(record, first, last)
            for entry in record["inflight"] if entry["device_name"] == names["held"] and entry["count"] == 8]
    tests.check("held", "seen", len(ages) >= 3 and ages == sorted(ages), f"in flight and oldest: {ages}")
    read = bios.of(names["held"], "read")
    tests.check("held", "counted", read["total"] == 8, f"{read['total']} of 8 were counted when they ended")
    oldest = max((age for _, age in ages), default=0)
    tests.check("held", "time", read["sum_us"] >= 8 * 0.9 * oldest, f"{read}, the oldest was {oldest} us old")


def judge_bio(out):
    """What is wrong with each case, by its name, of what the machine left in the directory 'out'."""
    tests = Tests()
    names = dict(pair.split("=") for pair in (out / "names").read_text().split())
    early_until = int((out / "early").read_text())
    lines = [json.loads(line) for line in (out / "out.jsonl").read_text().splitlines()]
    line_of = {id(record): number for number, record in enumerate(lines)}
    layer = lambda name, part: Records([r for r in part if r.get("layer", "request") == name])
    early, bios = layer("bio", lines[:early_until]), layer("bio", lines[early_until:])
    requests = layer("request", lines)

    for name in ("request", "bio"):
        sequence = [record["seq"] for record in lines if record.get("layer", "request") == name]
        tests.check("records", f"sequence of layer {name}", sequence == list(range(len(sequence))) and sequence, f"{sequence}")
    pairs = [(a["seq"], a.get("layer"), b["seq"], b.get("layer")) for a, b in zip(lines[::2], lines[1::2])]
    tests.check("records", "pairs", all(a == c and (b, d) == (None, "bio") for a, b, c, d in pairs), f"{pairs}")
    both = set(requests.disks) & (set(bios.disks) | set(early.disks))
    tests.check("records", "one layer", not both, f"in both layers: {both}")
    unexplained = {key: value for key, value in bios.audit.items() if value and key != "probe_misses"}
    tests.check("records", "audit", not unexplained or bios.audit["probe_misses"], f"{unexplained}")

    # Eight were in flight when the programs attached.
    tests.check("early", "untracked", early.audit["untracked_completions"] == 8, f"{early.audit}, expected 8 untracked")
    tests.check("early", "latency", names["early"] not in early.disks, f"{early.disks.get(names['early'])} of what began before")

    before, after = read_stats(out / "before"), read_stats(out / "after")
    cases = collections.defaultdict(list)
    for line in (out / "cases").read_text().splitlines():
        case, disk = line.split()
        cases[disk].append(case)
    for disk, of_disk in cases.items():
        jobs = [json.loads((out / f"fio-{case}.json").read_text())["jobs"][0] for case in of_disk]
        kernel = [b - a for a, b in zip(before[disk][1], after[disk][1])]
        case = of_disk[0]
        if case == "requests":
            own = requests.of(disk, "read")["total"] + requests.of(disk, "write")["total"]
            tests.check("requests", "layer", own and disk not in bios.disks, f"{own} requests, bios {bios.disks.get(disk)}")
            continue
        compare_fio(tests, case, disk, bios, jobs)
        compare_stat(tests, case, disk, bios, kernel)
    called = {disk: case for case, disk in names.items()}
    for line in (out / "failures").read_text().splitlines():
        disk, wanted, failed = line.split()
        read = bios.of(disk, "read")
        tests.check(called[disk], "errors", (read["total"], read["errors"]) == (int(wanted), int(failed)),
                    f"recorded {read}, {failed} of {wanted} failed for their reader")
    compare_held(tests, names, out, bios, lambda record, first, last: first <= line_of[id(record)] < last)
    tests.check("head", "disk", names["head"], "no NVMe multipath head was there")
    return tests.faults
