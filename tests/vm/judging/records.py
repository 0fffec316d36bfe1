"""Sums over the records that belong to a case."""

import json
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Operation:
    """One operation of one disk, all windows together."""

    total: int = 0
    bytes: int = 0
    sum_us: float = 0.0
    max_us: float = 0.0
    errors: int = 0
    fine: Counter = field(default_factory=Counter)


@dataclass
class Disk:
    """One disk, all windows together."""

    operations: dict = field(default_factory=dict)
    requeues: int = 0
    numbers: set = field(default_factory=set)

    def operation(self, name):
        """That of this name; an empty one if it did not occur."""
        return self.operations.get(name, Operation())


class Records:
    """What the records FIRST to LAST (from 1) of a file say together."""

    def __init__(self, lines, first, last):
        self.before = json.loads(lines[first - 2])["inflight"] if first > 1 else []
        self.windows = [json.loads(line) for line in lines[first - 1 : last]]
        self.disks = {}
        self.audit = Counter()
        for window in self.windows:
            self.audit.update({key: value for key, value in window["audit"].items() if value})
            for entry in window["latency_histogram"]:
                self._add(entry)

    def _add(self, entry):
        disk = self.disks.setdefault(entry["device_name"], Disk())
        disk.requeues += entry["requeues"]
        disk.numbers.add(entry["device_id"])
        for name, values in entry["ops"].items():
            operation = disk.operations.setdefault(name, Operation())
            for key in ("total", "bytes", "sum_us", "errors"):
                setattr(operation, key, getattr(operation, key) + values[key])
            operation.max_us = max(operation.max_us, values["max_us"])
            operation.fine.update(dict(zip(*values["fine"])))

    def disk(self, name):
        """The disk of this name; an empty one if no record has it."""
        return self.disks.get(name, Disk())

    def inflight(self, name):
        """What each window says of this disk's requests in flight; None where it has none."""
        return [next((entry for entry in window["inflight"] if entry["device_name"] == name), None)
                for window in self.windows]

    def faults(self):
        """What is wrong with the records in themselves."""
        numbers = [window["seq"] for window in self.windows]
        if not numbers:
            return ["there is no record"]
        faults = []
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            faults.append(f"windows {numbers}, expected each number once")
        for window in self.windows:
            for entry in window["latency_histogram"]:
                slots = sum(bucket["count"] for bucket in entry["buckets"])
                operations = sum(values["total"] for values in entry["ops"].values())
                fine = sum(sum(values["fine"][1]) for values in entry["ops"].values())
                if not entry["total"] == slots == operations == fine:
                    faults.append(f"window {window['seq']}, {entry['device_name']}: total {entry['total']}, slots {slots}, "
                                  f"operations {operations}, fine {fine}")
        return faults

    def disturbed(self, name):
        """Whether the disk had requests in flight already before the case began."""
        return any(entry["device_name"] == name and entry["count"] for entry in self.before)

    def left_before(self):
        """Requests that the window before the case had in flight."""
        return sum(entry["count"] for entry in self.before)

    def left(self):
        """Requests that the last window still has in flight."""
        return sum(entry["count"] for entry in self.windows[-1]["inflight"])
