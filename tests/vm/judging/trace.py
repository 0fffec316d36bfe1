"""An account of requests from ftrace's lines, independent of the program under test.

Requests are told apart by device, operation and sector. That is sound here because no case has two requests
for one sector in flight at once, but for flushes, which have none and are taken in order.
"""

import gzip
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

# Fields: Documentation of the events is their format file; the ioprio before '[' is printed from 6.11 on.
EVENT = re.compile(
    r"\s(?P<seconds>\d+)\.(?P<micros>\d{6}): block_rq_(?P<event>issue|complete|requeue): "
    r"(?P<major>\d+),(?P<minor>\d+) (?P<rwbs>\w+) (?:(?P<bytes>\d+) )?\(.*\) (?P<sector>\d+) \+ (?P<sectors>\d+) "
    r"(?:\S+ )?\[(?P<last>.*)\]$"
)
FLUSH_SECTOR = 2**64 - 1


def operation_of(rwbs):
    """The record's name of what blk_fill_rwbs() printed: an F before the operation is a preflush."""
    if rwbs[0] == "F" and rwbs[1:2] and rwbs[1] in "WRDN":
        rwbs = rwbs[1:]
    if rwbs[0] == "W":
        return "other" if rwbs[1:2] == "Z" else "write"
    return {"R": "read", "F": "flush", "D": "discard"}.get(rwbs[0], "other")


@dataclass
class Request:
    """One that was issued."""

    issued_us: int
    left: int
    requeued: bool = False
    parts: int = 0


@dataclass
class Account:
    """What happened on one disk, by operation where it is a dictionary."""

    latencies_us: dict = field(default_factory=lambda: defaultdict(list))
    bytes: Counter = field(default_factory=Counter)
    errors: Counter = field(default_factory=Counter)
    requeues: int = 0
    partial: int = 0
    pending: dict = field(default_factory=dict)


class Model:
    """Accounts by device number (major << 20 | minor)."""

    def __init__(self, lines):
        self.accounts = defaultdict(Account)
        self.events = 0
        for line in lines:
            match = EVENT.search(line.rstrip())
            if match:
                self.events += 1
                self._event(match)

    @classmethod
    def read(cls, path):
        """The model of a gzip file of trace lines."""
        with gzip.open(path, "rt", errors="replace") as lines:
            return cls(lines)

    def _event(self, match):
        now = int(match["seconds"]) * 1_000_000 + int(match["micros"])
        account = self.accounts[int(match["major"]) << 20 | int(match["minor"])]
        operation = operation_of(match["rwbs"])
        sector = int(match["sector"])
        if operation == "flush" or sector == FLUSH_SECTOR:
            sector = 0
        queue = account.pending.setdefault((operation, sector), [])
        if match["event"] == "issue":
            known = next((request for request in queue if request.requeued), None)
            if known:
                known.requeued = False
            else:
                queue.append(Request(now, int(match["bytes"])))
        elif match["event"] == "requeue":
            # The event is also for requests that were not issued, or not again since.
            if queue and not queue[0].requeued:
                queue[0].requeued = True
                account.requeues += 1
        elif queue:
            self._complete(account, (operation, sector), queue.pop(0), match, now)
        if not queue:
            account.pending.pop((operation, sector), None)

    def _complete(self, account, key, request, match, now):
        operation, sector = key
        done = int(match["sectors"]) * 512
        account.bytes[operation] += done
        if operation != "other" and done < request.left:
            account.partial += request.parts == 0
            request.parts += 1
            request.left -= done
            account.pending.setdefault((operation, sector + done // 512), []).append(request)
            return
        account.latencies_us[operation].append(now - request.issued_us)
        account.errors[operation] += match["last"] != "0"

    def account(self, number):
        """That of a disk; an empty one if nothing happened there."""
        return self.accounts.get(number, Account())
