//! The picture as SVG: shapes and text only, colours by class, so that a page or the viewer's
//! setting can turn it dark.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Map;
use super::draw::{self, Anchor, Canvas, Ink, WIDTH};
use super::palette::LEVELS;
use super::png::{Theme, colour};

#[derive(Default)]
struct Svg {
    body: String,
    /// Cells of one level are one path, which is a fifth of the size of as many rectangles.
    paths: BTreeMap<usize, String>,
}

/// Draws the map. `theme` none: light, and dark where the viewer prefers that.
#[must_use]
pub fn render(map: &Map, theme: Option<Theme>) -> String {
    let mut svg = Svg::default();
    draw::draw(&mut svg, map);
    svg.flush();
    let height = draw::height(map.panels.len());
    let style = match theme {
        Some(theme) => style(theme),
        None => format!(
            "{}@media (prefers-color-scheme: dark) {{\n{}}}\n",
            style(Theme::Light),
            style(Theme::Dark)
        ),
    };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"'DejaVu Sans', Verdana, sans-serif\">\n<style>\n{style}</style>\n{}</svg>\n",
        svg.body
    )
}

fn style(theme: Theme) -> String {
    let mut style = String::new();
    let mut rule = |selector: &str, property: &str, ink: Ink| {
        let [r, g, b] = colour(theme, ink);
        let _ = writeln!(style, ".{selector} {{ {property}: #{r:02x}{g:02x}{b:02x} }}");
    };
    for (name, ink) in [
        ("ground", Ink::Ground),
        ("plot", Ink::Plot),
        ("text", Ink::Text),
        ("muted", Ink::Muted),
        ("missing", Ink::Missing),
    ] {
        rule(name, "fill", ink);
    }
    rule("grid", "stroke", Ink::Grid);
    rule("tick", "stroke", Ink::Muted);
    rule("halo", "stroke", Ink::Halo);
    for line in 0..3 {
        rule(&format!("l{line}"), "stroke", Ink::Line(line));
        rule(&format!("n{line}"), "fill", Ink::Line(line));
    }
    for level in 0..LEVELS {
        rule(&format!("c{level}"), "fill", Ink::Cell(level));
    }
    style
}

/// A number with at most two decimals, and none that say nothing.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Svg {
    /// Puts the collected cells down, before something is drawn over them.
    fn flush(&mut self) {
        for (level, path) in std::mem::take(&mut self.paths) {
            let _ = writeln!(
                self.body,
                "<path class=\"c{level}\" shape-rendering=\"crispEdges\" d=\"{path}\"/>"
            );
        }
    }
}

impl Canvas for Svg {
    fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, ink: Ink) {
        let [x, y, width, height] = [x, y, width, height].map(number);
        let class = match ink {
            Ink::Cell(level) => {
                let path = self.paths.entry(level).or_default();
                let _ = write!(path, "M{x} {y}h{width}v{height}h-{width}z");
                return;
            }
            Ink::Ground => "ground",
            Ink::Plot => "plot",
            Ink::Missing => "missing",
            _ => "muted",
        };
        self.flush();
        let _ = writeln!(
            self.body,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>"
        );
    }

    fn line(&mut self, points: &[(f64, f64)], width: f64, ink: Ink) {
        self.flush();
        let class = match ink {
            Ink::Line(line) => format!("l{line}"),
            Ink::Halo => "halo".into(),
            Ink::Muted => "tick".into(),
            _ => "grid".into(),
        };
        let points: Vec<_> =
            points.iter().map(|&(x, y)| format!("{},{}", number(x), number(y))).collect();
        let soft = if ink == Ink::Halo { " stroke-opacity=\"0.75\"" } else { "" };
        let _ = writeln!(
            self.body,
            "<polyline class=\"{class}\" fill=\"none\" stroke-width=\"{width}\" \
             stroke-linejoin=\"round\"{soft} points=\"{}\"/>",
            points.join(" ")
        );
    }

    fn text(&mut self, x: f64, y: f64, size: f64, anchor: Anchor, text: &str, ink: Ink) {
        self.flush();
        let class = match ink {
            Ink::Line(line) => format!("n{line}"),
            Ink::Text => "text".into(),
            _ => "muted".into(),
        };
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.body,
            "<text class=\"{class}\" x=\"{}\" y=\"{}\" font-size=\"{size}\" \
             text-anchor=\"{anchor}\">{}</text>",
            number(x),
            number(y),
            escape(text)
        );
    }
}

/// `text` as content of an element, without the control characters that XML does not allow.
fn escape(text: &str) -> String {
    let printable = crate::report::units::printable(text);
    printable.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
