//! What goes wrong at the start: each says what, why and what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::daemon::{Launch, PROGRAM};
use crate::fixture::{Loop, Mode, memory, needs, run};

#[test]
fn without_privileges_it_says_what_is_missing() {
    needs!("setpriv");
    // Where nobody may read the build directory, a copy is needed.
    let directory = memory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("blkiolatd");
    fs::copy(PROGRAM, &copy).unwrap();
    let output = crate::fixture::command("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .args(["--no-output", "--print", "--count", "1"])
        .current_dir("/")
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(77), "{errors}");
    for word in ["not permitted", "CAP_BPF", "CAP_PERFMON", "root"] {
        assert!(errors.contains(word), "{errors}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn capabilities_are_enough() {
    needs!("setpriv");
    let directory = memory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let copy = directory.path().join("blkiolatd");
    fs::copy(PROGRAM, &copy).unwrap();
    let output = crate::fixture::command("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["--inh-caps=-all,+bpf,+perfmon", "--ambient-caps=-all,+bpf,+perfmon"])
        .args(["--bounding-set=-all,+bpf,+perfmon"])
        .arg(&copy)
        .args(["--print", "--count", "1", "--interval", "0.05", "--probe", "btf"])
        .current_dir(directory.path())
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let text = fs::read_to_string(directory.path().join("tracepoints.jsonl")).unwrap();
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn an_output_that_cannot_be_written_ends_a_terminal_run() {
    needs!("script");
    let run = Launch::new()
        .through(&["script", "--quiet", "--return", "/dev/null", "--command"])
        .by_default()
        .without_output()
        .arguments(&["--count", "1", "--output", "/nonexistent/records.jsonl"])
        .run();
    assert_eq!(run.code, Some(1), "{}", run.stdout);
    assert!(run.stdout.contains("/nonexistent"), "{}", run.stdout);
    assert!(run.stdout.contains("No such file or directory"), "{}", run.stdout);
}

#[test]
fn a_glob_that_matches_nothing_is_a_warning() {
    needs!("losetup");
    let run = Launch::new()
        .arguments(&["--device", "nosuchdisk*", "--device", "loop*", "--count", "1"])
        .run();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let warnings: Vec<_> = run.stderr.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{}", run.stderr);
    assert!(warnings[0].contains("nosuchdisk*"), "{}", run.stderr);
}

#[test]
fn a_second_daemon_on_the_same_output_is_refused() {
    needs!("losetup");
    let disk = Loop::new(8, Mode::Buffered);
    let mut first = Launch::of(&[&disk]).start();
    let output = first.directory().join("records.jsonl");
    let output = output.to_str().unwrap();
    let second =
        Launch::new().without_output().arguments(&["--count", "1", "--output", output]).run();
    assert_eq!(second.code, Some(1), "{}", second.stderr);
    for word in [output, "another blkiolatd"] {
        assert!(second.stderr.contains(word), "{}", second.stderr);
    }
    first.wait_windows(2);
    assert!(first.stop().kept().records.len() >= 2);
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place() {
    needs!("losetup");
    let run = Launch::new()
        .configuration("[sampling]\ninterval = \"5s\"\nprobes = \"btf\"\n")
        .arguments(&["--count", "1"])
        .run();
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    assert!(run.stderr.contains("blkiolatd.toml:3:1"), "{}", run.stderr);
    assert!(run.stderr.contains("probes"), "{}", run.stderr);
}

#[test]
fn little_locked_memory_is_enough() {
    needs!("prlimit", "dd");
    let disk = Loop::new(8, Mode::Buffered);
    let daemon = Launch::of(&[&disk]).through(&["prlimit", "--memlock=65536:65536", "--"]).start();
    run(&["dd", &format!("if={}", disk.node()), "of=/dev/null", "bs=64k", "iflag=direct"]);
    let totals = daemon.stop().kept().totals(&disk.name);
    assert_eq!(totals.read.bytes, 8 << 20);
}

#[test]
fn doctor_says_what_an_unprivileged_user_lacks() {
    needs!("setpriv");
    let directory = memory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("blkiolatd");
    fs::copy(PROGRAM, &copy).unwrap();
    let output = crate::fixture::command("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .arg("doctor")
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(77), "{text}");
    assert!(text.contains("CAP_BPF and CAP_PERFMON missing: run as root"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("verdict") && line.contains("not permitted")));
}

/// The program, where neither the kernel's BTF nor tracefs can be seen.
fn without_btf_and_tracefs(arguments: &str) -> (Option<i32>, String) {
    let script = format!(
        "mount -t tmpfs none /sys/kernel/btf && mount -t tmpfs none /sys/kernel/tracing && \
         {{ [ ! -d /sys/kernel/debug ] || mount -t tmpfs none /sys/kernel/debug; }} && \
         exec {PROGRAM} {arguments} 2>&1"
    );
    let output = crate::fixture::command("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .current_dir("/")
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn without_btf_and_tracefs_each_probe_says_what_it_needs() {
    needs!("unshare");
    let run = |probe| without_btf_and_tracefs(&format!("--no-output --count 1 --probe {probe}"));
    let btf = "/sys/kernel/btf/vmlinux: No such file";
    let tracefs = "`mount -t tracefs tracefs /sys/kernel/tracing` as root mounts it";
    for (probe, words) in
        [("btf", &[btf][..]), ("tracepoint", &[tracefs]), ("auto", &[btf, tracefs])]
    {
        let (code, text) = run(probe);
        assert_eq!(code, Some(1), "{text}");
        for word in words {
            assert!(text.contains(word), "{probe}: {text}");
        }
    }
    let (code, text) = without_btf_and_tracefs("doctor");
    assert_eq!(code, Some(1), "{text}");
    for word in [btf, tracefs, "verdict       nothing can be measured here"] {
        assert!(text.contains(word), "{text}");
    }
}
