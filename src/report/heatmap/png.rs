//! The picture as PNG: a small rasteriser for what [`super::draw`] needs.

use std::io;

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};

use super::Map;
use super::draw::{self, Anchor, Canvas, Ink, WIDTH};
use super::palette::{LEVELS, Rgb, viridis};

/// DejaVu Sans, the part with Latin letters and the signs used here (assets/DejaVuSans-LICENSE.txt).
const FONT: &[u8] = include_bytes!("../../../assets/DejaVuSans-subset.ttf");
/// Pixels per unit of the drawing.
const PIXELS: f64 = 2.0;

/// Light or dark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Theme {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

/// The colour of `ink`. In both themes more is further from the ground: darker on light, lighter
/// on dark.
#[must_use]
pub fn colour(theme: Theme, ink: Ink) -> Rgb {
    let dark = theme == Theme::Dark;
    let pick = |light: Rgb, night: Rgb| if dark { night } else { light };
    match ink {
        Ink::Ground => pick([0xff; 3], [0x14, 0x16, 0x1a]),
        Ink::Plot => pick([0xfb, 0xfb, 0xfc], [0x0d, 0x0e, 0x11]),
        Ink::Text => pick([0x1a, 0x1c, 0x20], [0xf0, 0xf1, 0xf3]),
        Ink::Muted => pick([0x52, 0x57, 0x60], [0xa9, 0xae, 0xb8]),
        Ink::Grid => pick([0xe3, 0xe5, 0xe9], [0x2b, 0x2e, 0x35]),
        Ink::Missing => pick([0xdd, 0xdf, 0xe3], [0x33, 0x36, 0x3d]),
        Ink::Halo => pick([0xff; 3], [0x0d, 0x0e, 0x11]),
        Ink::Line(0) => pick([0x00; 3], [0xff; 3]),
        Ink::Line(1) => pick([0xb0, 0x1e, 0x6e], [0xff, 0x9d, 0xd6]),
        Ink::Line(_) => pick([0xc2, 0x35, 0x00], [0xff, 0x8a, 0x4c]),
        Ink::Cell(level) => {
            let place = level as f64 / (LEVELS - 1) as f64;
            viridis(if dark { place } else { 1.0 - place })
        }
    }
}

struct Raster<'a> {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    theme: Theme,
    font: FontRef<'a>,
}

/// Draws the map as PNG, two pixels to a unit of the drawing.
///
/// # Errors
/// When the picture would be too high for PNG, or the font cannot be read.
pub fn render(map: &Map, theme: Theme) -> io::Result<Vec<u8>> {
    let font = FontRef::try_from_slice(FONT).map_err(io::Error::other)?;
    let (width, height) = (WIDTH * PIXELS, draw::height(map.panels.len()) * PIXELS);
    let (width, height) = (width as usize, height as usize);
    let mut raster = Raster { width, height, pixels: vec![0; width * height * 3], theme, font };
    draw::draw(&mut raster, map);
    let mut bytes = Vec::new();
    let too_large = |_| io::Error::other("the picture is too large for PNG; choose fewer panels");
    let mut encoder = png::Encoder::new(
        &mut bytes,
        u32::try_from(width).map_err(too_large)?,
        u32::try_from(height).map_err(too_large)?,
    );
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&raster.pixels)?;
    writer.finish()?;
    Ok(bytes)
}

impl Raster<'_> {
    /// Covers `share` (0 to 1) of a pixel; outside of the picture, nothing.
    fn blend(&mut self, x: i64, y: i64, share: f64, rgb: Rgb) {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if x >= self.width || y >= self.height {
            return;
        }
        let at = (y * self.width + x) * 3;
        for (pixel, ink) in self.pixels[at..at + 3].iter_mut().zip(rgb) {
            let mixed = f64::from(*pixel) * (1.0 - share) + f64::from(ink) * share;
            *pixel = mixed.round() as u8;
        }
    }

    /// One straight line with round ends: each pixel is covered by as much as it lies within half
    /// the width of the line.
    fn segment(&mut self, (x0, y0): (f64, f64), (x1, y1): (f64, f64), half: f64, ink: (Rgb, f64)) {
        let (dx, dy) = (x1 - x0, y1 - y0);
        let square = (dx * dx + dy * dy).max(1e-9);
        let reach = half + 1.0;
        for y in (y0.min(y1) - reach) as i64..=(y0.max(y1) + reach) as i64 {
            for x in (x0.min(x1) - reach) as i64..=(x0.max(x1) + reach) as i64 {
                let (px, py) = (x as f64 + 0.5, y as f64 + 0.5);
                let along = (((px - x0) * dx + (py - y0) * dy) / square).clamp(0.0, 1.0);
                let distance = (px - x0 - along * dx).hypot(py - y0 - along * dy);
                let cover = (half + 0.5 - distance).clamp(0.0, 1.0);
                if cover > 0.0 {
                    self.blend(x, y, cover * ink.1, ink.0);
                }
            }
        }
    }
}

