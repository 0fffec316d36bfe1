//! Arithmetic on samples. Pure.

/// Mean of values that occurred `counts[value]` times, after the largest `trimmed` (0 to 1) of them were
/// left out; `longer` more were too large to be counted. `None` with fewer than a hundred values, or when
/// more were too large than are left out.
pub fn trimmed_mean(counts: &[u64], longer: u64, trimmed: f64) -> Option<f64> {
    let all: u64 = counts.iter().sum::<u64>() + longer;
    let kept = all - (all as f64 * trimmed) as u64;
    if all < 100 || kept > all - longer {
        return None;
    }
    let (mut left, mut sum) = (kept, 0);
    for (value, &count) in counts.iter().enumerate() {
        let taken = count.min(left);
        sum += taken * value as u64;
        left -= taken;
    }
    Some(sum as f64 / kept as f64)
}

/// First quartile, median and third quartile, interpolated between neighbours.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
    /// Number of values.
    pub rounds: usize,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = part * sorted.len().saturating_sub(1) as f64;
            let (low, high) =
                (sorted.get(place.floor() as usize)?, sorted.get(place.ceil() as usize)?);
            Some(low + (high - low) * place.fract())
        };
        Some(Self { low: at(0.25)?, median: at(0.5)?, high: at(0.75)?, rounds: sorted.len() })
    }
}
