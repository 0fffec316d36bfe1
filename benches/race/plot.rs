//! Pictures of the figures, as SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::scaling::Point;
use crate::statistics::Spread;

const GREY: RGBColor = RGBColor(166, 166, 166);
const SIZE: (u32, u32) = (760, 380);
/// Distinguishable with any kind of colour vision (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// Cost per request over something that doubles from point to point.
///
/// # Errors
/// When the file cannot be written.
pub fn lines(path: &Path, x_name: &str, points: &[Point]) -> Result<()> {
    draw_lines(path, x_name, points).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn draw_lines(
    path: &Path,
    x_name: &str,
    points: &[Point],
) -> Result<(), Box<dyn std::error::Error>> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Ok(()) };
    let top = points.iter().flat_map(|point| &point.costs).map(|(_, cost)| cost.high);
    let top = top.fold(1.0, f64::max) * 1.05;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let range = f64::from(first.x)..f64::from(last.x);
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(range.log_scale().base(2.0), 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc(x_name)
        .y_desc("ns per request")
        .x_labels(points.len())
        .x_label_formatter(&|x| format!("{x:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    let fullest = points.iter().max_by_key(|point| point.costs.len()).unwrap_or(first);
    for (number, (name, _)) in fullest.costs.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let line: Vec<(f64, Spread)> = points
            .iter()
            .filter_map(|point| {
                let cost = point.costs.iter().find(|(other, _)| other == name)?.1;
                Some((f64::from(point.x), cost))
            })
            .collect();
        let medians = line.iter().map(|&(x, cost)| (x, cost.median));
        chart
            .draw_series(LineSeries::new(medians, colour.stroke_width(2)).point_size(3))?
            .label(name.replace(['*', '`'], ""))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        // From quartile to quartile.
        chart.draw_series(line.iter().map(|&(x, cost)| {
            PathElement::new([(x, cost.low), (x, cost.high)], colour.stroke_width(1))
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

/// Costs side by side.
///
/// # Errors
/// When the file cannot be written.
pub fn bars(path: &Path, costs: &[(String, Spread)]) -> Result<()> {
    draw_bars(path, costs).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn draw_bars(path: &Path, costs: &[(String, Spread)]) -> Result<(), Box<dyn std::error::Error>> {
    let longest = costs.iter().map(|(_, cost)| cost.high).fold(1.0, f64::max) * 1.05;
    let height = 60 + 34 * costs.len() as u32;
    let area = SVGBackend::new(path, (SIZE.0, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(36)
        .build_cartesian_2d(0.0..longest, 0.0..costs.len() as f64)?;
    chart
        .configure_mesh()
        .x_desc("ns per request")
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(WHITE)
        .draw()?;
    for (number, (name, cost)) in costs.iter().enumerate() {
        let bottom = (costs.len() - 1 - number) as f64;
        let ours = name.contains("blkiolatd");
        let colour = if ours { COLOURS[0] } else { GREY };
        chart.draw_series([
            Rectangle::new([(0.0, bottom + 0.08), (cost.median, bottom + 0.45)], colour.filled()),
            Rectangle::new([(cost.low, bottom + 0.25), (cost.high, bottom + 0.28)], BLACK.filled()),
        ])?;
        let label = format!("{}: {:.0}", name.replace(['*', '`'], ""), cost.median);
        chart.draw_series([Text::new(label, (0.0, bottom + 0.92), ("sans-serif", 13))])?;
    }
    area.present()?;
    Ok(())
}