impl Canvas for Raster<'_> {
    fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, ink: Ink) {
        let rgb = colour(self.theme, ink);
        // Edges on whole pixels: neighbouring cells neither overlap nor leave a seam.
        let edge = |value: f64, end: usize| ((value * PIXELS).round().max(0.0) as usize).min(end);
        let (left, right) = (edge(x, self.width), edge(x + width, self.width));
        for row in edge(y, self.height)..edge(y + height, self.height) {
            let line =
                &mut self.pixels[(row * self.width + left) * 3..(row * self.width + right) * 3];
            line.chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&rgb));
        }
    }

    fn line(&mut self, points: &[(f64, f64)], width: f64, ink: Ink) {
        let opacity = if ink == Ink::Halo { 0.75 } else { 1.0 };
        let ink = (colour(self.theme, ink), opacity);
        let points: Vec<_> = points.iter().map(|&(x, y)| (x * PIXELS, y * PIXELS)).collect();
        for pair in points.windows(2) {
            self.segment(pair[0], pair[1], width * PIXELS / 2.0, ink);
        }
    }

    fn text(&mut self, x: f64, y: f64, size: f64, anchor: Anchor, text: &str, ink: Ink) {
        let rgb = colour(self.theme, ink);
        let text = crate::report::units::printable(text);
        let mut glyphs = Vec::new();
        let mut advance = 0.0f32;
        {
            // ab_glyph counts from ascent to descent, a text's size is that of its em.
            let em = self.font.units_per_em().unwrap_or(2048.0);
            let scale = PxScale::from((size * PIXELS) as f32 * self.font.height_unscaled() / em);
            let font = self.font.as_scaled(scale);
            let mut last = None;
            for c in text.chars() {
                let id = font.glyph_id(c);
                advance += last.map_or(0.0, |last| font.kern(last, id));
                glyphs.push((id.with_scale(scale), advance));
                advance += font.h_advance(id);
                last = Some(id);
            }
        }
        let shift = match anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => advance / 2.0,
            Anchor::End => advance,
        };
        for (mut glyph, offset) in glyphs {
            glyph.position = point((x * PIXELS) as f32 - shift + offset, (y * PIXELS) as f32);
            let Some(outline) = self.font.outline_glyph(glyph) else { continue };
            let corner = outline.px_bounds().min;
            outline.draw(|gx, gy, cover| {
                let (px, py) = (corner.x as i64 + i64::from(gx), corner.y as i64 + i64::from(gy));
                self.blend(px, py, f64::from(cover.clamp(0.0, 1.0)), rgb);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WCAG: 4.5 to 1 for text, 3 to 1 for lines.
    #[test]
    fn inks_stand_out_from_the_ground() {
        let light = |[r, g, b]: Rgb| {
            let linear = [r, g, b].map(|c| {
                let c = f64::from(c) / 255.0;
                if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
            });
            0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        };
        for theme in [Theme::Light, Theme::Dark] {
            let contrast = |ink, ground| {
                let (a, b) = (light(colour(theme, ink)), light(colour(theme, ground)));
                (a.max(b) + 0.05) / (a.min(b) + 0.05)
            };
            assert!(contrast(Ink::Text, Ink::Ground) > 7.0);
            assert!(contrast(Ink::Muted, Ink::Ground) > 4.5);
            for line in 0..3 {
                assert!(contrast(Ink::Line(line), Ink::Ground) > 4.5, "{theme:?} {line}");
                assert!(contrast(Ink::Line(line), Ink::Halo) > 4.5, "{theme:?} {line}");
            }
            assert!(contrast(Ink::Cell(LEVELS - 1), Ink::Plot) > 7.0);
        }
    }
}
