"""From evidence to results: one result for each case and probe."""

from dataclasses import dataclass, field

from .case import Case, Evidence, audit_faults, left_faults, name_faults
from .claims import KINDS

PROBES = ("btf", "tracepoint")


@dataclass
class Result:
    """'ok', 'FAILED' or 'skipped', and why."""

    kernel: str
    probe: str
    name: str
    outcome: str
    details: list = field(default_factory=list)

    def line(self):
        """The standard test line."""
        why = f" ({'; '.join(self.details)})" if self.outcome == "skipped" else ""
        return f"test {self.kernel}/{self.probe}/{self.name} ... {self.outcome}{why}"


def judge_case(case, probe, lines):
    """Outcome and details of a case."""
    if case.skipped:
        return "skipped", [case.skipped]
    why = [words[2] for words in case.claims if words[:2] == ["skip", probe]]
    if why:
        return "skipped", why
    evidence = Evidence(case, probe, lines)
    faults = evidence.records.faults()
    if not evidence.records.windows:
        return "FAILED", faults
    for check in (audit_faults, left_faults, name_faults):
        faults += check(evidence)
    claims = [words for words in case.claims if words[0] not in ("skip", "may-skip")]
    if not claims:
        faults.append("the topic claims nothing")
    for kind, *arguments in claims:
        faults += KINDS[kind](evidence, *arguments)
    audit = [f"{key} {count}" for key, count in sorted(evidence.records.audit.items())]
    return ("FAILED", faults + audit + evidence.notes) if faults else ("ok", audit + evidence.notes)


def judge(kernel, out):
    """Results of everything that a machine left in the directory 'out'."""
    release = (out / "release").read_text().strip()
    files = {probe: out / f"{probe}.jsonl" for probe in PROBES}
    records = {probe: path.read_text().splitlines() if path.exists() else [] for probe, path in files.items()}
    results = []
    # In the order in which they ran: by the number of records that there were then.
    cases = sorted((path.parent for path in out.glob("*/*/lines")), key=lambda path: int((path / "lines").read_text().split()[2]))
    skipped = [path.parent for path in sorted(out.glob("*/*/skip"))]
    for directory in cases + skipped:
        case = Case(directory, release)
        for probe in PROBES:
            try:
                outcome, details = judge_case(case, probe, records[probe])
            except (OSError, LookupError, ValueError, TypeError) as error:
                outcome, details = "FAILED", [f"the evidence is not whole: {type(error).__name__}: {error}"]
            results.append(Result(kernel, probe, case.name, outcome, details))
    return release, results
