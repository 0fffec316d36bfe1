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

/// What a page has to show.
fn page_data(page: &str) -> Value {
    let data = page.split("const data = ").nth(1).unwrap().split(";\n").next().unwrap();
    serde_json::from_str(data).unwrap()
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
    draw("heatmap.svg", &["--device", "sda", "--op", "read", directory]);
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
    let data = page_data(&page);
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

/// The page in a real browser: a choice of panel, a zoom, a hover, and what then stands in it.
#[test]
fn the_page_works_in_a_browser() {
    let root = day();
    let directory = root.path().to_str().unwrap();
    let page = String::from_utf8(draw("browser.html", &["--theme", "light", directory])).unwrap();
    let script = r#"<script>
addEventListener("error", event => document.body.append("FAILED " + event.message));
canvas.setPointerCapture = () => {};
const box = canvas.getBoundingClientRect();
const at = (type, x, y) => canvas.dispatchEvent(
  new PointerEvent(type, { clientX: box.left + x, clientY: box.top + y, bubbles: true }));
for (const [key, value] of [["device", "sda"], ["operation", "read"]]) {
  $(key).value = value;
  $(key).dispatchEvent(new Event("change"));
}
const column = c => LEFT + plot().w * (c + .5) / data.columns;
at("pointerdown", column(270), 50); at("pointermove", column(309), 50); at("pointerup", column(309), 50);
document.body.append(" ZOOMED " + view.join("-"));
at("pointermove", x(285.5), y(panel.columns[285].p[0]));
$("theme").click();
document.body.append(" THEME " + document.documentElement.dataset.theme);
canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "0" }));
document.body.append(" WHOLE " + view.join("-") + " END");
</script></body>"#;
    let path = pictures().join("browser.html");
    fs::write(&path, page.replace("</body>", script)).unwrap();
    let profile = tempfile::tempdir().unwrap();
    let browser = std::process::Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,640"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", path.display()))
        .output();
    let Ok(output) = browser else {
        return support::skip("there is no chromium (apt-get install chromium)");
    };
    let dom = String::from_utf8(output.stdout).unwrap();
    let (_, body) = dom.split_once("<body").unwrap();
    let visible = body.split("<script>").next().unwrap();
    assert!(visible.contains(">db-17: read on sda</h1>"), "{visible}");
    let columns: usize = page_data(&page)["columns"].as_u64().unwrap() as usize;
    let said = body.rsplit("</script>").next().unwrap();
    assert!(!said.contains("FAILED"), "{said}");
    assert!(said.contains("ZOOMED 270-310 "), "{said}");
    assert!(said.contains("THEME dark "), "{said}");
    assert!(said.contains(&format!("WHOLE 0-{columns} END")), "{said}");
    // The hint beside the pointer has what the data has of that column.
    let data = page_data(&page);
    let panels = data["panels"].as_array().unwrap();
    let panel = panels.iter().find(|p| p["device"] == "sda" && p["operation"] == "read").unwrap();
    let count = &panel["columns"][285]["n"];
    assert!(visible.contains(&format!("<td>requests</td><td>{count}</td>")), "{visible}");
}
