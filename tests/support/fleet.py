"""Runs the statements of docs/fleet.md: fleet.py DOC ENGINE ARCHIVES PARQUET

ENGINE: duckdb, clickhouse, spark; or numpy, which computes the same from the archives without SQL.
Prints one JSON object: by what the view is made of (jsonl, parquet), the rows of each query.
"""

import glob
import gzip
import json
import re
import sys
from collections import defaultdict


def statements(doc, engine, source):
    """The view's statements, then (name, query)."""
    views, queries = [], []
    for heading, sql in re.findall(r"^```sql ([a-z ]+)\n(.*?)^```", doc, re.S | re.M):
        who, what = heading.split()
        parts = [part.strip() for part in re.split(r";\s*\n", sql) if part.strip()]
        if (who, what) == (engine, source):
            views += parts
        elif who == "every":
            queries.append((what, parts[0]))
    assert views and queries, (engine, source)
    return views, queries


def duckdb_runner():
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return lambda sql: connection.execute(sql).fetchall()


def clickhouse_runner():
    from chdb import session

    chdb = session.Session()
    chdb.query("CREATE DATABASE fleet ENGINE = Atomic")
    chdb.query("USE fleet")

    def run(sql):
        text = str(chdb.query(sql, "JSONCompact"))
        if not text:
            return []
        return [[number(value) for value in row] for row in json.loads(text)["data"]]

    return run


def number(value):
    """64-bit integers may come as text."""
    return int(value) if isinstance(value, str) and value.isdigit() else value


def spark_runner():
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]")
    for key, value in {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.host": "127.0.0.1",
    }.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return lambda sql: [list(row) for row in session.sql(sql).collect()]


def numpy_rows(archives):
    import numpy

    middle = numpy.empty(529)
    for index in range(529):
        if index < 16:
            middle[index] = (index + 0.5) / 8
        elif index == 528:
            middle[index] = 2**36 / 8
        else:
            middle[index] = (16.5 + index % 16) * 2 ** (index // 16 - 1) / 8
    counts = defaultdict(lambda: numpy.zeros(529, dtype=numpy.int64))
    for path in glob.glob(archives + "/*/*.jsonl.gz"):
        for line in gzip.open(path, "rt", encoding="utf-8"):
            record = json.loads(line)
            for device in record["latency_histogram"]:
                for operation, stats in device["ops"].items():
                    index, count = numpy.array(stats["fine"])
                    key = (record["host"], device["device_name"], "request", operation)
                    counts[key][index] += count

    def percentile(count, thousandths):
        rank = max(1, -(-int(count.sum()) * thousandths // 1000))
        return float(middle[numpy.searchsorted(numpy.cumsum(count), rank)])

    rows = {"percentile": [], "worst": [], "fleet": []}
    fleet = defaultdict(lambda: numpy.zeros(529, dtype=numpy.int64))
    for key in sorted(counts):
        count = counts[key]
        shares = [percentile(count, thousandths) for thousandths in (500, 990, 999)]
        rows["percentile"].append([*key, int(count.sum()), *shares])
        fleet[key[3]] += count
        if key[3] == "read" and count.sum() >= 1000:
            rows["worst"].append([key[0], key[1], int(count.sum()), shares[1]])
    rows["worst"].sort(key=lambda row: (-row[3], row[0], row[1]))
    del rows["worst"][10:]
    for operation in sorted(fleet):
        count = fleet[operation]
        shares = [percentile(count, thousandths) for thousandths in (500, 990)]
        rows["fleet"].append([operation, int(count.sum()), *shares])
    return rows


def main(doc, engine, archives, parquet):
    if engine == "numpy":
        return {"jsonl": numpy_rows(archives)}
    runners = {"duckdb": duckdb_runner, "clickhouse": clickhouse_runner, "spark": spark_runner}
    with open(doc, encoding="utf-8") as file:
        doc = file.read()
    doc = doc.replace("/archives/fleet.parquet", parquet).replace("/archives/*", archives + "/*")
    run = runners[engine]()
    answers = {}
    for source in ("jsonl", "parquet"):
        views, queries = statements(doc, engine, source)
        for sql in views:
            run(sql)
        answers[source] = {name: [list(row) for row in run(sql)] for name, sql in queries}
        run("DROP VIEW bucket")
    return answers


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:]), default=float))
