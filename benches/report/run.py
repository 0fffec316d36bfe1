"""Measures how fast `blkiolat` reads archives, beside zcat and DuckDB, and writes target/bench/report.md, which becomes a part
of docs/benchmarks.md.

Everything runs side by side, in rounds, on the same cores; the median of the rounds counts. What is compared is checked to be
the same first: the merge in SQL gives the counts that the report has.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RELEASE = ROOT / "target/release"
FLEET = [RELEASE / "examples/fleet", "--seed", "1"]
CORES = len(os.sched_getaffinity(0))

# The merge that `report` does, as docs/fleet.md has it, down to the counts of each bucket.
MERGE = """
WITH record AS (
    SELECT host, unnest(latency_histogram) AS d
    FROM read_json('{glob}', format = 'newline_delimited', maximum_object_size = 67108864, columns = {{
        host: 'VARCHAR',
        latency_histogram: 'STRUCT(device_name VARCHAR, ops MAP(VARCHAR, STRUCT(fine BIGINT[][])))[]'}})
), operation AS (
    SELECT host, d.device_name AS device, unnest(map_entries(d.ops)) AS o FROM record
), pair AS (
    SELECT host, device, o.key AS operation, unnest(o.value.fine[1]) AS i, unnest(o.value.fine[2]) AS n FROM operation
)
SELECT host, device, operation, i, sum(n)::BIGINT AS n FROM pair GROUP BY ALL
"""


def run(command, **options):
    """Seconds of wall clock, seconds of processors, MiB at most, standard output."""
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, **options)
    peak = Peak(child.pid)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - start
    peak.join()
    if status != 0:
        sys.exit(f"{command} failed: {status}")
    return seconds, usage.ru_utime + usage.ru_stime, peak.mib, output


class Peak(threading.Thread):
    """Most resident memory of a process, looked at until it is gone. (ru_maxrss begins with what this program has.)"""

    def __init__(self, pid):
        super().__init__()
        self.status, self.mib = f"/proc/{pid}/status", 0.0
        self.start()

    def run(self):
        while True:
            try:
                with open(self.status, encoding="ascii", errors="replace") as status:
                    peak = [line for line in status if line.startswith("VmHWM:")]
            except OSError:
                return
            if not peak:  # it has ended
                return
            self.mib = int(peak[0].split()[1]) / 1024
            time.sleep(0.02)


def zcat(files):
    """Every file through zcat and wc, one at a time on each core."""
    script = 'xargs -0 -n 1 -P "$0" sh -c \'zcat "$1" | wc -l\' sh'
    return run(["sh", "-c", script, str(CORES)], stdin=named(files))


def named(files):
    reader, writer = os.pipe()
    os.write(writer, b"\0".join(os.fsencode(file) for file in files))
    os.close(writer)
    return reader


def duckdb(glob):
    program = (
        "import duckdb, json, sys\n"
        f"c = duckdb.connect(config={{'threads': {CORES}}})\n"
        "c.execute('SET enable_progress_bar = false')\n"
        "print(json.dumps(c.execute(sys.argv[1]).fetchall()))"
    )
    return run([sys.executable, "-c", program, MERGE.format(glob=glob)])


def report(directory, *options):
    return run([RELEASE / "blkiolat", "report", "--format", "json", *options, directory])


def same(json_report, merged):
    """Whether the report counts what SQL counts."""
    expected = {}
    for host, device, operation, _, count in json.loads(merged):
        key = (host, device, operation)
        expected[key] = expected.get(key, 0) + count
    rows = json.loads(json_report)["rows"]
    reported = {(r["host"], r["device"], r["operation"]): r["count"] for r in rows}
    reported = {key: count for key, count in reported.items() if key[2] != "all"}
    if reported != expected:
        sys.exit("the report and DuckDB's merge differ")


def measure(kinds, rounds):
    """Median seconds, processor seconds and MiB by kind, rounds interleaved."""
    results = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, kind in kinds.items():
            results[name].append(kind()[:3])
    return {name: [statistics.median(of) for of in zip(*runs)] for name, runs in results.items()}


def size(files):
    return sum(file.stat().st_size for file in files) / 1e6


def plain(files):
    """Bytes that the archives decompress to, from one of ten: only for a rate."""
    some = files[::10] or files
    output = subprocess.run(["zcat", *some], stdout=subprocess.PIPE, check=True).stdout
    return len(output) / 1e6 * size(files) / size(some)


def month(path, rounds):
    files = sorted(path.glob("*/*.jsonl.gz"))
    glob = f"{path}/*/*.jsonl.gz"
    same(report(path)[3], duckdb(glob)[3])
    measured = measure(
        {
            "`zcat \\| wc -l`": lambda: zcat(files),
            "`blkiolat report`": lambda: report(path),
            "`blkiolat report --by 1m`": lambda: report(path, "--by", "1m"),
            "DuckDB `read_json`, the same merge": lambda: duckdb(glob),
        },
        rounds,
    )
    base = measured["`zcat \\| wc -l`"][0]
    lines = [
        "## Reading archives: a month of 4 devices",
        "",
        f"{len(files)} files, {size(files):.0f} MB compressed, {plain(files):.0f} MB plain; {CORES} cores, "
        f"median of {rounds} interleaved rounds. The report and DuckDB's merge were checked to have the same counts.",
        "",
        "| program | s | of zcat | processor s | MiB at most |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, (seconds, cpu, mib) in measured.items():
        memory = "" if "zcat" in name else f"{mib:.0f}"
        lines.append(f"| {name} | {seconds:.2f} | {seconds / base:.2f} | {cpu:.2f} | {memory} |")
    ours, theirs = measured["`blkiolat report`"], measured["DuckDB `read_json`, the same merge"]
    lines += [
        "",
        "| bar | measured | |",
        "|---|---:|---|",
        bar("`report` ÷ `zcat \\| wc -l` on the same cores ≤ 1.5", ours[0] / base, ours[0] / base <= 1.5),
        bar("DuckDB ÷ `report` ≥ 5", theirs[0] / ours[0], theirs[0] / ours[0] >= 5),
        bar("MiB resident at most < 64", ours[2], ours[2] < 64),
        "",
        f"zcat alone is {theirs[0] / base:.1f} times as fast as DuckDB.",
        "",
    ]
    return lines


def bar(what, figure, met):
    return f"| {what} | {figure:.2f} | {'met' if met else '**not met**'} |"


def fleet(path, hosts, days):
    """1,000 host-days: `report`, the export, and SQL over it."""
    files = sorted(path.glob("*/*.jsonl.gz"))
    parquet = path.with_suffix(".parquet")
    seconds, cpu, mib, _ = report(path)
    export = run([RELEASE / "blkiolat", "export", "-f", "parquet", "-o", parquet, path])
    query = (
        f"SELECT host, device, operation, bucket, sum(count) FROM '{parquet}' GROUP BY ALL"
    )
    program = "import duckdb, sys; duckdb.execute(sys.argv[1]).fetchall()"
    sql = run([sys.executable, "-c", program, query])
    host_days = hosts * days
    gigabytes = size(files) / 1e3
    # On paper: everything is proportional to the host-days.
    day = 100_000 / host_days
    return [
        f"## A fleet: {host_days:,} host-days",
        "",
        f"{hosts} hosts, {days} days of 2 disks each: {len(files):,} files, {size(files):.0f} MB compressed; {CORES} cores.",
        "",
        "| what | s | processor s | MiB at most | MB |",
        "|---|---:|---:|---:|---:|",
        f"| `blkiolat report` of all | {seconds:.1f} | {cpu:.1f} | {mib:.0f} | {size(files):.0f} |",
        f"| `blkiolat export --format parquet` | {export[0]:.1f} | {export[1]:.1f} | {export[2]:.0f} | "
        f"{parquet.stat().st_size / 1e6:.0f} |",
        f"| the merge in DuckDB from Parquet | {sql[0]:.1f} | {sql[1]:.1f} | {sql[2]:.0f} | |",
        "",
        f"On paper, not measured: a day of 100,000 such hosts is {day:.0f} times as much, so {gigabytes * day:,.0f} GB of archives; "
        f"to report it takes {cpu * day / 3600:.1f} processor hours, to export it {export[1] * day / 3600:.1f}, to merge the "
        f"Parquet files {sql[1] * day / 3600:.1f}. All three divide by hosts, so they divide among machines; merged results "
        "add up by bucket.",
        "",
    ]


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--month", type=Path, help="a month that is there already")
    options.add_argument("--fleet", type=Path, help="a fleet of --hosts and --days that is there already")
    options.add_argument("--hosts", type=int, default=100)
    options.add_argument("--days", type=int, default=10)
    options.add_argument("--rounds", type=int, default=5)
    options = options.parse_args()
    target = ROOT / "target/bench"
    target.mkdir(parents=True, exist_ok=True)
    if options.month is None:
        options.month = target / "month"
        subprocess.run([*FLEET, options.month, "--hosts", "1", "--days", "30", "--disks", "4"], check=True)
    if options.fleet is None:
        options.fleet = target / "fleet"
        shape = ["--hosts", str(options.hosts), "--days", str(options.days)]
        subprocess.run([*FLEET, options.fleet, *shape], check=True)
    lines = month(options.month, options.rounds) + fleet(options.fleet, options.hosts, options.days)
    (target / "report.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
