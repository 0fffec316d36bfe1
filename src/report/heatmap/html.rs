//! The picture as one self-contained page, with hover values, zoom and a choice of panels.

use std::io;

use jiff::Timestamp;
use serde::Serialize;

use super::draw::LINES;
use super::palette::{LEVELS, Scale, viridis};
use super::png::Theme;
use super::{Map, Panel};

const PAGE: &str = include_str!("page.html");
/// What is replaced in the page.
const PLACE: &str = "/*DATA*/null";

/// Where the page says its theme.
const ROOT: &str = "<html lang=\"en\">";

#[derive(Serialize)]
struct Data<'a> {
    begin_ms: f64,
    width_ms: f64,
    columns: usize,
    offset_ms: f64,
    zone: String,
    palette: Vec<String>,
    decades: f64,
    lines: Vec<&'static str>,
    panels: Vec<PanelData<'a>>,
}

#[derive(Serialize)]
struct PanelData<'a> {
    host: &'a str,
    device: &'a str,
    operation: &'static str,
    count: u64,
    /// Largest share on the scale.
    most: f64,
    /// Bounds of the bands, ns: one more than there are bands.
    bounds: Vec<f64>,
    columns: Vec<Option<ColumnData>>,
}

#[derive(Serialize)]
struct ColumnData {
    /// Requests.
    n: u64,
    /// The percentiles of the lines, then the maximum, ns; empty without a request.
    p: Vec<f64>,
    /// First band with a request, then the counts from there on.
    c: Vec<f64>,
}

/// The page for `map`. `theme` none: as the viewer prefers.
///
/// # Errors
/// When the data cannot be written as JSON, which does not happen with finite numbers.
pub fn render(map: &Map, theme: Option<Theme>) -> io::Result<String> {
    let at = Timestamp::from_microsecond(map.begin_us).map_err(io::Error::other)?;
    let data = Data {
        begin_ms: map.begin_us as f64 / 1e3,
        width_ms: map.width_us as f64 / 1e3,
        columns: map.columns,
        offset_ms: f64::from(map.zone.to_offset(at).seconds()) * 1e3,
        zone: at.to_zoned(map.zone.clone()).strftime("%Z").to_string(),
        palette: (0..LEVELS)
            .map(|level| {
                let [r, g, b] = viridis(level as f64 / (LEVELS - 1) as f64);
                format!("#{r:02x}{g:02x}{b:02x}")
            })
            .collect(),
        decades: Scale::DECADES,
        lines: LINES.iter().map(|&(name, _)| name).collect(),
        panels: map.panels.iter().map(panel_data).collect(),
    };
    // Within a script element only `<` could end the script; JSON has it in strings alone.
    let json = serde_json::to_string(&data)?.replace('<', "\\u003c");
    let root = match theme {
        Some(Theme::Light) => "<html lang=\"en\" data-theme=\"light\">",
        Some(Theme::Dark) => "<html lang=\"en\" data-theme=\"dark\">",
        None => ROOT,
    };
    Ok(PAGE.replacen(ROOT, root, 1).replacen(PLACE, &json, 1))
}

fn panel_data(panel: &Panel) -> PanelData<'_> {
    let cells = panel.cells(8);
    let mut bounds: Vec<f64> = cells.bands.iter().map(|band| band.low_ns).collect();
    bounds.extend(cells.bands.last().map(|band| band.high_ns));
    let columns = panel.columns.iter().zip(&cells.counts).map(|(totals, counts)| {
        let totals = totals.as_ref()?;
        let quantiles = LINES.iter().map(|&(_, quantile)| quantile);
        let mut p: Vec<f64> =
            quantiles.filter_map(|q| totals.hist.quantile_ns(q, totals.max_ns)).collect();
        if totals.count > 0 {
            p.push(totals.max_ns as f64);
        }
        let first = counts.iter().position(|&count| count > 0.0).unwrap_or(0);
        let end = counts.iter().rposition(|&count| count > 0.0).map_or(first, |last| last + 1);
        let mut c = vec![first as f64];
        c.extend(counts[first..end].iter().map(|count| (count * 1e3).round() / 1e3));
        Some(ColumnData { n: totals.count, p, c })
    });
    PanelData {
        host: &panel.host,
        device: &panel.device,
        operation: panel.operation,
        count: panel.count,
        most: Scale::new(cells.most).most,
        bounds,
        columns: columns.collect(),
    }
}
