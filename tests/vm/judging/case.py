"""The evidence of one case, as tests/vm/guest/case.sh left it."""

import json
import re
import shlex
from functools import cached_property

from .records import Records
from .trace import Model

# Fields of /sys/block/X/stat (Documentation/block/stat.rst), from 0: requests, sectors, milliseconds of
# each operation, as the kernel counted them.
STAT = {"read": (0, 2, 3), "write": (4, 6, 7), "discard": (11, 13, 14)}
MERGES = {"read": 1, "write": 5, "discard": 12}
FLUSHES = 15
STAT_FIELDS = 17
# Newer kernels (seen on 7.2; the suite has none between) can preempt a program, for which an emulated processor gives much
# time, and the one of whoever runs meanwhile is skipped: so often in any case, and more often where a case says so.
PREEMPTIBLE = (6, 13)
A_FEW = 3
# What stands for a name when there is none.
NUMBER = re.compile(r"\d+:\d+")


def read_stats(path):
    """(number, counts) by disk, of lines 'NAME MAJOR:MINOR FIELD...'."""
    stats = {}
    if path.exists():
        for line in path.read_text().splitlines():
            name, number, *fields = line.split()
            counts = [int(value) for value in fields]
            # A number that was used again: what all of its disks counted.
            if name in stats:
                counts = [a + b for a, b in zip(stats[name][1], counts)]
            stats[name] = (number, counts)
    return stats


class Case:
    """One case. 'topic' is the directory of its topic."""

    def __init__(self, directory, release):
        self.directory, self.release = directory, release
        self.name = f"{directory.parent.name}/{directory.name}"
        major, minor = release.split(".")[:2]
        self.kernel = (int(major), int("".join(filter(str.isdigit, minor))))
        skip = directory / "skip"
        self.skipped = skip.read_text().strip() if skip.exists() else None

    @cached_property
    def claims(self):
        """Kind and arguments of each claim."""
        path = self.directory / "claims"
        return [shlex.split(line) for line in path.read_text().splitlines()] if path.exists() else []

    @cached_property
    def _stats(self):
        return [read_stats(self.directory / name) for name in ("before", "after", "gone")]

    @cached_property
    def kernel_counts(self):
        """What the kernel counted in this case, by disk."""
        before, after, gone = self._stats
        none = (None, [0] * STAT_FIELDS)
        return {
            name: [g + a - b for g, a, b in zip(*(stats.get(name, none)[1] for stats in (gone, after, before)))]
            for name in self.names
        }

    @cached_property
    def names(self):
        """Every disk that was there."""
        return set().union(*self._stats)

    def number(self, disk):
        """The disk's dev_t; None for a hidden one."""
        for stats in self._stats:
            if disk in stats and ":" in stats[disk][0]:
                major, minor = stats[disk][0].split(":")
                return int(major) << 20 | int(minor)
        return None

    def sibling(self, name):
        """Another case of the same topic."""
        return Case(self.directory.parent / name, self.release)

    def lines(self, probe):
        """First and last record (from 1) of a probe."""
        edges = {}
        for line in (self.directory / "lines").read_text().splitlines():
            words = line.split()
            if words[0] == probe:
                edges[words[1]] = int(words[2])
        # 'first' is how many there were before the load.
        return edges["first"] + 1, edges["last"]

    @cached_property
    def model(self):
        """What ftrace saw."""
        return Model.read(self.directory / "trace.gz")

    def fio(self, name):
        """Result of a fio run: its only group of jobs."""
        text = (self.directory / name).read_text()
        # fio's warnings stand before its JSON.
        return json.loads(text[text.index("{"):])["jobs"][0]


class Evidence:
    """A case as one probe saw it: what the claims are about."""

    def __init__(self, case, probe, lines):
        self.case = case
        self.probe = probe
        self.records = Records(lines, *case.lines(probe))
        self.notes = []
        audit = self.records.audit
        self.reported_missed = audit["probe_misses"] + audit["untracked_completions"]

    def may_miss(self, requests):
        """How many of so many requests may be missing, because the audit says so.

        The kernel lets one classic program run at a time on a processor and skips those that interrupt it, which it
        counts only from 6.7 on: before, one in three may be missing (24 % were once, on 5.10).
        """
        if self.probe == "tracepoint" and self.case.kernel < (6, 7):
            return max(self.reported_missed, -(-requests // 3))
        return self.reported_missed


def audit_faults(evidence):
    """Losses that this probe need not have."""
    few = A_FEW if evidence.case.kernel >= PREEMPTIBLE else 0
    most = max([few] + [int(claim[1]) for claim in evidence.case.claims if claim[0] == "may-skip"])
    skipped = {"probe_misses", "untracked_completions"}
    losses = {}
    for key, count in sorted(evidence.records.audit.items()):
        if key not in skipped or (evidence.probe != "tracepoint" and count > most):
            losses[key] = count
    expected = f"at most {most} skipped" if most else "none"
    return [f"the audit reports {losses}, expected {expected}"] if losses else []


def left_faults(evidence):
    """Requests that are still taken for being in flight; a classic program that was skipped can leave one behind."""
    left = evidence.records.left()
    if evidence.probe == "tracepoint":
        if evidence.case.kernel < (6, 7):
            evidence.notes += [f"{left} left in flight"] if left else []
            return []
        left -= evidence.records.left_before() + evidence.records.audit["probe_misses"]
    return [f"{left} requests in flight at the end, expected none"] if left > 0 else []


def name_faults(evidence):
    """Disks that do not exist. A classic tracepoint prints the number of a hidden disk, which has no name to be found."""
    seen = {entry["device_name"] for window in evidence.records.windows
            for entry in window["latency_histogram"] + window["inflight"]}
    unknown = sorted(name for name in seen - evidence.case.names
                     if evidence.probe != "tracepoint" or not NUMBER.fullmatch(name))
    return [f"records name {unknown}, which the kernel does not know"] if unknown else []
