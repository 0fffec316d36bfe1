//! Colours: viridis, which keeps its order for every kind of colour vision and in grey.

/// Levels of colour in a picture.
pub const LEVELS: usize = 32;

/// Red, green, blue.
pub type Rgb = [u8; 3];

/// Eleven evenly spaced colours of matplotlib's viridis (CC0).
const VIRIDIS: [Rgb; 11] = [
    [0x44, 0x01, 0x54],
    [0x48, 0x24, 0x75],
    [0x41, 0x44, 0x87],
    [0x35, 0x5f, 0x8d],
    [0x2a, 0x78, 0x8e],
    [0x21, 0x91, 0x8c],
    [0x22, 0xa8, 0x84],
    [0x44, 0xbf, 0x70],
    [0x7a, 0xd1, 0x51],
    [0xbd, 0xdf, 0x26],
    [0xfd, 0xe7, 0x25],
];

/// The colour at `place`, 0 (dark) to 1 (light).
#[must_use]
pub fn viridis(place: f64) -> Rgb {
    let place = place.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f64;
    let low = (place as usize).min(VIRIDIS.len() - 2);
    let part = place - low as f64;
    let mix = |c: usize| {
        let (a, b) = (f64::from(VIRIDIS[low][c]), f64::from(VIRIDIS[low + 1][c]));
        (a + (b - a) * part).round() as u8
    };
    [mix(0), mix(1), mix(2)]
}

/// The scale from shares to levels: logarithmic, over three decades up to `most`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// The share that has the strongest colour.
    pub most: f64,
}

impl Scale {
    /// Decades of share that the colours span.
    pub const DECADES: f64 = 3.0;

    /// The scale for shares up to `most` (0 to 1), rounded up to 1, 2 or 5 of a decade.
    #[must_use]
    pub fn new(most: f64) -> Self {
        let most = most.clamp(1e-6, 1.0);
        let decade = 10f64.powf(most.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0];
        let step = steps.into_iter().find(|step| step * decade >= most * 0.999_999);
        Self { most: (step.unwrap_or(10.0) * decade).min(1.0) }
    }

    /// Where `share` lies on the scale, 0 to 1; what is below the scale but not nothing is 0.
    #[must_use]
    pub fn place(&self, share: f64) -> f64 {
        (1.0 + (share / self.most).log10() / Self::DECADES).clamp(0.0, 1.0)
    }

    /// The level of `share`, `0..LEVELS`; `None` for nothing at all.
    #[must_use]
    pub fn level(&self, share: f64) -> Option<usize> {
        (share > 0.0).then(|| ((self.place(share) * LEVELS as f64) as usize).min(LEVELS - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lightness as the eye sees it grows from one end to the other: what makes the order visible
    /// without any colour.
    #[test]
    fn lightness_is_monotonic() {
        let light = |place: f64| {
            let [r, g, b] = viridis(place).map(|c| (f64::from(c) / 255.0).powf(2.2));
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        for step in 0..100 {
            assert!(light(f64::from(step) / 100.0) < light(f64::from(step + 1) / 100.0), "{step}");
        }
    }

    #[test]
    fn scale() {
        assert_eq!(Scale::new(0.13).most, 0.2);
        assert_eq!(Scale::new(0.2).most, 0.2);
        assert_eq!(Scale::new(1.0).most, 1.0);
        let scale = Scale::new(1.0);
        assert_eq!(scale.level(0.0), None);
        assert_eq!(scale.level(1e-9), Some(0));
        assert_eq!(scale.level(1.0), Some(LEVELS - 1));
        assert!((scale.place(0.1) - 2.0 / 3.0).abs() < 1e-12);
    }
}
