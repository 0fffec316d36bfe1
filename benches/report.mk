# How fast archives are read. Included by the Makefile, which defines build and python.
#
#   make bench-report                          a month of 4 devices, then 1,000 host-days; target/bench/report.md and docs/benchmarks.md
#   make bench-report REPORT_MONTH=DIRECTORY   a month that is there already
.PHONY: bench-report
bench-report: build $(PYTHON_READY) ## reading archives beside zcat and DuckDB; a part of docs/benchmarks.md
	$(CARGO) build --release --locked --example fleet
	PATH="$(PYTHON):$$PATH" python3 benches/report/run.py $(if $(REPORT_MONTH),--month $(REPORT_MONTH))
	$(MAKE) --no-print-directory bench STAGES=report
