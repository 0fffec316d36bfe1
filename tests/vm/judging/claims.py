"""What a topic can claim: each function decides one kind for one probe's evidence.

It takes the evidence and the claim's arguments, and gives what is wrong: a list of sentences, empty when the claim
holds. What is worth reporting is added to evidence.notes.
"""

import operator
from collections import Counter

from .case import FLUSHES, MERGES, STAT
from .histogram import bounds_ns, bucket_at, quantile

# Percentiles that are compared with a known latency, and where only the shape matters.
SHARES = (0.50, 0.99)
QUARTILES = (0.25, 0.50, 0.75, 0.95)
# Share of the requests that ftrace may have seen at another time; at least two.
RANK_ERROR = 0.01
# Fewer requests have no percentiles worth comparing.
FEW = 10
# What two programs on one tracepoint are apart on an emulated machine, us.
HOOK_US = 50
# fio's own buckets are 1/64 of their lower bound wide.
FIO_ERROR = 1 / 64
COMPARISONS = {"eq": operator.eq, "ge": operator.ge, "lt": operator.lt}


def compare(what, recorded, true, may_miss=0):
    """Recorded must be true, but for what may be missing."""
    if true - may_miss <= recorded <= true:
        return []
    missing = f" (up to {may_miss} may be missing)" if may_miss else ""
    return [f"{what}: recorded {recorded}, expected {true}{missing}"]


def counts(evidence, disk, *options):
    """Requests, bytes and time of every operation agree with /sys/block/DISK/stat. Options:

    errors   they may occur
    instant  the driver completes at once: from 6.9 on the kernel then reads its clock once for both ends, and counts no time
    flushed  the kernel counts an empty flush request as a write, and several of them share one device flush: another
             claim of the case must decide how many writes there were
    """
    if disk not in evidence.case.kernel_counts:
        return [f"the kernel has no counts of {disk}"]
    kernel, recorded = evidence.case.kernel_counts[disk], evidence.records.disk(disk)
    if not any(kernel[field] for field in [requests for requests, _, _ in STAT.values()] + [FLUSHES]):
        return [f"the kernel counted no request of {disk}, so the case shows nothing"]
    flushes = kernel[FLUSHES]
    faults = compare(f"{disk} flushes", recorded.operation("flush").total, flushes, evidence.may_miss(flushes))
    zeroes = recorded.operation("other").total
    for name, (requests, sectors, milliseconds) in STAT.items():
        own = recorded.operation(name)
        missed = evidence.may_miss(kernel[requests])
        # Beside data, the kernel counts as writes: write-zeroes, which are 'other' here, and empty flushes.
        spare = zeroes + flushes if name == "write" else 0
        most = kernel[requests] if name == "write" and "flushed" in options else own.total + spare + missed
        if not own.total <= kernel[requests] <= most:
            faults.append(f"{disk} {name}s: recorded {own.total}, the kernel counted {kernel[requests]}"
                          + (f", {spare} of them perhaps no data" if spare else "")
                          + (f" ({missed} may be missing)" if missed else ""))
        if not spare and not missed and own.bytes != kernel[sectors] * 512:
            faults.append(f"{disk} {name} bytes: recorded {own.bytes}, the kernel counted {kernel[sectors] * 512}")
        # The kernel's clock starts when the request is made, before its issue. NVMe completes in batches, for which
        # the kernel reads its clock once, before; what a flush sequence waits for is in no time of ours.
        if not disk.startswith("nvme") and "instant" not in options and own.sum_us > (kernel[milliseconds] + 1) * 1000:
            faults.append(f"{disk} {name} time: recorded {own.sum_us} us, the kernel {kernel[milliseconds]} ms from an earlier start")
    # A disk may refuse passthrough: the driver asks what it can do.
    errors = sum(recorded.operation(name).errors for name in (*STAT, "flush"))
    if "errors" not in options and errors:
        faults.append(f"{disk}: {errors} errors, expected none")
    return faults


def fio_totals(evidence, name):
    """fio's count of its own I/O, by the record's names."""
    result = evidence.case.fio(name)
    return {"read": result["read"]["total_ios"], "write": result["write"]["total_ios"], "discard": result["trim"]["total_ios"]}


