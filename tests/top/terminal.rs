//! `blkiolat top` in a real terminal: tmux draws what the program sends and can be asked for it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{lines, skip};
use crate::{append, records, until};

/// A shell in a terminal of its own.
struct Tmux {
    socket: String,
}

impl Tmux {
    /// None where there is no tmux.
    fn start(dir: &Path) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            skip("tmux is missing (apt-get install tmux)");
            return None;
        }
        let tmux = Self { socket: dir.join("tmux").display().to_string() };
        tmux.run(&[
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            "-c",
            &dir.display().to_string(),
            "env",
            "PS1=$ ",
            "TZ=UTC",
            "LC_ALL=C.UTF-8",
            "bash",
            "--norc",
            "--noprofile",
            "-i",
        ]);
        Some(tmux)
    }

    fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.args(["-u", "-f", "/dev/null", "-S", &self.socket]).args(arguments);
        let output = command.env_remove("TMUX").output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Types `text` and Enter.
    fn enter(&self, text: &str) {
        self.run(&["send-keys", "-l", text]);
        self.key("Enter");
    }

    fn key(&self, key: &str) {
        self.run(&["send-keys", key]);
    }

    fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    /// Waits for a screen on which all of `texts` are.
    fn shows(&self, texts: &[&str]) -> String {
        let mut screen = String::new();
        until(&format!("a screen with {texts:?}"), || {
            screen = self.screen();
            let all = texts.iter().all(|text| screen.contains(text));
            if all { Ok(()) } else { Err(screen.clone()) }
        });
        screen
    }

    /// Whether a program has a screen of its own, and the cursor is hidden.
    fn modes(&self) -> String {
        self.run(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]).trim().to_owned()
    }
}

impl Tmux {
    /// Waits until no program has the screen.
    fn is_the_shell_s(&self) {
        until("the shell's terminal", || match self.modes() {
            modes if modes == "0 1" => Ok(()),
            modes => Err(modes),
        });
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-S", &self.socket, "kill-server"]).output();
    }
}

#[test]
fn a_session_from_beginning_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let Some(tmux) = Tmux::start(dir.path()) else { return };
    let path = dir.path().join("b.jsonl");
    let records = records(20);
    append(&path, &lines(&records[..8]));
    tmux.shows(&["$"]);
    tmux.enter("stty -a > before");
    tmux.enter(&format!("{} top b.jsonl", env!("CARGO_BIN_EXE_blkiolat")));
    tmux.shows(&["db-17", "00:00:40", "nvme0n1", "sda", "MAX", "nothing missed"]);
    assert_eq!(tmux.modes(), "1 0");

    // New windows, a gap, another size, a rotation.
    append(&path, &lines(&records[9..10]));
    tmux.shows(&["00:00:50", "MISSED in this window: 1 window missing"]);
    tmux.run(&["resize-window", "-x", "40", "-y", "10"]);
    let small = tmux.shows(&["00:00:50", "q quit", "P99"]);
    assert!(!small.contains("MAX"), "{small}");
    tmux.run(&["resize-window", "-x", "80", "-y", "24"]);
    fs::rename(&path, dir.path().join("old")).unwrap();
    append(&path, &lines(&records[10..11]));
    tmux.shows(&["00:00:55", "it was rotated", "MAX"]);

    // Keys.
    tmux.key("n");
    tmux.shows(&["sort: name"]);
    tmux.key("?");
    tmux.shows(&["quit", "replay faster, slower"]);
    tmux.key("Escape");
    // Escape and the next key at once would be another key.
    tmux.shows(&["sort: name"]);
    tmux.key("Down");
    tmux.key("Enter");
    tmux.shows(&["sda: this window", "usecs, requests: all", "->"]);
    tmux.key("Left");
    tmux.shows(&["HELD", "00:00:50"]);

    // Stopped, the terminal is the shell's; continued, it is as it was.
    tmux.key("C-z");
    tmux.shows(&["Stopped", "$"]);
    tmux.is_the_shell_s();
    tmux.enter("fg");
    tmux.shows(&["HELD", "00:00:50", "sda: this window"]);
    tmux.key("q");
    tmux.is_the_shell_s();
    tmux.enter("echo status $?; stty -a > after; echo written");
    tmux.shows(&["status 0", "\nwritten"]);
    let modes = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(modes("after"), modes("before"));
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let dir = tempfile::tempdir().unwrap();
    let Some(tmux) = Tmux::start(dir.path()) else { return };
    append(&dir.path().join("b.jsonl"), &lines(&records(3)));
    tmux.shows(&["$"]);
    tmux.enter("stty -a > before");
    for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        // Started by a shell that writes down its number, and whose screen is empty.
        tmux.enter("clear");
        let top = env!("CARGO_BIN_EXE_blkiolat");
        tmux.enter(&format!("(sh -c 'echo $$ > pid; exec {top} top b.jsonl')"));
        tmux.shows(&["MAX", "sda"]);
        let pid = fs::read_to_string(dir.path().join("pid")).unwrap();
        let kill = Command::new("kill").args(["-s", signal, pid.trim()]).status().unwrap();
        assert!(kill.success());
        tmux.is_the_shell_s();
        tmux.enter("echo status $?");
        tmux.shows(&[&format!("status {code}")]);
        tmux.enter("stty -a > after; echo written");
        tmux.shows(&["\nwritten"]);
        let modes = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(modes("after"), modes("before"), "{signal}");
    }
}

