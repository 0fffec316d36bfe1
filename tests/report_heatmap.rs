//! `blkiolat heatmap` in the terminal and as SVG, PNG and page. The pictures are left in
//! `target/tmp/heatmap` for eyes.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::*;

/// A day of two disks with a bad hour and an hour that is missing.
fn day() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let mut plan = plan("db-17", 1, 960);
    plan.window_us = 90_000_000;
    plan.disks[1].slow = Some((560, 600));
    plan.disks[0].slow = Some((760, 764));
    let (mut records, _) = generate(&plan);
    records.drain(230..270);
    write_archive(root.path(), &records, 300);
    root
}

fn pictures() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("heatmap");
    fs::create_dir_all(&path).unwrap();
    path
}

fn draw(name: &str, arguments: &[&str]) -> Vec<u8> {
    let path = pictures().join(name);
    let mut all = vec!["heatmap", "-o", path.to_str().unwrap()];
    all.extend(arguments);
    assert_eq!(text(blkiolat(&all), 0), "");
    fs::read(path).unwrap()
}

#[test]
fn in_the_terminal() {
    let root = day();
    let directory = root.path().to_str().unwrap();
    let arguments = ["heatmap", "--device", "sda", "--op", "read", "--width", "100", directory];
    golden("heatmap.txt", &text(blkiolat(&arguments), 0));
    for (colour, code) in [("true", "\x1b[48;2;"), ("256", "\x1b[48;5;")] {
        let mut all = arguments.to_vec();
        all.extend(["--colour", colour]);
        let coloured = text(blkiolat(&all), 0);
        assert!(coloured.contains(code));
        // Colours are ended before each line is.
        for line in coloured.lines().filter(|line| line.contains('\x1b')) {
            let last = line.rfind("\x1b[").unwrap();
            assert!(line[last..].starts_with("\x1b[0m"), "{line:?}");
        }
        fs::write(pictures().join(format!("{colour}.ansi")), coloured).unwrap();
    }
}

#[test]
fn svg_png_and_page() {
    let root = day();
    let directory = root.path().to_str().unwrap();
    let some = ["--op", "read,write", directory];
    let svg = String::from_utf8(draw("map.svg", &some)).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("prefers-color-scheme: dark"));
    assert_eq!(svg.matches("db-17: ").count(), 4);
    assert!(svg.contains(">no data<"));
    assert!(svg.contains("2026-11-22 00:00:00 – ") || svg.contains("2026-11-22 00:00 – "));
    let dark = draw("dark.svg", &["--theme", "dark", "--device", "sda", "--op", "read", directory]);
    assert!(!String::from_utf8(dark).unwrap().contains("@media"));
    for theme in ["light", "dark"] {
        let name = format!("{theme}.png");
        let bytes = draw(&name, &["--theme", theme, "--device", "sda", "--op", "read", directory]);
        let decoder = png::Decoder::new(std::io::Cursor::new(bytes));
        let info = decoder.read_info().unwrap();
        assert_eq!((info.info().width, info.info().height), (2400, 800));
    }
    let page = String::from_utf8(draw("map.html", &[directory])).unwrap();
    for outside in ["http://", "https://", "src=", "import "] {
        assert!(!page.contains(outside), "the page must need no network: {outside}");
    }
    // What the page shows adds up to what the report says.
    let data = page.split("const data = ").nth(1).unwrap().split(";\n").next().unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    let report = text(blkiolat(&["report", "-f", "json", directory]), 0);
    let report: Value = serde_json::from_str(&report).unwrap();
    for row in report["rows"].as_array().unwrap() {
        let panel = data["panels"].as_array().unwrap().iter().find(|panel| {
            panel["device"] == row["device"] && panel["operation"] == row["operation"]
        });
        let columns = panel.unwrap()["columns"].as_array().unwrap();
        let sum: f64 = columns
            .iter()
            .filter(|column| !column.is_null())
            .flat_map(|column| &column["c"].as_array().unwrap()[1..])
            .map(|count| count.as_f64().unwrap())
            .sum();
        assert_eq!(sum, row["count"].as_f64().unwrap());
    }
}

#[test]
fn names_cannot_break_out_of_a_picture() {
    let root = tempfile::tempdir().unwrap();
    let mut plan = plan("</script><b>&\u{1b}[31m", 1, 20);
    plan.disks[0].name = "<i>\"'&".into();
    let (records, _) = generate(&plan);
    fs::write(root.path().join("x.jsonl"), lines(&records)).unwrap();
    let directory = root.path().to_str().unwrap();
    let svg = String::from_utf8(draw("names.svg", &["--op", "read", directory])).unwrap();
    assert!(svg.contains("&lt;/script&gt;&lt;b&gt;&amp;\\u{1b}[31m"));
    assert!(!svg.contains("<b>") && !svg.contains("<i>") && !svg.contains('\u{1b}'));
    let page = String::from_utf8(draw("names.html", &[directory])).unwrap();
    assert_eq!(page.matches("</script>").count(), 1);
    assert!(!page.contains('\u{1b}'));
    let terminal = text(blkiolat(&["heatmap", "--width", "60", "--op", "all", directory]), 0);
    assert!(!terminal.contains('\u{1b}'));
}

#[test]
fn what_cannot_be_drawn() {
    let root = day();
    let directory = root.path().to_str().unwrap();
    let wrong = blkiolat(&["heatmap", "-o", "map.gif", directory]);
    assert_eq!(wrong.status.code(), Some(2));
    let none = blkiolat(&["heatmap", "--device", "nope", directory]);
    assert_eq!(none.status.code(), Some(1));
    let nowhere = blkiolat(&["heatmap", "-o", "/nonexistent/x.svg", directory]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("cannot write /nonexistent/x.svg"));
}