def fio(evidence, disk, name, factor="1"):
    """Each of fio's I/Os is FACTOR requests, no more and no less."""
    faults = []
    for operation, count in fio_totals(evidence, name).items():
        true = count * int(factor)
        faults += compare(f"{disk} {operation}s against fio", evidence.records.disk(disk).operation(operation).total, true,
                          evidence.may_miss(true))
    return faults


def sum_fio(evidence, names, *disks):
    """Each I/O of these runs of fio (NAME,NAME...) is one request on one of the disks."""
    faults = []
    totals = Counter()
    for name in names.split(","):
        totals.update(fio_totals(evidence, name))
    for operation, true in totals.items():
        recorded = sum(evidence.records.disk(disk).operation(operation).total for disk in disks)
        faults += compare(f"{operation}s of all paths against fio", recorded, true, evidence.may_miss(true))
    return faults


def bytes_of_fio(evidence, disk, name):
    """The bytes are fio's, however many requests they became."""
    if evidence.reported_missed or evidence.may_miss(1):
        return []
    result = evidence.case.fio(name)
    faults = []
    for operation in ("read", "write"):
        faults += compare(f"{disk} {operation} bytes against fio", evidence.records.disk(disk).operation(operation).bytes,
                          result[operation]["io_bytes"])
    return faults


def merges(evidence, disk):
    """The kernel merged I/O, or the case shows nothing."""
    kernel = evidence.case.kernel_counts[disk]
    merged = sum(kernel[field] for field in MERGES.values())
    evidence.notes.append(f"{merged} merged")
    return [] if merged else [f"the kernel merged no I/O of {disk}"]


def trace(evidence, disk, *options):
    """Requests, errors, requeues and times agree with what ftrace saw of the same requests.

    Options say what must have occurred: 'partial' completions, 'requeued' requests, 'failed' requests.
    """
    account = evidence.case.model.account(evidence.case.number(disk))
    recorded = evidence.records.disk(disk)
    faults = []
    for name in ("read", "write", "flush", "discard"):
        latencies = account.latencies_us[name]
        own = recorded.operation(name)
        missed = evidence.may_miss(len(latencies))
        faults += compare(f"{disk} {name}s against ftrace", own.total, len(latencies), missed)
        faults += compare(f"{disk} {name} errors against ftrace", own.errors, account.errors[name], missed)
        if missed == 0 and len(latencies) >= FEW and own.total:
            shares = QUARTILES if len(latencies) >= 200 else QUARTILES[1:2]
            faults += same_times(f"{disk} {name}", own.fine, latencies, shares, HOOK_US)
    faults += compare(f"{disk} requeues against ftrace", recorded.requeues, account.requeues,
                      evidence.may_miss(account.requeues))
    occurred = {"partial": account.partial, "requeued": account.requeues, "failed": sum(account.errors.values())}
    evidence.notes += [f"{count} {what}" for what, count in occurred.items() if count]
    return faults + [f"{disk}: no request was {what}, so the case shows nothing" for what in options if not occurred[what]]


def same_times(what, fine, witnessed, shares, slack_us):
    """The percentiles agree: within one bucket and the slack, for all but a share of RANK_ERROR of the requests, or two.

    The two see each event some microseconds apart. On an emulated machine a processor is sometimes away in between,
    for milliseconds; that moves single requests, whose share must be small.
    """
    faults = []
    rank_error = max(RANK_ERROR, 2 / len(witnessed))
    for share in shares:
        low, high = (bound / 1000 for bound in bounds_ns(bucket_at(fine, share)))
        slack = slack_us + high - low
        least, most = (quantile(witnessed, min(1, max(0, share + error))) for error in (-rank_error, rank_error))
        if low > most + slack or high < least - slack:
            faults.append(f"{what} p{share * 100:g}: recorded {low}-{high} us, ftrace {least}-{most} us, more than {slack:.0f} us apart")
    return faults