/// It must not spin at a terminal that says "end of file" for ever, even if nobody hangs it up.
#[test]
fn it_ends_with_its_terminal() {
    for heed in ["", "trap '' HUP;"] {
        let dir = tempfile::tempdir().unwrap();
        let Some(tmux) = Tmux::start(dir.path()) else { return };
        append(&dir.path().join("b.jsonl"), &lines(&records(3)));
        tmux.shows(&["$"]);
        let top = env!("CARGO_BIN_EXE_blkiolat");
        tmux.enter(&format!("(sh -c '{heed} echo $$ > pid; exec {top} top b.jsonl')"));
        tmux.shows(&["MAX", "sda"]);
        let pid = fs::read_to_string(dir.path().join("pid")).unwrap();
        drop(tmux);
        // A process that has ended and was not waited for yet has no command line.
        let command = format!("/proc/{}/cmdline", pid.trim());
        until("it has ended", || match fs::read(&command) {
            Ok(words) if !words.is_empty() => Err("it runs".into()),
            _ => Ok(()),
        });
    }
}

#[test]
fn a_replay_can_be_held_and_stepped() {
    let dir = tempfile::tempdir().unwrap();
    let Some(tmux) = Tmux::start(dir.path()) else { return };
    append(&dir.path().join("copy.jsonl"), &lines(&records(9)));
    tmux.shows(&["$"]);
    tmux.enter(&format!(
        "NO_COLOR=1 {} top --replay --speed 0.01 copy.jsonl",
        env!("CARGO_BIN_EXE_blkiolat")
    ));
    tmux.shows(&["replay 0.01x", "00:00:05"]);
    tmux.key("Right");
    tmux.shows(&["HELD", "00:00:10"]);
    tmux.key("Right");
    tmux.shows(&["00:00:15"]);
    tmux.key("Left");
    tmux.shows(&["00:00:10"]);
    tmux.key("+");
    tmux.shows(&["replay 0.1x"]);
    for _ in 0..11 {
        tmux.key("+");
    }
    tmux.shows(&["replay max"]);
    tmux.key("Space");
    tmux.shows(&["replay max, ended", "00:00:45"]);
    tmux.key("q");
    tmux.shows(&["$"]);
}

/// Records come through a pipe and keys from the terminal.
#[test]
fn a_pipe_and_the_keyboard() {
    let dir = tempfile::tempdir().unwrap();
    let Some(tmux) = Tmux::start(dir.path()) else { return };
    append(&dir.path().join("copy.jsonl"), &lines(&records(4)));
    tmux.shows(&["$"]);
    tmux.enter(&format!("cat copy.jsonl | {} top -", env!("CARGO_BIN_EXE_blkiolat")));
    tmux.shows(&["input ended", "00:00:20", "nothing missed in 4 windows"]);
    tmux.key("o");
    tmux.shows(&["sort: oldest"]);
    tmux.key("q");
    tmux.is_the_shell_s();
}
