"""Does what judges the machines' evidence see what is wrong with it?"""

import gzip
import json
import pathlib
import tempfile
import unittest

from judging.bio import judge_bio
from judging.histogram import bounds_ns, bucket_at, quantile
from judging.trace import Model
from judging.verdict import judge

DISK = 8 << 20


def event(at_us, what, rwbs, sector, sectors, last="0"):
    """A line as ftrace prints it."""
    size = f"{sectors * 512} " if what == "issue" else ""
    return (f"  fio-1  [000] d..1.  {at_us // 1_000_000}.{at_us % 1_000_000:06}: block_rq_{what}: "
            f"8,0 {rwbs} {size}() {sector} + {sectors} be,0,4 [{last}]\n")


class Histogram(unittest.TestCase):
    """The record's buckets."""

    def test_bounds(self):
        self.assertEqual(bounds_ns(0), (0, 125))
        self.assertEqual(bounds_ns(16), (2000, 2125))
        self.assertEqual(bounds_ns(144), (512_000, 544_000))
        # Every bucket begins where the one before ends, and octaves at powers of two of microseconds.
        for index in range(527):
            self.assertEqual(bounds_ns(index)[1], bounds_ns(index + 1)[0])
        for exponent in range(2, 20):
            self.assertEqual(bounds_ns(16 * exponent)[0], 1000 << exponent)

    def test_ranks(self):
        self.assertEqual(bucket_at({3: 1, 5: 1, 9: 2}, 0.5), 5)
        self.assertEqual(bucket_at({3: 1, 5: 1, 9: 2}, 0.51), 9)
        self.assertEqual(quantile([4, 1, 3, 2], 0.5), 2)


class Traces(unittest.TestCase):
    """The account of requests from ftrace's lines."""

    def account(self, *lines):
        return Model(lines).account(DISK)

    def test_a_partial_completion_and_a_requeue_are_one_request(self):
        account = self.account(
            event(10, "issue", "R", 100, 8), event(20, "complete", "R", 100, 4), event(30, "requeue", "R", 104, 4),
            event(40, "issue", "R", 104, 4), event(90, "complete", "R", 104, 4, "-5"))
        self.assertEqual(account.latencies_us["read"], [80])
        self.assertEqual((account.partial, account.requeues, account.errors["read"]), (1, 1, 1))
        self.assertFalse(account.pending)

    def test_only_a_request_that_was_issued_can_be_given_back(self):
        account = self.account(
            event(5, "requeue", "R", 100, 8), event(10, "issue", "R", 100, 8), event(20, "requeue", "R", 100, 8),
            event(25, "requeue", "R", 100, 8), event(30, "issue", "R", 100, 8), event(90, "complete", "R", 100, 8))
        self.assertEqual((account.latencies_us["read"], account.requeues), ([80], 1))

    def test_what_was_never_issued_is_no_request(self):
        account = self.account(
            event(10, "issue", "FF", 0, 0), event(50, "complete", "FF", 2**64 - 1, 0), event(51, "complete", "WS", 0, 0))
        self.assertEqual(account.latencies_us["flush"], [40])
        self.assertNotIn("write", account.latencies_us)

    def test_operations(self):
        account = self.account(*(line for at, rwbs in enumerate(["FWFS", "D", "WZ", "N", "RA"])
                                 for line in (event(at, "issue", rwbs, at, 8), event(at + 5, "complete", rwbs, at, 8))))
        self.assertEqual({name: len(found) for name, found in account.latencies_us.items()},
                         {"write": 1, "discard": 1, "other": 2, "read": 1})