def latency(evidence, disk, operation, configured, fio_name, floor_case, floor_disk):
    """The times are those of the device, which takes at least 'configured' ns: see docs/correctness.md."""
    own = evidence.records.disk(disk).operation(operation)
    if not own.total:
        return [f"{disk}: no {operation} was recorded"]
    configured = int(configured)
    faults = []
    early = {index: count for index, count in own.fine.items() if bounds_ns(index)[1] <= configured}
    if early or own.sum_us < own.total * configured / 1000:
        faults.append(f"{disk}: {sum(early.values())} requests below the device's {configured / 1000} us (buckets {early}), "
                      f"{own.sum_us} us for {own.total} of them")
    traced = evidence.case.model.account(evidence.case.number(disk)).latencies_us[operation]
    floor = evidence.case.sibling(floor_case)
    floors = floor.model.account(floor.number(floor_disk)).latencies_us["read"]
    if not traced or not floors:
        return faults + [f"{disk}: ftrace saw no {operation}, or none of the floor"]
    waited = evidence.case.fio(fio_name)[operation]["lat_ns"]
    for share in SHARES:
        name = f"p{share * 100:.0f}"
        faults += same_times(f"{disk} {operation}", own.fine, traced, [share], quantile(floors, share))
        low, high = (bound / 1000 for bound in bounds_ns(bucket_at(own.fine, share)))
        user = waited["percentile"][f"{share * 100:.6f}"] / 1000
        evidence.notes.append(f"{name} {low:.0f}-{high:.0f} us, ftrace {quantile(traced, share)} us, fio {user:.0f} us")
        # What the user waits for contains what the device takes.
        if low > user * (1 + FIO_ERROR):
            faults.append(f"{disk} {name}: recorded {low}-{high} us, but fio waited {user:.1f} us")
    if own.sum_us > waited["mean"] / 1000 * waited["N"]:
        faults.append(f"{disk}: recorded {own.sum_us} us in all, but fio waited {waited['mean'] / 1000 * waited['N']:.0f} us")
    return faults


def some(evidence, disk, operation):
    """There was at least one."""
    return [] if evidence.records.disk(disk).operation(operation).total else [f"{disk}: no {operation} was recorded"]


def none(evidence, disk, operation):
    """There was none."""
    return compare(f"{disk} {operation}", evidence.records.disk(disk).operation(operation).total, 0)


def absent(evidence, disk):
    """No record names this disk."""
    return [f"{disk} is recorded, expected only what lies below it"] if disk in evidence.records.disks else []


def slowest(evidence, disk, operation, microseconds):
    """The longest took at least this long: its clock was not started again."""
    longest = evidence.records.disk(disk).operation(operation).max_us
    return [] if longest >= int(microseconds) else [f"{disk}: the longest {operation} took {longest} us, expected {microseconds} or more"]


def hangs(evidence, disk, operation, requests, seen_us, took_us):
    """So many requests were seen to hang up to an age of seen_us at least, ever older, and then took took_us or more."""
    if evidence.probe == "tracepoint" and evidence.records.disturbed(disk):
        evidence.notes.append("records that earlier misses left behind hide the oldest")
        return slowest(evidence, disk, operation, took_us)
    ages = [entry["oldest_us"] for entry in evidence.records.inflight(disk) if entry and entry["count"] == int(requests)]
    evidence.notes.append(f"oldest {' '.join(f'{age / 1e6:.1f}' for age in ages)} s")
    faults = []
    if len(ages) < 4 or ages != sorted(ages) or len(set(ages)) != len(ages) or ages[-1] < int(seen_us):
        faults.append(f"{disk}: {requests} requests in flight had ages {ages} us, expected them to rise beyond {seen_us}")
    return faults + slowest(evidence, disk, operation, took_us)


def peak(evidence, requests):
    """At one moment at least so many requests were in flight, all disks together, but for what may be missing."""
    most = max((sum(entry["count"] for entry in window["inflight"]) for window in evidence.records.windows), default=0)
    evidence.notes.append(f"{most} in flight")
    least = int(requests) - evidence.may_miss(int(requests))
    return [] if most >= least else [f"at most {most} in flight at once, expected {least} or more"]


def witness(evidence, text, got, comparison, want):
    """Something the guest looked at."""
    del evidence
    numbers = [int(value) if value.lstrip("-").isdigit() else value for value in (got, want)]
    if type(numbers[0]) is type(numbers[1]) and COMPARISONS[comparison](*numbers):
        return []
    return [f"{text}: {got!r}, expected {comparison} {want!r}"]


KINDS = {
    "counts": counts, "fio": fio, "sum-fio": sum_fio, "bytes": bytes_of_fio, "merges": merges, "trace": trace,
    "latency": latency, "some": some, "none": none, "absent": absent, "slowest": slowest, "hangs": hangs, "peak": peak,
    "witness": witness,
}
