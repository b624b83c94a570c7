//! Charts as SVG.
//!
//! Owns their layout. One colour is ours, grey is theirs; numbers stand beside what they
//! measure, so that no chart needs its scale.
#![cfg(target_os = "linux")]

use std::fmt::Write as _;

const OURS: &str = "#1b6ac9";
const THEIRS: &str = "#98a2ad";
const WIDTH: f64 = 760.0;
const FONT: &str = "font-family=\"sans-serif\"";

/// A bar of a chart.
pub struct Bar {
    pub label: String,
    pub value: f64,
    pub ours: bool,
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A number in as many digits as it is worth.
pub fn figure(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "–".into(),
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn head(height: f64, title: &str, note: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" {FONT}>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"16\" font-weight=\"bold\" fill=\"#1c2733\">{}</text>\n\
         <text x=\"12\" y=\"42\" font-size=\"12\" fill=\"#53606e\">{}</text>\n",
        escaped(title),
        escaped(note)
    )
}

/// Horizontal bars; `log`: lengths are logarithms.
pub fn bars(title: &str, note: &str, bars: &[Bar], log: bool) -> String {
    const LEFT: f64 = 170.0;
    const ROW: f64 = 24.0;
    let bars: Vec<&Bar> = bars.iter().filter(|bar| bar.value.is_finite()).collect();
    let most = bars.iter().map(|bar| bar.value).fold(1e-9, f64::max);
    let least = bars.iter().map(|bar| bar.value).fold(most, f64::min).max(most / 1e4);
    let length = |value: f64| {
        let part = match log {
            // The shortest has a tenth.
            true => 0.1 + 0.9 * (value.max(least) / least).ln() / (most / least).ln().max(1e-9),
            false => value / most,
        };
        (part * (WIDTH - LEFT - 90.0)).max(1.0)
    };
    let mut text = head(62.0 + ROW * bars.len() as f64, title, note);
    for (place, bar) in bars.iter().enumerate() {
        let y = 54.0 + ROW * place as f64;
        let colour = if bar.ours { OURS } else { THEIRS };
        let length = length(bar.value);
        let _ = write!(
            text,
            "<text x=\"{}\" y=\"{}\" font-size=\"13\" text-anchor=\"end\" fill=\"#1c2733\">{}</text>\n\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{length:.0}\" height=\"17\" fill=\"{colour}\"/>\n\
             <text x=\"{:.0}\" y=\"{}\" font-size=\"13\" fill=\"#1c2733\">{}</text>\n",
            LEFT - 8.0,
            y + 13.0,
            escaped(&bar.label),
            LEFT + length + 6.0,
            y + 13.0,
            figure(bar.value)
        );
    }
    text + "</svg>\n"
}

/// A line of a chart: its values at the steps, NaN where there is none.
pub struct Curve {
    pub label: String,
    pub values: Vec<f64>,
    pub ours: bool,
}

/// Curves over steps that are evenly apart; heights are logarithms.
pub fn curves(title: &str, note: &str, steps: &[String], curves: &[Curve]) -> String {
    const HEIGHT: f64 = 360.0;
    const LEFT: f64 = 60.0;
    const RIGHT: f64 = 150.0;
    const COLOURS: [&str; 6] = ["#98a2ad", "#c2703d", "#6b8e4e", "#8566a8", "#b5a13c", "#3d3d3d"];
    let all = || curves.iter().flat_map(|curve| &curve.values).filter(|value| value.is_finite());
    let (most, least) = (all().copied().fold(1e-9, f64::max), all().copied().fold(1e9, f64::min));
    let range = (most / least).ln().max(1e-9);
    let x = |place: usize| {
        LEFT + (WIDTH - LEFT - RIGHT) * place as f64 / (steps.len().max(2) - 1) as f64
    };
    let y = |value: f64| 310.0 - 240.0 * (value / least).ln() / range;
    let mut text = head(HEIGHT, title, note);
    for (place, step) in steps.iter().enumerate() {
        let _ = writeln!(
            text,
            "<text x=\"{:.0}\" y=\"340\" font-size=\"12\" text-anchor=\"middle\" \
             fill=\"#53606e\">{}</text>",
            x(place),
            escaped(step)
        );
    }
    // Labels that are too close to each other make room.
    let mut taken: Vec<f64> = Vec::new();
    for (number, curve) in curves.iter().enumerate() {
        let colour = if curve.ours { OURS } else { COLOURS[number % COLOURS.len()] };
        let width = if curve.ours { 3.5 } else { 1.8 };
        let points: Vec<(f64, f64)> = curve
            .values
            .iter()
            .enumerate()
            .filter(|(_, value)| value.is_finite())
            .map(|(place, value)| (x(place), y(*value)))
            .collect();
        let Some((last_x, last_y)) = points.last().copied() else { continue };
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.0},{y:.0}")).collect();
        let mut label = last_y + 4.0;
        while taken.iter().any(|other| (other - label).abs() < 13.0) {
            label -= 13.0;
        }
        taken.push(label);
        let value = curve.values.iter().rev().find(|value| value.is_finite());
        let _ = write!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>\n\
             <text x=\"{:.0}\" y=\"{label:.0}\" font-size=\"12\" fill=\"{colour}\">{} {}</text>\n",
            path.join(" "),
            last_x + 8.0,
            escaped(&curve.label),
            figure(value.copied().unwrap_or(f64::NAN))
        );
    }
    text + "</svg>\n"
}