class Verdicts(unittest.TestCase):
    """From a machine's directory to outcomes."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.out = pathlib.Path(directory.name)
        self.case = self.out / "topic" / "case"
        self.case.mkdir(parents=True)
        (self.out / "release").write_text("6.12.1-amd64\n")
        (self.case / "lines").write_text("btf first 1\ntracepoint first 1\nbtf last 3\ntracepoint last 3\n")
        zero = " ".join(["0"] * 17)
        (self.case / "before").write_text(f"sda 8:0 {zero}\n")
        # 4 reads of 8 sectors, 3 ms in all.
        (self.case / "after").write_text("sda 8:0 4 0 32 3 " + " ".join(["0"] * 13) + "\n")
        (self.case / "claims").write_text("counts sda\n")
        self.window = {"reads": 4, "bytes": 16384, "sum_us": 2000.0, "audit": {}, "left": 0, "name": "sda", "errors": 0}

    def outcome(self, release=None, **changes):
        """Outcomes by probe for a machine whose second window of three is this."""
        if release:
            (self.out / "release").write_text(release)
        window = self.window | changes
        lines = []
        for number in range(3):
            audit = dict.fromkeys(["untracked_completions", "inflight_table_full", "device_table_full", "probe_misses",
                                   "dropped_snapshots"], 0)
            record = {"seq": number, "latency_histogram": [], "inflight": [], "audit": audit}
            if number == 1:
                audit.update(window["audit"])
                record["latency_histogram"].append({
                    "device_id": DISK, "device_name": window["name"], "requeues": 0, "total": window["reads"],
                    "buckets": [{"count": window["reads"]}],
                    "ops": {"read": {"total": window["reads"], "bytes": window["bytes"], "sum_us": window["sum_us"],
                                     "max_us": 900.0, "errors": window["errors"], "fine": [[150], [window["reads"]]]}}})
            if number == 2 and window["left"]:
                record["inflight"].append({"device_name": "sda", "count": window["left"], "oldest_us": 1.0})
            lines.append(json.dumps(record))
        for probe in ("btf", "tracepoint"):
            (self.out / f"{probe}.jsonl").write_text("\n".join(lines) + "\n")
        return {result.probe: result.outcome for result in judge("6.12", self.out)[1]}

    def assert_btf(self, outcome, **changes):
        self.assertEqual(self.outcome(**changes)["btf"], outcome, changes)

    def test_counts(self):
        self.assert_btf("ok")
        self.assert_btf("FAILED", reads=5)
        self.assert_btf("FAILED", reads=3)
        self.assert_btf("FAILED", bytes=16383)
        self.assert_btf("FAILED", sum_us=4001.0)
        self.assert_btf("FAILED", errors=1)

    def test_records(self):
        self.assert_btf("FAILED", left=1)
        self.assertEqual(self.outcome(left=1)["tracepoint"], "FAILED")
        self.assertEqual(self.outcome(left=1, audit={"probe_misses": 1})["tracepoint"], "ok")
        self.assert_btf("FAILED", name="sdb")
        self.assert_btf("FAILED", audit={"inflight_table_full": 1})

    def test_what_the_audit_admits_may_be_missing(self):
        # Probe btf has no reason to miss anything on these machines.
        self.assertEqual(self.outcome(reads=3, audit={"probe_misses": 1}), {"btf": "FAILED", "tracepoint": "ok"})
        (self.case / "claims").write_text("counts sda\nmay-skip 1\n")
        self.assertEqual(self.outcome(reads=3, audit={"probe_misses": 1})["btf"], "ok")
        self.assertEqual(self.outcome(reads=2, audit={"probe_misses": 1})["btf"], "FAILED")
        self.assertEqual(self.outcome(reads=2, audit={"probe_misses": 2})["btf"], "FAILED")
        (self.case / "claims").write_text("counts sda\n")
        self.assertEqual(self.outcome(reads=2, audit={"probe_misses": 1})["tracepoint"], "FAILED")
        self.assertEqual(self.outcome(reads=3)["tracepoint"], "FAILED")
        # A newer kernel can preempt a program, and skips others then.
        self.assertEqual(self.outcome("7.2.1-amd64", reads=1, audit={"probe_misses": 3})["btf"], "ok")
        self.assertEqual(self.outcome("7.2.1-amd64", reads=3)["btf"], "FAILED")
        self.assertEqual(self.outcome("7.2.1-amd64", reads=0, audit={"probe_misses": 4})["btf"], "FAILED")
        # Before 6.7 the kernel does not count what a classic program misses.
        self.assertEqual(self.outcome("5.10.0-32-amd64", reads=3)["tracepoint"], "ok")

    def test_a_case_without_load_shows_nothing(self):
        (self.case / "after").write_text((self.case / "before").read_text())
        self.assert_btf("FAILED", reads=0, bytes=0)

    def test_missing_evidence_is_no_success(self):
        (self.case / "claims").write_text("counts sda\nfio sda fio.json\n")
        self.assert_btf("FAILED")
        (self.case / "claims").write_text("")
        self.assert_btf("FAILED")

    def test_a_probe_can_be_left_out(self):
        (self.case / "claims").write_text("counts sda\nskip tracepoint 'it is blind'\n")
        self.assertEqual(self.outcome(), {"btf": "ok", "tracepoint": "skipped"})

    def test_trace(self):
        (self.case / "claims").write_text("trace sda\n")
        lines = [event(1000 * at + offset, what, "R", 8 * at, 8)
                 for at in range(12) for offset, what in ((0, "issue"), (710, "complete"))]
        self.write_trace(lines)
        self.window |= {"reads": 12, "bytes": 12 * 4096}
        self.assert_btf("ok")
        self.assert_btf("FAILED", errors=1)
        # One completion fewer was seen.
        self.write_trace(lines[:-1])
        self.assert_btf("FAILED")
        # Slower than the machine could make it.
        self.write_trace([line.replace("710:", "999:") if "complete" in line else line for line in lines])
        self.assert_btf("FAILED")
        (self.case / "claims").write_text("trace sda partial\n")
        self.write_trace(lines)
        self.assert_btf("FAILED")

    def write_trace(self, lines):
        with gzip.open(self.case / "trace.gz", "wt") as file:
            file.writelines(lines)

    def test_a_hung_request(self):
        (self.case / "claims").write_text("hangs sda read 1 1 1\n")
        self.assert_btf("FAILED")

    def test_witness(self):
        for claim, outcome in (("lt", "FAILED"), ("eq", "FAILED"), ("ge", "ok")):
            (self.case / "claims").write_text(f"witness 'how many' '10' {claim} '9'\n")
            self.assert_btf(outcome)

class Bios(unittest.TestCase):
    """What is wrong with the cases of the bio layer."""

    def faulty(self, *, reads=8, useful_bytes=8 * 4096, fastest=0, untracked=8, failed=0):
        """Names of the cases that are not as they should be."""
        with tempfile.TemporaryDirectory() as directory:
            out = pathlib.Path(directory)
            (out / "names").write_text("linear=dm-0 failing=dm-1 held=dm-2 early=dm-3 head=nvme1n1\n")
            for name, text in {"early": "2", "held-from": "3", "held-until": "10", "cases": "linear dm-0\n", "failures": "dm-1 0 0\n"}.items():
                (out / name).write_text(text)
            (out / "before").write_text("dm-0 254:0 " + " ".join(["0"] * 17))
            (out / "after").write_text("dm-0 254:0 8 0 64 9 " + " ".join(["0"] * 13))
            none = {"total_ios": 0, "io_bytes": 0, "lat_ns": {"mean": 0}}
            job = {"read": {"total_ios": 8, "io_bytes": 8 * 4096, "lat_ns": {"mean": 1e6}}, "write": none, "sync": none}
            (out / "fio-linear.json").write_text(json.dumps({"jobs": [job]}))
            windows = [{"audit": {"untracked_completions": untracked}}]
            windows.append({"latency_histogram": [
                self.read("dm-0", reads, useful_bytes, 4000.0, 200 - fastest, 0), self.read("dm-2", 8, 8 * 4096, 9e6, 400, 0)]})
            windows += [{"inflight": [{"device_name": "dm-2", "count": 8, "oldest_us": age}]} for age in (1e5, 2e5, 3e5)]
            if failed:
                windows.append({"latency_histogram": [self.read("dm-1", failed, 0, 1.0, 1, failed)]})
            lines = []
            for number, window in enumerate(windows):
                for layer in ({}, {"layer": "bio"}):
                    record = {"seq": number, "latency_histogram": [], "inflight": [], "audit": {}}
                    lines.append(json.dumps(record | (window if layer else {}) | layer))
            (out / "out.jsonl").write_text("\n".join(lines))
            return {case for case, faults in judge_bio(out).items() if faults}

    @staticmethod
    def read(disk, total, size, sum_us, index, errors):
        values = {"total": total, "bytes": size, "sum_us": sum_us, "errors": errors, "fine": [[index], [total]]}
        return {"device_name": disk, "ops": {"read": values}}

    def test_bios(self):
        self.assertEqual(self.faulty(), set())
        self.assertEqual(self.faulty(reads=7), {"linear"})
        self.assertEqual(self.faulty(useful_bytes=4096), {"linear"})
        self.assertEqual(self.faulty(fastest=150), {"linear"})
        self.assertEqual(self.faulty(untracked=7), {"early"})
        self.assertEqual(self.faulty(failed=1), {"failing"})


if __name__ == "__main__":
    unittest.main()
