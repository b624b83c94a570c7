//! Figures of many measurements.

/// The one in the middle, or the mean of the two there.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// What this part of the sorted values does not exceed.
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(place.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// Student's t for a 95 % interval with one degree of freedom, two, and so on.
const T: [f64; 9] = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26];

/// The mean of independent values, and half of its 95 % interval; of one value no interval
/// is known.
pub fn interval(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    let freedom = count - 1.0;
    let t = T.get(values.len().wrapping_sub(2)).copied().unwrap_or(1.96 + 2.5 / freedom);
    (mean, if freedom > 0.0 { t * (squares / freedom / count).sqrt() } else { f64::NAN })
}

#[test]
fn an_interval_is_wide_where_little_is_known() {
    let (mean, half) = interval(&[1.0, 3.0]);
    assert!((mean, (half - 12.71).abs() < 1e-9) == (2.0, true), "{mean} {half}");
    assert!(interval(&[1.0]).1.is_nan());
    let many: Vec<f64> = (0..100).map(|place| f64::from(place % 2)).collect();
    assert!((interval(&many).1 - 1.985 * 0.5 / 99f64.sqrt()).abs() < 1e-4);
}
